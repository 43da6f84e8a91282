"""Simulated shoppers: what they like is hidden; what a shop would know of them is their profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from onesearch.data.demo.catalogue import DAYS, LATENT
from onesearch.data.demo.words import CHINESE, ENGLISH, TYPE, Words

_AGES = ((18, 25), (25, 35), (35, 45), (45, 60), (60, 80))


@dataclass(frozen=True)
class People:
    """S shoppers.

    Attributes:
        language: i8[S]; they search, and like to read, in one language.
        taste, later_taste: f32[S, 16], orthogonal unit vectors; drift: f32[S], the angle turned from one
            towards the other in a year.
        interest: f64[S, departments], rows sum to 1.
        audience: f32[S, audiences], how well an item for these people suits the shopper, -1 … 1; a last
            column of 0 for items that do not say.
        price_level: f32[S], the standardised log price that suits. activity: f64[S], share of all visits.
    """

    language: np.ndarray
    taste: np.ndarray
    later_taste: np.ndarray
    drift: np.ndarray
    interest: np.ndarray
    audience: np.ndarray
    price_level: np.ndarray
    activity: np.ndarray
    gender: np.ndarray
    age: np.ndarray

    def __len__(self) -> int:
        return len(self.language)

    def taste_on(self, who: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Tastes f32[R, 16] of shoppers i64[R] on days i64[R]."""
        angle = (self.drift[who] * day / DAYS)[:, None]
        return self.taste[who] * np.cos(angle) + self.later_taste[who] * np.sin(angle)


def make_people(words: Words, count: int, rng: np.random.Generator) -> People:
    """Make ``count`` shoppers."""
    gender = rng.integers(2, size=count)  # 0 female, 1 male
    band = rng.choice(len(_AGES), size=count, p=[0.2, 0.32, 0.22, 0.18, 0.08])
    age = rng.integers(np.array(_AGES)[band, 0], np.array(_AGES)[band, 1])
    children = (age > 26) & (age < 48) & (rng.random(count) < 0.5)
    names = {surface[0][0]: at for at, surface in enumerate(words.surfaces[TYPE["Audience"]])}
    audience = np.full((count, len(names) + 1), -0.6, dtype=np.float32)
    audience[:, -1] = 0.0
    audience[:, names["unisex"]] = 0.3
    audience[np.arange(count), np.where(gender == 0, names["women"], names["men"])] = 1.0
    for name in ("girls", "boys", "baby"):
        audience[children & (rng.random(count) < 0.6), names[name]] = 0.8
    audience[age < 24, names["teens"]] = 0.8
    audience[(age > 55) | (rng.random(count) < 0.15), names["seniors"]] = (
        0.7  # for oneself, or for one's parents
    )
    tastes = rng.normal(size=(2, count, LATENT))
    first = tastes[0] / np.linalg.norm(tastes[0], axis=1, keepdims=True)
    second = tastes[1] - (tastes[1] * first).sum(axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    interest = rng.gamma(0.5, size=(count, len(words.departments))) + 0.02
    departments = [department.name[0] for department in words.departments]
    interest[gender == 1, departments.index("Women's Clothing")] *= 0.15
    interest[gender == 0, departments.index("Men's Clothing")] *= 0.3
    interest[:, departments.index("Baby & Toys")] *= np.where(children, 3.0, 0.4)
    activity = rng.lognormal(sigma=1.0, size=count)
    return People(
        language=np.where(rng.random(count) < 0.5, ENGLISH, CHINESE).astype(np.int8),
        taste=first.astype(np.float32),
        later_taste=second.astype(np.float32),
        drift=rng.uniform(0.0, np.pi / 3, size=count).astype(np.float32),
        interest=interest / interest.sum(axis=1, keepdims=True),
        audience=audience,
        price_level=(rng.normal(size=count) * 0.8).astype(np.float32),
        activity=activity / activity.sum(),
        gender=gender,
        age=age,
    )


def profiles(people: People, words: Words) -> pl.DataFrame:
    """The store's table ``shoppers``: labels a shop would have, not the tastes behind them."""
    favourites = np.argsort(-people.interest, axis=1)[:, 0]
    rows = []
    for who in range(len(people)):
        low, high = next(band for band in _AGES if band[0] <= people.age[who] < band[1])
        rows.append(
            [
                f"language:{'zh' if people.language[who] == CHINESE else 'en'}",
                f"gender:{'male' if people.gender[who] else 'female'}",
                f"age:{low}-{high - 1}",
                f"favourite:{words.departments[favourites[who]].name[people.language[who]]}",
            ]
        )
    return pl.DataFrame({"user_id": [user_id(who) for who in range(len(people))], "profile": rows})


def user_id(who: int) -> str:
    """The id that the shop knows a shopper by."""
    return f"S{who:05d}"
