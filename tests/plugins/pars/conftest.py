"""A shop whose shoppers each like one colour: what a reward has to find out from its log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates
from onesearch.data.schemas import schema
from onesearch.index import CatalogueIndex
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import ShopperState
from onesearch.training.attribution import exposures
from onesearch.training.impressions import Impressions, impressions_of
from onesearch.training.lists import RankedLists

THINGS, COLOURS = ("lamp", "sofa", "rug"), ("red", "blue", "green", "white", "black")
DIM, SHOPPERS, SEARCHES, SHOWN = 12, 30, 700, 10
START = datetime(2024, 5, 1, tzinfo=UTC)
HELD_FROM = 560


@dataclass(frozen=True)
class Shop:
    """Catalogue, log, and what is asked of it; everything from one seed."""

    orders: bool = True

    @cached_property
    def items(self) -> pl.DataFrame:
        rows = [(thing, colour) for thing in THINGS for colour in COLOURS for _ in range(4)]
        return pl.DataFrame(
            {
                "item_id": [f"i{at}" for at in range(len(rows))],
                "title": [f"{colour} {thing}" for thing, colour in rows],
                "category": [["home", thing, colour] for thing, colour in rows],
                "brand": [None] * len(rows),
                "price": [10.0 + 5 * (at % 4) for at in range(len(rows))],
                "in_stock": [True] * len(rows),
            },
            schema_overrides={"brand": pl.String},
        )

    @cached_property
    def colour(self) -> np.ndarray:
        return np.array([COLOURS.index(path[2]) for path in self.items["category"].to_list()])

    @cached_property
    def thing(self) -> np.ndarray:
        return np.array([THINGS.index(path[1]) for path in self.items["category"].to_list()])

    @cached_property
    def vectors(self) -> np.ndarray:
        random = np.random.default_rng(1)
        base = random.normal(size=(len(THINGS) + len(COLOURS), DIM))
        noise = 0.2 * random.normal(size=(len(self.items), DIM))
        made = 2 * base[self.thing] + base[len(THINGS) + self.colour] + noise
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)

    def embed(self, queries: list[str]) -> np.ndarray:
        made = np.zeros((len(queries), DIM), np.float32)
        for row, query in zip(made, queries, strict=True):
            own = [at for at, thing in enumerate(THINGS) if thing in query]
            row[:] = self.vectors[self.thing == own[0]].astype(np.float32).mean(axis=0) if own else 1e-3
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    @cached_property
    def searches(self) -> list[tuple[int, int]]:
        """Shopper and thing of each."""
        random = np.random.default_rng(2)
        return list(
            zip(
                random.integers(SHOPPERS, size=SEARCHES),
                random.integers(len(THINGS), size=SEARCHES),
                strict=True,
            )
        )

    @cached_property
    def log(self) -> pl.DataFrame:
        random, rows = np.random.default_rng(3), []
        for number, (shopper, thing) in enumerate(self.searches):
            when = START + timedelta(hours=number)
            shown = random.permutation(np.flatnonzero(self.thing == thing))[:SHOWN]
            for place, item in enumerate(shown):
                asked = (f"u{shopper}", f"r{number}", "search", THINGS[thing], f"i{item}")
                rows.append((when, *asked, "impression", place))
                liked = self.colour[item] == shopper % len(COLOURS)
                if random.random() < (1 + place) ** -0.5 * (0.7 if liked else 0.06):
                    rows.append((when + timedelta(minutes=1), *asked, "click", place))
                    if self.orders and random.random() < (0.5 if liked else 0.1):
                        rows.append((when + timedelta(minutes=2), *asked, "order", place))
        names = ("ts", "user_id", "request_id", "scene", "query", "item_id", "action", "position")
        made = [
            {
                **dict.fromkeys(schema("interactions")),
                "event_id": f"e{at}",
                **dict(zip(names, row, strict=True)),
            }
            for at, row in enumerate(rows)
        ]
        return pl.DataFrame(made, schema=schema("interactions"))

    @cached_property
    def events(self) -> EventLog:
        return EventLog.of_store(self)  # type: ignore[arg-type]

    def interactions(self) -> pl.LazyFrame:
        return self.log.lazy()

    def impressions(self, fresh: bool = True, **changes: Any) -> Impressions:
        grades = pl.DataFrame(
            {
                "query": np.repeat(THINGS, len(self.items)),
                "item_id": self.items["item_id"].to_list() * len(THINGS),
                "grade": (np.arange(len(THINGS))[:, None] == self.thing).ravel().astype(np.float32),
            }
        )
        learnt_until = START + timedelta(hours=300) if fresh else None
        options = {"learnt_until": learnt_until, **changes}
        found = exposures(self.log)
        return impressions_of(found, self.items, grades, self.embed, self.events.states_before, **options)

    @cached_property
    def lists(self) -> RankedLists:
        """All items for each of the newest searches that had a click, in random order."""
        random = np.random.default_rng(4)
        clicked = self.log.filter(pl.col("action") == "click")
        chosen = [
            number
            for number in range(HELD_FROM, SEARCHES)
            if len(clicked.filter(pl.col("request_id") == f"r{number}"))
        ]
        count = len(self.items)
        items = np.stack([random.permutation(count) for _ in chosen]).astype(np.int32)
        gain = np.zeros(items.shape, np.float32)
        for row, number in enumerate(chosen):
            own = clicked.filter(pl.col("request_id") == f"r{number}")["item_id"].to_list()
            gain[row] = np.isin(items[row], [int(item[1:]) for item in own])
        queries = [THINGS[self.searches[number][1]] for number in chosen]
        moments = np.array([int((START + timedelta(hours=number)).timestamp()) for number in chosen])
        states = self.events.states_before([f"u{self.searches[number][0]}" for number in chosen], moments)
        log_probs = np.tile(-np.arange(count, dtype=np.float32), (len(chosen), 1))
        return RankedLists(
            queries, self.embed(queries), Candidates(items, log_probs), gain,
            self.pairs(START + timedelta(hours=HELD_FROM)), self.items, self.vectors,
            np.ones(count, np.float32), {}, serving_pairs=self.pairs(), states=states,
        )  # fmt: skip

    def pairs(self, before: datetime | None = None) -> pl.DataFrame:
        events = self.log if before is None else self.log.filter(pl.col("ts") < before)
        action = pl.col("action")
        return (
            events.group_by("query", item=pl.col("item_id").str.slice(1).cast(pl.Int32))
            .agg(
                clicks=(action == "click").sum(),
                orders=(action == "order").sum(),
                impressions=(action == "impression").sum(),
                last_ts=pl.col("ts").max(),
            )
            .with_columns(
                grade=pl.lit(None, pl.Float32),
                weight=(pl.col("clicks") + 2 * pl.col("orders")).cast(pl.Float32),
            )
            .sort("query", "item")
        )

    def context(self, folder: Path, items: int | None = None) -> ServingContext:
        rows = slice(items)
        frame, vectors = self.items[rows], self.vectors[rows]
        index = CatalogueIndex.build(
            frame, np.zeros((len(frame), 2), np.int32), vectors, np.ones(len(frame)), (1, 1)
        )
        unused: Any = None
        return ServingContext(folder, vocabulary=unused, index=index, runtime=Runtime(threads=1))

    def state(self, shopper: int) -> ShopperState:
        """As of the end."""
        return self.events.state_before(f"u{shopper}", int((START + timedelta(days=365)).timestamp()))

    def without(self, *actions: str) -> Shop:
        """The same shop whose log lacks some actions."""
        made = replace(self)
        made.__dict__["log"] = self.log.filter(~pl.col("action").is_in(actions))
        return made


@pytest.fixture(scope="session")
def shop() -> Shop:
    return Shop()
