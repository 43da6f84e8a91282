from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.training.pairs import (
    PAIR_SCHEMA,
    item_popularity,
    normalise_queries,
    query_item_pairs,
    split_queries,
)

NOON = datetime(2024, 5, 20, 12, tzinfo=UTC)


def row(
    number: int, query: str | None, item: str, action: str, days_ago: float = 0.0, scene: str = "search"
) -> dict:
    return {
        "event_id": str(number), "ts": NOON - timedelta(days=days_ago), "user_id": "u", "scene": scene,
        "query": query, "item_id": item, "action": action,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]}).with_columns(
        pl.lit([], pl.List(pl.String)).alias("category"), in_stock=True
    )
    events = [
        row(0, "Red  Lamp", "a", "impression"),
        row(1, "red lamp", "a", "click"),
        row(2, "ｒｅｄ lamp ", "a", "order", days_ago=2),
        row(3, "red lamp", "b", "impression"),
        row(4, "rug", "gone", "click"),
        row(5, None, "c", "click", scene="recommend"),
        row(6, "  ", "c", "click"),
        row(7, "rug", "c", "click", days_ago=4),
    ]
    judged = [("red lamp", "b", 0.5), ("red lamp", "c", 1.0), ("RED LAMP", "c", 0.7), ("desk", "a", 0.2)]
    with StoreWriter(tmp_path / "S", "test") as writer:
        writer.write("items", items)
        writer.write("interactions", pl.DataFrame(events, infer_schema_length=None))
        writer.write("relevance", pl.DataFrame(judged, schema=["query", "item_id", "grade"], orient="row"))
    return Store.open(tmp_path / "S")


def test_pairs_golden(store: Store) -> None:
    pairs = query_item_pairs(store)
    assert dict(pairs.schema) == PAIR_SCHEMA
    assert pairs.drop("last_ts").rows() == [
        ("desk", 0, 0, 0, 0, pytest.approx(0.2), 0.0),
        ("red lamp", 0, 1, 1, 1, None, 3.0),
        ("red lamp", 1, 0, 0, 1, 0.5, 0.0),
        ("red lamp", 2, 0, 0, 0, 1.0, 1.0),
        ("rug", 2, 1, 0, 0, None, 1.0),
    ]
    assert pairs["last_ts"].to_list() == [None, NOON, NOON, None, NOON - timedelta(days=4)]


def test_weights_decay_from_the_newest_event(store: Store) -> None:
    weights = query_item_pairs(store, half_life_days=2.0)["weight"].to_list()
    assert weights == pytest.approx([0.0, 1.0 + 2.0 * 0.5, 0.0, 1.0, 0.25])


def test_a_cutoff_hides_what_came_later(store: Store) -> None:
    pairs = query_item_pairs(store, before=NOON - timedelta(days=1)).filter(pl.col("last_ts").is_not_null())
    assert pairs.select("query", "item", "clicks", "orders", "weight").rows() == [
        ("red lamp", 0, 0, 1, 2.0),
        ("rug", 2, 1, 0, 1.0),
    ]


def test_popularity_golden(store: Store) -> None:
    # a: a click now and an order two days ago; c: two clicks now and one four days ago; half-life two days.
    assert item_popularity(store, half_life_days=2.0).tolist() == [1 + 1 + 1, 1, 1 + 2 + 0.25]
    assert item_popularity(store, 2.0, before=NOON - timedelta(days=1)).tolist() == [3, 1, 1.5]


def test_normalised_queries() -> None:
    assert normalise_queries(["  Red\tLAMP ", "ｒｅｄ　lamp", "红色 台灯", ""]) == [
        "red lamp",
        "red lamp",
        "红色 台灯",
        "",
    ]


@given(st.lists(st.text(max_size=12), max_size=30), st.integers(0, 5))
def test_a_smaller_share_is_part_of_a_larger_one(queries: list[str], seed: int) -> None:
    small, large = split_queries(queries, 0.1, seed), split_queries(queries, 0.4, seed)
    assert not (small & ~large).any()
    assert (split_queries([f"  {query}\t" for query in queries], 0.4, seed) == large).all()


def test_the_split_is_the_same_in_every_process_and_of_the_right_size() -> None:
    queries = [f"query {number}" for number in range(5_000)]
    mask = split_queries(queries)
    assert abs(mask.mean() - 0.1) < 0.015
    code = "from onesearch.training.pairs import split_queries as split; "
    code += "print(split([f'query {n}' for n in range(40)]).nonzero()[0].tolist())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(np.flatnonzero(mask[:40]).tolist())
    assert (split_queries(queries, seed=1) != mask).any()
