"""What training sees of a shopper, read from the log, is what serving sees, kept event by event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.contracts.user_encoder import RawPrompt
from onesearch.data.schemas import schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.shoppers.events import Event
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.opening import open_states

from .conftest import ITEMS, World

START, SHOPPERS, EVENTS = datetime(2026, 1, 1, tzinfo=UTC), 6, 900
QUERIES = ("red shirt", "Blue  Shirt", "angle bracket", "红色 连衣裙")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rng = np.random.default_rng(11)
    rows = []
    for at in range(EVENTS):
        feed = rng.random() < 0.25
        action = rng.choice(["impression", "click", "click", "order"])
        rows.append(
            {
                "event_id": f"e{at}",
                # Several events fall into one second, and the log is in no order.
                "ts": START + timedelta(seconds=int(rng.integers(0, 400)), milliseconds=int(at)),
                "user_id": f"u{rng.integers(SHOPPERS)}",
                "scene": "recommend" if feed else "search",
                "query": None if feed else QUERIES[rng.integers(len(QUERIES))],
                "item_id": f"i{rng.integers(ITEMS + 4)}",  # the last ones were withdrawn
                "action": str(action),
            }
        )
    names = {name: kind for name, kind in schema("interactions").items() if name in rows[0]}
    with StoreWriter(tmp_path / "store", "test") as writer:
        writer.write("items", pl.DataFrame({"item_id": ["i0"], "title": ["red shirt"]}))
        writer.write("interactions", pl.DataFrame(rows, schema=names))
    return Store.open(tmp_path / "store")


def events_of(store: Store) -> Iterator[Event]:
    """The log as a stream brings it: one after another."""
    for row in store.interactions().collect().iter_rows(named=True):
        yield Event(
            user_id=row["user_id"],
            time=int(row["ts"].timestamp()),
            action=row["action"],
            item_id=row["item_id"],
            query=row["query"] or "",
            scene=row["scene"],
        )


def test_training_and_serving_see_the_same(world: World, store: Store, tmp_path: Path) -> None:
    users = [f"u{at}" for at in range(SHOPPERS)] + ["nobody"]
    moment = int(START.timestamp()) + 300
    with open_states(f"lmdb:{tmp_path / 'states'}") as states:
        for event in events_of(store):
            if event.time < moment:
                states.update({event.user_id: [event]}, {})
        served = states.get_many(users)
    trained = EventLog.of_store(store).states_before(users, np.full(len(users), moment))
    queries = [QUERIES[at % len(QUERIES)] for at in range(len(users))]
    sids, encoder = world.query_sids(queries), world.server()
    here, there = encoder.raw(served, queries, sids), encoder.raw(trained, queries, sids)
    assert same(here, there)
    assert here.history_mask[:-1].all(axis=1).any() and not here.history_mask[-1].any()


def same(one: RawPrompt, other: RawPrompt) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("ids", "mask", "history", "history_mask")
    )
