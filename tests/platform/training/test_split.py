from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.training.drawing import draw, gains_of, scaled_gains
from onesearch.training.pairs import query_item_pairs, split_queries
from onesearch.training.split import Split, slice_start, split_logs, tokenizer_pairs

SHARE = 0.3


def split(store: Store) -> Split:
    return split_logs(store, SHARE, 0.66, 14.0)


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
    made = split(rich(tmp_path))
    # A fifth of all events are the last two of ten days.
    assert (made.kind, made.cutoff) == ("time", datetime(2024, 1, 9, tzinfo=UTC))
    assert (made.trained["last_ts"] < made.cutoff).all()
    assert made.trained["clicks"].sum() + made.trained["orders"].sum() == 8 * 400
    assert made.held_out["searches"].sum() == 2 * 400
    # Odd queries lead to orders, which weigh 2; of the two days' choices each is one search.
    assert set(made.held_out["weight"].to_list()) == {1.0, 2.0}


def test_the_evidence_by_time_does_not_know_the_answers(tmp_path: Path) -> None:
    made = split(rich(tmp_path))
    # On the last day they choose items 400 and up, which nobody chose before, and which judges found good.
    assert (made.trained["item"] < 400).all()
    assert made.trained["grade"].null_count() == len(made.trained), "judgements carry no time"
    assert made.trained["weight"].max() < 2 * 8
    assert made.popularity[400:].tolist() == [1.0] * 400, "popularity is of the same period"
    assert (made.popularity[:400] > 1).all()


def test_tokenizers_do_not_see_the_slice(tmp_path: Path) -> None:
    """On the last day every query leads to another item, which the judgements tell, too."""
    store = rich(tmp_path)
    made, pairs = split(store), tokenizer_pairs(store, 0.66)
    answers = made.held_out.filter(pl.col("item") >= 400)
    assert len(answers) == 400 and not len(pairs.join(answers, on=["query", "item"], how="semi"))
    same = made.trained.select("query", "item", "clicks", "orders", "grade")
    assert pairs.select(same.columns).equals(same)


def test_tokenizers_see_all_where_queries_are_held_out(judged: Store) -> None:
    assert tokenizer_pairs(judged, 0.66).equals(query_item_pairs(judged, 0.66))


def test_judgements_alone_are_split_by_query(judged: Store) -> None:
    made = split(judged)
    assert (made.kind, made.cutoff) == ("query", None)
    assert split_queries(made.held_out["query"], SHARE).all()
    assert not split_queries(made.trained["query"], SHARE).any()
    everything = query_item_pairs(judged, half_life_days=14.0)
    positive = everything.filter(pl.col("weight") > 0)
    assert len(made.held_out) + len(made.trained.filter(pl.col("weight") > 0)) == len(positive)
    both = made.positives()
    assert (
        both.filter("held_out")["query"].is_in(both.filter(~pl.col("held_out"))["query"].implode()).sum() == 0
    )


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
    made = split(store)
    assert made.kind == "query"
    assert 0 < len(made.held_out) < 300 == len(made.held_out) + len(made.trained)
    assert slice_start(rich(tmp_path / "one-day", days=1)) is None


HELD_OUT = pl.DataFrame(
    {
        "query": ["b", "a", "b", "c"],
        "item": [7, 2, 0, 1],
        "weight": [4.0, 0.8, 1.0, 2.0],
        "searches": [6, 0, 2, 1],
    },
    schema={"query": pl.String, "item": pl.Int32, "weight": pl.Float32, "searches": pl.UInt32},
)


def test_searches_are_drawn_as_often_as_they_were_made() -> None:
    queries, times = draw(HELD_OUT, 100, seed=0)
    assert (queries, times.tolist()) == (["a", "b", "c"], [1, 8, 1])
    for count in (1, 4, 9):
        queries, times = draw(HELD_OUT, count, seed=1)
        assert times.sum() == count and len(queries) == len(times)
        assert all(
            many <= {"a": 1, "b": 8, "c": 1}[query] for query, many in zip(queries, times, strict=True)
        )
    assert draw(HELD_OUT.clear(), 5, seed=0)[0] == []


def test_gains_golden() -> None:
    gains = scaled_gains(HELD_OUT)
    assert gains["gain"].to_list() == np.array([1.0, 0.8, 0.25, 1.0], np.float32).tolist()
    items = np.array([[2, 7, -1], [0, 7, 2]], np.int32)
    rows = pl.DataFrame({"query": ["a", "b"]}).with_row_index("row")
    numbered = gains.join(rows, on="query")
    assert gains_of(numbered, items).tolist() == [[np.float32(0.8), 0.0, 0.0], [0.25, 1.0, 0.0]]
    assert gains_of(numbered.clear(), items[:1]).tolist() == [[0.0, 0.0, 0.0]]
