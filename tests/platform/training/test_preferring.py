"""Which searches preferences are learnt from, and what odd logs come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from onesearch.data.schemas import schema
from onesearch.training.attribution import exposures
from onesearch.training.counters import USER_CAP
from onesearch.training.levels import USER_LISTS
from onesearch.training.preferring import NothingToPrefer, judged_queries, learnable, searches
from onesearch.training.split import Split

START = datetime(2024, 5, 1, tzinfo=UTC)
ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"]})
NO_PAIRS = pl.DataFrame(schema={"query": pl.String, "item": pl.Int32, "weight": pl.Float32})


def log(*rows: tuple) -> pl.DataFrame:
    """hours, user, request, query, item, action."""
    names = ("ts", "user_id", "request_id", "query", "item_id", "action")
    made = [
        {**dict.fromkeys(schema("interactions")), "event_id": f"e{at}", "scene": "search"}
        | dict(zip(names, row, strict=True))
        for at, row in enumerate(rows)
    ]
    for row in made:
        row["ts"] = START + timedelta(hours=row["ts"])
    return exposures(pl.DataFrame(made, schema=schema("interactions")))


def split(cutoff: datetime | None = None, trained: pl.DataFrame = NO_PAIRS, held_out=NO_PAIRS) -> Split:
    return Split("query" if cutoff is None else "time", trained, held_out, np.ones(3, np.float32), cutoff)


THREE = log(
    (0, "u", "r1", "lamp", "a", "impression"),
    (0, "u", "r1", "lamp", "b", "impression"),
    (1, "u", "r1", "lamp", "b", "click"),
    (1, "u", "r1", "lamp", "b", "order"),
    (30, "v", "r2", "rug", "gone", "impression"),
    (30, "v", "r2", "rug", "gone", "click"),
    (60, "v", "r3", "Lamp", "c", "impression"),
)


def test_searches_in_order_of_time_with_what_was_chosen() -> None:
    found = searches(THREE, ITEMS, 10)
    assert found.queries == ["lamp", "rug", "lamp"] and found.users == ["u", "v", "v"]
    assert np.diff(found.moments).tolist() == [30 * 3600] * 2
    assert found.chosen.rows() == [(0, 1, 1.0)], "of an item that is gone nothing is known"
    assert searches(THREE, ITEMS, 2).queries == ["rug", "lamp"], "the newest"


def test_what_is_held_out_is_not_learnt_from() -> None:
    before = learnable(THREE, split(START + timedelta(hours=30)))
    assert searches(before, ITEMS, 10).queries == ["lamp"]
    hidden = pl.DataFrame({"query": ["lamp"], "item": [0], "weight": [1.0]})
    assert searches(learnable(THREE, split(held_out=hidden)), ITEMS, 10).queries == ["rug"]


def test_a_robot_has_no_more_searches_than_anybody() -> None:
    rows = [(at / 100, "robot", f"r{at}", f"query {at // 10}", "a", "impression") for at in range(3_000)]
    found = searches(log(*rows, (0, "u", "x", "lamp", "b", "impression")), ITEMS, 10_000)
    assert found.users.count("robot") <= USER_LISTS and found.users.count("u") == 1
    assert max(found.queries.count(query) for query in set(found.queries)) <= USER_CAP


def test_an_empty_log_has_nothing_to_prefer() -> None:
    with pytest.raises(NothingToPrefer, match="no searches"):
        searches(log(), ITEMS, 10)


def test_judged_queries_stand_in_for_a_log() -> None:
    pairs = pl.DataFrame(
        {"query": ["rug", "lamp", "lamp", "sofa"], "item": [1, 0, 2, 1], "weight": [1.0, 0.7, 1.0, 0.0]},
        schema=NO_PAIRS.schema,
    )
    found = judged_queries(split(trained=pairs), 10, 0)
    assert found.queries == ["lamp", "rug"] and found.users == ["", ""]
    assert sorted(found.chosen.rows()) == [(0, 0, 1.0), (0, 2, 1.0), (1, 1, 1.0)]
    assert len(judged_queries(split(trained=pairs), 1, 0)) == 1
    with pytest.raises(NothingToPrefer, match="neither logs searches nor has judged any"):
        judged_queries(split(), 10, 0)
