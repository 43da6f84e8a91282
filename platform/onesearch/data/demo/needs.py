"""What simulated shoppers look for, and how they put it into a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from onesearch.data.demo.catalogue import Catalogue
from onesearch.data.demo.people import People
from onesearch.data.demo.words import CHINESE, TYPE, Words

WANTED = 3
"""The most attributes that a query names."""

# How readily shoppers name a type in a query.
_NAMED = {
    "Modifier": 0.1,
    "Brand": 0.2,
    "Material": 0.14,
    "Style": 0.1,
    "Function": 0.13,
    "Location": 0.02,
    "Audience": 0.16,
    "Color": 0.16,
    "Scene": 0.09,
    "Specifications": 0.06,
    "Price": 0.05,
    "Model": 0.012,
    "Anchor": 0.015,
    "Series": 0.025,
    "Marketing": 0.015,
    "Season": 0.06,
    "Pattern": 0.08,
}
_HOW_MANY = (0.34, 0.39, 0.21, 0.06)
_BEFORE = (
    "Price",
    "Brand",
    "Series",
    "Model",
    "Season",
    "Modifier",
    "Color",
    "Pattern",
    "Material",
    "Style",
    "Location",
    "Function",
)
_AFTER = ("Specifications", "Marketing", "Anchor")


@dataclass(frozen=True)
class Needs:
    """R requests' needs.

    Attributes:
        who: i64[R], the shopper. day: i64[R], counted from the logged year's start.
        entity: i64[R], what is looked for; -1 for somebody who only browses.
        kinds, values: i32[R, 3], the attributes that must hold; -1 is none.
        key: u64[R], a number of the request's own, which its luck is drawn by.
    """

    who: np.ndarray
    day: np.ndarray
    entity: np.ndarray
    kinds: np.ndarray
    values: np.ndarray
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.who)

    @classmethod
    def joined(cls, parts: Sequence[Needs]) -> Needs:
        """Requests one after the other."""
        return cls(
            *(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls))
        )

    def take(self, rows: np.ndarray) -> Needs:
        """Some of the requests."""
        return Needs(
            self.who[rows],
            self.day[rows],
            self.entity[rows],
            self.kinds[rows],
            self.values[rows],
            self.key[rows],
        )


def season_of(day: np.ndarray | int) -> np.ndarray:
    """Season 0 … 3 (spring … winter) of days counted from 1 July."""
    return ((np.asarray(day) + 122) // 91.3125).astype(np.int64) % 4


class Demand:
    """Makes needs: an entity by interest and season, an item that would suit, some of its attributes."""

    def __init__(self, words: Words, catalogue: Catalogue, people: People, rng: np.random.Generator) -> None:
        self._catalogue, self._people = catalogue, people
        entities = words.entities
        self._season = np.array([kind.season for kind in entities])
        self._department = np.array([kind.department for kind in entities])
        self._popular = np.log(1.0 / (1 + rng.permutation(len(entities))) ** 0.6)
        order = np.lexsort((catalogue.language, catalogue.entity))
        shelf = catalogue.entity[order] * 2 + catalogue.language[order]
        self._shelf_items = order
        self._shelf_edges = np.searchsorted(shelf, np.arange(2 * len(entities) + 1))
        self._named = np.full(len(TYPE), -np.inf)
        for name, weight in _NAMED.items():
            self._named[TYPE[name]] = np.log(weight)

    def browse(self, who: np.ndarray, day: np.ndarray, key: np.ndarray) -> Needs:
        """Needs of people who only browse."""
        none = np.full((len(who), WANTED), -1, dtype=np.int32)
        return Needs(who, day, np.full(len(who), -1), none, none, key)

    def search(self, who: np.ndarray, day: np.ndarray, key: np.ndarray, rng: np.random.Generator) -> Needs:
        """Needs of people who search."""
        with np.errstate(divide="ignore"):
            liking = np.log(self._people.interest[who])[:, self._department] + self._popular
        distance = np.abs((season_of(day)[:, None] - self._season[None, :] + 2) % 4 - 2)
        entity = np.argmax(liking - 0.6 * distance + rng.gumbel(size=liking.shape), axis=1)
        target = self._suiting(who, day, entity, rng)
        return self._with_wishes(Needs(who, day, entity, *self._nothing(len(who)), key), target, rng)

    def refined(self, needs: Needs, key: np.ndarray, rng: np.random.Generator) -> Needs:
        """The same people look for the same thing again, in other words or more exactly."""
        target = self._suiting(needs.who, needs.day, needs.entity, rng)
        return self._with_wishes(replace(needs, key=key), target, rng)

    def _nothing(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((count, WANTED), -1, dtype=np.int32), np.full((count, WANTED), -1, dtype=np.int32)

    def _suiting(
        self, who: np.ndarray, day: np.ndarray, entity: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """For each request an item of its entity and language that suits, the best of some; -1: none."""
        shelf = entity * 2 + self._people.language[who]
        low, high = self._shelf_edges[shelf], self._shelf_edges[shelf + 1]
        at = low[:, None] + (rng.random((len(who), 8)) * (high - low)[:, None]).astype(np.int64)
        some = self._shelf_items[np.minimum(at, len(self._shelf_items) - 1)]
        taste = self._people.taste_on(who, day)
        liking = np.einsum("rkd,rd->rk", self._catalogue.latent[some], taste)
        people = self._people.audience[who[:, None], self._catalogue.values[some, TYPE["Audience"]]]
        liking += people + rng.gumbel(size=liking.shape)
        best = some[np.arange(len(who)), np.argmax(liking, axis=1)]
        return np.where(high > low, best, -1)

    def _with_wishes(self, needs: Needs, target: np.ndarray, rng: np.random.Generator) -> Needs:
        has = np.where((target >= 0)[:, None], self._catalogue.values[target], -1)
        weight = np.where(has >= 0, self._named, -np.inf) + rng.gumbel(size=has.shape)
        kinds = np.argsort(-weight, axis=1)[:, :WANTED].astype(np.int32)
        many = rng.choice(len(_HOW_MANY), size=len(needs), p=_HOW_MANY)
        possible = np.isfinite(np.take_along_axis(weight, kinds, axis=1))
        kinds = np.where(possible & (np.arange(WANTED) < many[:, None]), kinds, -1).astype(np.int32)
        values = np.where(kinds >= 0, np.take_along_axis(has, np.maximum(kinds, 0), axis=1), -1)
        return replace(needs, kinds=kinds, values=values.astype(np.int32))


def query_texts(
    needs: Needs, words: Words, catalogue: Catalogue, people: People, rng: np.random.Generator
) -> list[str]:
    """How the shoppers put their needs: synonyms, word order, now and then a slip."""
    luck = rng.random((len(needs), 8)).tolist()
    languages = people.language[needs.who].tolist()
    rows = zip(
        needs.entity.tolist(), needs.kinds.tolist(), needs.values.tolist(), languages, luck, strict=True
    )
    return [_text(words, catalogue, *row) for row in rows]


_RANK = {TYPE[name]: at for at, name in enumerate((*_BEFORE, *_AFTER, "Audience", "Scene", "Entity"))}


def _text(
    words: Words,
    catalogue: Catalogue,
    entity: int,
    kinds: list[int],
    values: list[int],
    language: int,
    luck: list[float],
) -> str:
    said: dict[int, str] = {}
    for (kind, value), chance in zip(zip(kinds, values, strict=True), luck, strict=False):
        if kind >= 0:
            synonyms = catalogue.surfaces[kind][value][language]
            # One draw both decides for the usual word and picks among all.
            said[kind] = (
                synonyms[0] if chance < 0.65 else synonyms[int((chance - 0.65) / 0.35 * len(synonyms))]
            )
    names = words.entities[entity].surface[language]
    main = names[0] if luck[3] < 0.6 else names[int((luck[3] - 0.6) / 0.4 * len(names))]
    order = sorted(said, key=lambda kind: _RANK[kind])
    audience, scene = said.get(TYPE["Audience"], ""), said.get(TYPE["Scene"], "")
    before = [said[kind] for kind in order if _RANK[kind] < len(_BEFORE)]
    after = [said[kind] for kind in order if len(_BEFORE) <= _RANK[kind] < len(_BEFORE) + len(_AFTER)]
    if luck[4] < 0.2:
        before.reverse()
    if language == CHINESE:
        parts = (
            [*before, main, *after, scene, audience]
            if luck[5] < 0.5
            else [audience, scene, *before, main, *after]
        )
        return (" " if luck[6] < 0.12 else "").join(part for part in parts if part)
    parts = [audience if luck[5] < 0.6 else "", *before, main, *after]
    parts += [f"for {audience}" if audience and luck[5] >= 0.6 else "", f"for {scene}" if scene else ""]
    text = " ".join(part for part in parts if part).lower()
    if luck[6] < 0.03 and len(text) > 5:
        at = 1 + int(luck[7] * (len(text) - 3))
        text = (
            text[:at] + text[at + 1 :]
            if luck[6] < 0.015
            else text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        )
    return text
