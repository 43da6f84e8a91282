"""A small release to encode shoppers for: random codebooks, forty items, and a tokenizer that notes calls."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.codebooks import Codebooks
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import ShopperState
from onesearch.index import CatalogueIndex
from onesearch.shoppers.state import NO_ITEM, Recent, Ring, item_key, item_keys
from onesearch.vocabulary import Vocabulary
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.learner import MuSeqLearner
from onesearch_museq.server import MuSeqServer
from onesearch_museq.stand_ins import StandIns

LEVELS, DIM, ITEMS = (12, 5, 4, 3, 3), 8, 40


@dataclass
class World:
    """What a server is opened on; ``asked`` are the texts that the tokenizer was asked for, call by call."""

    folder: Path
    vocabulary: Vocabulary
    codebooks: Codebooks
    index: CatalogueIndex
    asked: list[list[str]] = field(default_factory=list)
    popular: dict[str, list[int]] = field(default_factory=dict)

    def query_sids(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array(
            [[zlib.crc32(f"{level}{text}".encode()) % size for level, size in enumerate(LEVELS)]
             for text in texts], np.int32
        ).reshape(-1, len(LEVELS))  # fmt: skip

    @property
    def context(self) -> ServingContext:
        return ServingContext(
            self.folder, self.vocabulary, self.index, Runtime(threads=1), query_sids=self.query_sids
        )

    def learner(self, **settings: Any) -> MuSeqLearner:
        learner = MuSeqLearner(MuSeqConfig(**settings))
        learner.stand_ins = table(self.popular)
        return learner

    def server(self, **settings: Any) -> MuSeqServer:
        """Of a learner of these settings, whose stand-ins are ``popular``."""
        folder = self.folder / f"user_encoder-{len(list(self.folder.iterdir()))}"
        self.learner(**settings).export(folder)
        return MuSeqServer.open(folder, self.context, MuSeqConfig())

    def sid(self, item: int) -> list[int]:
        """Prompt ids of an item."""
        return [int(i) for i in self.vocabulary.sid_ids(self.index.sids[item])]

    def past(self, text: str) -> list[int]:
        """Prompt ids of a past query."""
        return [int(i) for i in self.vocabulary.sid_ids(World.query_sids(self, [text])[0])]

    def code_ids(self, codes: np.ndarray) -> list[int]:
        """Prompt ids of codes i32[2, L]."""
        return [int(i) for i in self.vocabulary.sid_ids(codes).ravel()]


def table(popular: dict[str, list[int]]) -> StandIns:
    """Stand-ins from query texts to item numbers, best first."""
    width = max([1, *map(len, popular.values())])
    rows = [(item_key(query), [item_key(f"i{n}") for n in items]) for query, items in popular.items()]
    rows.sort()
    items = np.full((len(rows), width), NO_ITEM, np.uint64)
    for row, (_, keys) in enumerate(rows):
        items[row, : len(keys)] = keys
    return StandIns(np.array([key for key, _ in rows], np.uint64), items)


def ring(items: Sequence[int], start: int = 1_000) -> Ring:
    """One event a second; numbers from 40 on are withdrawn items."""
    times = np.arange(start, start + len(items), dtype=np.uint32)
    return Ring(item_keys([f"i{n}" for n in items]), times, np.zeros(len(items), np.uint8))


def recent(*pieces: tuple[str, int | None]) -> tuple[Recent, ...]:
    """Pairs of query and item number (None: nothing clicked), one a second."""
    return tuple(
        Recent(query, NO_ITEM if item is None else item_key(f"i{item}"), 1_000 + second)
        for second, (query, item) in enumerate(pieces)
    )


def shopper(
    clicks: Sequence[int] = (), orders: Sequence[int] = (), *pieces: tuple[str, int | None]
) -> ShopperState:
    return ShopperState("u1", ring(clicks), ring(orders), recent(*pieces))


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(["red shirt", "blue shirt", "angle bracket", "红色 连衣裙"] * 3, LEVELS, size=400)


@pytest.fixture
def world(tmp_path: Path, vocabulary: Vocabulary) -> World:
    rng = np.random.default_rng(3)
    books = Codebooks.of([rng.normal(size=(size, DIM)) / (1 + level) for level, size in enumerate(LEVELS)])
    books.save(tmp_path / "index")
    sids = np.stack([rng.integers(0, size, ITEMS) for size in LEVELS], axis=1)
    return World(tmp_path, vocabulary, books, catalogue(sids))


def catalogue(sids: np.ndarray) -> CatalogueIndex:
    count = len(sids)
    items = pl.DataFrame({
        "item_id": [f"i{n}" for n in range(count)],
        "title": [f"thing {n}" for n in range(count)],
        "category": [["things"]] * count,
        "brand": ["maker"] * count,
        "price": [1.0] * count,
        "in_stock": [True] * count,
    })  # fmt: skip
    return CatalogueIndex.build(items, sids, np.zeros((count, DIM)), np.ones(count), LEVELS)
