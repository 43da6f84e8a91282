from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.training.candidates import gains_of
from onesearch.training.evidence import ListPlan, plan_lists, slice_start
from onesearch.training.pairs import query_item_pairs, split_queries

SHARE = 0.3


def plan(store: Store, count: int = 200, share: float = SHARE) -> ListPlan:
    pairs = query_item_pairs(store, half_life_days=14.0)
    return plan_lists(store, pairs, share, count, 0.66, 14.0, seed=0)


def rich(folder: Path, queries: int = 400, days: int = 10) -> Store:
    """Every query is searched every day, and on the last day leads to another item than before."""
    start = datetime(2024, 1, 1, 9, tzinfo=UTC)
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(queries * 2)]}).with_columns(
        title="item_id", category=pl.lit([], pl.List(pl.String)), in_stock=True
    )
    rows = [
        {
            "event_id": f"{day}-{query}",
            "ts": start + timedelta(days=day, seconds=query),
            "user_id": "u",
            "scene": "search",
            "query": f"query {query}",
            "item_id": f"i{query + (queries if day == days - 1 else 0)}",
            "action": "order" if query % 2 else "click",
        }
        for day in range(days)
        for query in range(queries)
    ]
    judged = pl.DataFrame(
        {
            "query": [f"query {n}" for n in range(queries)],
            "item_id": [f"i{n + queries}" for n in range(queries)],
        }
    ).with_columns(grade=pl.lit(1.0, pl.Float32))
    with StoreWriter(folder, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", pl.DataFrame(rows))
        writer.write("relevance", judged)
    return Store.open(folder)


def test_recurring_searches_are_split_by_time(tmp_path: Path) -> None:
    store = rich(tmp_path)
    made = plan(store)
    assert made.split == "time"
    # A fifth of all events are the last two days.
    assert made.cutoff == datetime(2024, 1, 9, tzinfo=UTC)
    assert split_queries(made.queries, SHARE).all()
    assert made.times.sum() == 200 or made.times.sum() == len(made.gains)
    assert (made.evidence["last_ts"].drop_nulls() < made.cutoff).all()


def test_the_evidence_by_time_does_not_know_the_answers(tmp_path: Path) -> None:
    made = plan(rich(tmp_path))
    hidden = made.evidence.filter(pl.col("query").is_in(made.queries))
    assert len(hidden) == len(made.queries), "what they clicked before is known"
    assert hidden["grade"].null_count() == len(hidden), "judgements carry no time"
    answers = made.gains.join(hidden, on=["query", "item"], how="inner")
    # On the eighth day they still chose the old item, so only that one may be known of both.
    assert (answers["item"] < 400).all()
    assert hidden["weight"].max() < 2 * 8 + 0.01
    assert made.popularity[400:].tolist() == [1.0] * 400, "popularity is of the same period"
    assert (made.popularity[:400] > 1).all()


def test_judgements_alone_are_split_by_query(judged: Store) -> None:
    made = plan(judged)
    assert (made.split, made.cutoff) == ("query", None)
    assert split_queries(made.queries, SHARE).all()
    assert not split_queries(made.evidence["query"], SHARE).any()
    assert set(made.times.tolist()) == {1}
    assert made.gains["gain"].max() == 1.0 and made.gains["gain"].min() > 0


def test_searches_that_never_recur_are_not_split_by_time(tmp_path: Path) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {"event_id": str(n), "ts": start + timedelta(hours=n), "user_id": "u", "scene": "search",
         "query": f"only once {n}", "item_id": "a", "action": "click"}
        for n in range(300)
    ]  # fmt: skip
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"], "in_stock": [True]}).with_columns(
        category=pl.lit([], pl.List(pl.String))
    )
    with StoreWriter(tmp_path, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", pl.DataFrame(rows))
    store = Store.open(tmp_path)
    assert slice_start(store) is None
    made = plan(store, count=20)
    assert made.split == "query" and len(made.queries) == 20
    assert slice_start(rich(tmp_path / "one-day", days=1)) is None


def test_a_log_with_few_held_out_queries_is_split_by_query(tmp_path: Path) -> None:
    store = rich(tmp_path, queries=60)
    assert slice_start(store) is not None
    assert plan(store).split == "query"


def test_popular_searches_count_more_often(logged: Store) -> None:
    made = plan(logged, count=10_000, share=0.999)
    searches = logged.interactions().filter(pl.col("action") != "impression")
    cutoff = made.cutoff
    if made.split == "time":
        searches = searches.filter(pl.col("ts") >= cutoff)
        assert made.times.sum() == len(searches.collect())
    assert len(made.queries) == len(set(made.queries)) == len(made.times)


def test_gains_of_candidates_golden() -> None:
    gains = pl.DataFrame(
        {"query": ["b", "a", "b"], "item": [7, 2, 0], "gain": [0.5, 1.0, 0.25]},
        schema={"query": pl.String, "item": pl.Int32, "gain": pl.Float32},
    )
    empty = query_item_schema()
    made = ListPlan(["a", "b"], np.array([1, 1]), gains, empty, np.ones(8), "query")
    items = np.array([[2, 7, -1], [0, 7, 2]], np.int32)
    assert gains_of(made, items).tolist() == [[1.0, 0.0, 0.0], [0.25, 0.5, 0.0]]


def query_item_schema() -> pl.DataFrame:
    from onesearch.training.pairs import PAIR_SCHEMA

    return pl.DataFrame(schema=PAIR_SCHEMA)


@pytest.mark.parametrize("count", [1, 17])
def test_no_more_lists_than_asked(logged: Store, judged: Store, count: int) -> None:
    assert plan(judged, count).times.sum() == count
    assert plan(logged, count).times.sum() <= count
