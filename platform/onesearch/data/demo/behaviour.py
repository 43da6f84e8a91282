"""How simulated shoppers act on a list: the probabilities that are their truth, and the luck they have.

For shopper s, item i and request r on some day (σ is the logistic function)::

    taste  = t_s(day) · z_i + 0.6·audience_s(i)          z_i: the item's latent vector
    money  = −½·min((p_i − p_s)², 6)                      standardised log prices
    season = +1 in season, −1 in the opposite one
    click  = σ(−4.2 + 3.2·rel + 0.9·taste + 0.5·quality + 0.5·money + 0.5·season + 0.3·trend(day)·z_i)
    order  = σ(−4.2 + 1.2·rel + 0.9·taste + 0.6·quality + 0.6·money), of what was clicked

    rel(r, i) = kin·(0.35 + 0.65·share of wishes that hold)·(0.2 if in the other language)
    kin = 1 for the wished entity, 0.35 for another one of its group, else 0; a shopper who only browses has
    rel = 0.55

Who looks at a list reads down to a depth, sees place p with probability (1 + p)^−0.65 (a feed: −0.4),
clicks what they see with ``click``, orders what they clicked with ``order``, and leaves at the first order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onesearch.data.demo.catalogue import LATENT, Catalogue
from onesearch.data.demo.needs import Needs, season_of
from onesearch.data.demo.people import People
from onesearch.data.demo.words import TYPE

KIN = 0.35
BROWSING = 0.55
OTHER_LANGUAGE = 0.2
SEARCH_FADE, FEED_FADE = 0.65, 0.4
PAGE = 10
"""Results on a page; most shoppers look at one."""
_SECOND_PAGE = 0.3
_LOOK, _CLICK, _ORDER, _DEPTH = range(4)  # what a draw of luck decides


@dataclass(frozen=True)
class Acts:
    """What shoppers did with their lists.

    Attributes:
        shown: bool[R, K], impressions: within the depth that the shopper read to.
        clicked, ordered: bool[R, K].
    """

    shown: np.ndarray
    clicked: np.ndarray
    ordered: np.ndarray


class Behaviour:
    """The truth about one world's shoppers."""

    def __init__(self, catalogue: Catalogue, people: People, rng: np.random.Generator) -> None:
        self.catalogue, self.people = catalogue, people
        first, second = np.linalg.qr(rng.normal(size=(LATENT, 2)))[0].T
        self._trend = (first.astype(np.float32), second.astype(np.float32))

    def relevance(self, needs: Needs, items: np.ndarray) -> np.ndarray:
        """rel f32[R, K] of items i64[R, K] (−1: none, 0)."""
        catalogue = self.catalogue
        held = np.zeros(items.shape, dtype=np.float32)
        for slot in range(needs.kinds.shape[1]):
            kind, value = needs.kinds[:, slot], needs.values[:, slot]
            held += (catalogue.values[items, np.maximum(kind, 0)[:, None]] == value[:, None]) & (kind >= 0)[
                :, None
            ]
        wishes = (needs.kinds >= 0).sum(axis=1)[:, None]
        share = np.where(wishes > 0, held / np.maximum(wishes, 1), 1.0)
        same = catalogue.entity[items] == needs.entity[:, None]
        near = catalogue.group[items] == self._group_of(needs.entity)[:, None]
        kin = np.where(same, 1.0, np.where(near, KIN, 0.0))
        relevance = np.where((needs.entity < 0)[:, None], BROWSING, kin * (0.35 + 0.65 * share))
        foreign = catalogue.language[items] != self.people.language[needs.who][:, None]
        return np.where(items < 0, 0.0, relevance * np.where(foreign, OTHER_LANGUAGE, 1.0)).astype(np.float32)

    def _group_of(self, entity: np.ndarray) -> np.ndarray:
        groups = np.full(int(self.catalogue.entity.max()) + 2, -2)
        groups[self.catalogue.entity] = self.catalogue.group
        return groups[np.where((entity >= 0) & (entity < len(groups) - 1), entity, len(groups) - 1)]

    def chances(self, needs: Needs, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p(click | seen) and p(order | clicked), f32[R, K] each, of items i64[R, K].

        Both are 0 where the item is −1, or not on sale that day.
        """
        catalogue = self.catalogue
        latent = catalogue.latent[items]
        taste = np.einsum("rkd,rd->rk", latent, self.people.taste_on(needs.who, needs.day))
        taste += 0.6 * self.people.audience[needs.who[:, None], catalogue.values[items, TYPE["Audience"]]]
        money = -0.5 * np.minimum(
            (catalogue.price_level[items] - self.people.price_level[needs.who][:, None]) ** 2, 6.0
        )
        season = catalogue.values[items, TYPE["Season"]]
        apart = np.abs((season - season_of(needs.day)[:, None] + 2) % 4 - 2)
        fits = np.where((season >= 0) & (season < 4), 1.0 - apart, 0.0)
        angle = needs.day / 365 * 2 * np.pi
        trend = np.cos(angle)[:, None] * self._trend[0] + np.sin(angle)[:, None] * self._trend[1]
        fashion = np.einsum("rkd,rd->rk", latent, trend)
        relevance, quality = self.relevance(needs, items), catalogue.quality[items]
        liking = (
            -4.2 + 3.2 * relevance + 0.9 * taste + 0.5 * quality + 0.5 * money + 0.5 * fits + 0.3 * fashion
        )
        wanting = -4.2 + 1.2 * relevance + 0.9 * taste + 0.6 * quality + 0.6 * money
        day = needs.day[:, None]
        there = (items >= 0) & (catalogue.launch[items] <= day) & (day < catalogue.retire[items])
        return (np.where(there, _logistic(liking), 0.0), np.where(there, _logistic(wanting), 0.0))

    def act(self, needs: Needs, items: np.ndarray, seed: int) -> Acts:
        """What the shoppers do with lists of item numbers i64[R, K] (−1: the list is shorter).

        The same request, item and seed meet the same luck in whatever list the item stands, wherever it
        stands: common random numbers.
        """
        width = items.shape[1]
        key = needs.key[:, None]
        depth = np.where(luck(seed, _DEPTH, needs.key, 0) < _SECOND_PAGE, 2 * PAGE, PAGE)[:, None]
        place = np.arange(width)[None, :]
        shown = (items >= 0) & (place < depth)
        fade = np.where(needs.entity < 0, FEED_FADE, SEARCH_FADE)[:, None]
        sees = luck(seed, _LOOK, key, place) < (1.0 + place) ** -fade
        p_click, p_order = self.chances(needs, items)
        clicked = shown & sees & (luck(seed, _CLICK, key, items) < p_click)
        ordered = clicked & (luck(seed, _ORDER, key, items) < p_order)
        first = np.where(ordered.any(axis=1), ordered.argmax(axis=1), width)[:, None]
        return Acts(shown, clicked & (place <= first), ordered & (place <= first))


def _logistic(x: np.ndarray) -> np.ndarray:
    return (1.0 / (1.0 + np.exp(-x))).astype(np.float32)


def luck(seed: int, stream: int, key: np.ndarray, about: np.ndarray | int) -> np.ndarray:
    """Uniform numbers f64 in [0, 1), a function of its arguments alone (splitmix64)."""
    with np.errstate(over="ignore"):
        start = np.uint64((seed * 4 + stream) % 2**64)
        mixed = _mix(
            _mix(key.astype(np.uint64) ^ _mix(start)) ^ np.asarray(about).astype(np.int64).astype(np.uint64)
        )
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
    z = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
