from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.data.importers.tables import import_tables
from onesearch.data.importing import Report, Seen, run_import
from onesearch.data.store import Store
from onesearch.errors import DataError, UsageError

Lines = Callable[[str, Iterable[Any]], Path]
ITEM = {"item_id": "1", "title": "red shoe"}
EVENT = {
    "event_id": "e",
    "ts": "2024-05-01T10:00:00Z",
    "user_id": "u",
    "scene": "search",
    "query": "shoe",
    "item_id": "1",
    "action": "click",
}


def run(source: Path, store: Path, limit: int = 1000) -> Report:
    return run_import("jsonl", partial(import_tables, source, form="jsonl"), store, limit)


def rejected(report: Report) -> list[tuple[int, str, str]]:
    assert report.rejected_file is not None
    rows = [json.loads(line) for line in report.rejected_file.read_text().splitlines()]
    return [(row["row"], row["column"], row["reason"]) for row in rows]


def test_a_whole_folder_of_tables(lines: Lines, tmp_path: Path) -> None:
    item = {**ITEM, "category": "Women > Shoes", "attributes": {"Color": ["red", "crimson"]}, "price": "12.5"}
    lines("items", [item, {"item_id": 2, "title": "红色 鞋", "in_stock": 0}])
    lines("shoppers", [{"user_id": "u", "profile": ["age:20", "language:zh"]}])
    lines(
        "interactions",
        [{**EVENT, "position": 3, "propensity": 0.5}, {**EVENT, "event_id": "f", "item_id": "99"}],
    )
    report = run(lines("relevance", [{"query": "shoe", "item_id": "1", "grade": 1}]), tmp_path / "s")
    store = report.store
    assert report.counts == {"items": 2, "shoppers": 1, "interactions": 2, "relevance": 1}
    assert report.unknown_items == 1
    assert report.rejected_file is None
    first, second = store.items().to_dicts()
    assert first["category"] == ["Women", "Shoes"]
    assert first["attributes"] == [{"type": "Color", "value": "red"}, {"type": "Color", "value": "crimson"}]
    assert (first["price"], first["in_stock"]) == (12.5, True)
    assert (second["item_id"], second["title"], second["category"], second["in_stock"]) == (
        "2",
        "红色 鞋",
        [],
        False,
    )
    event = store.interactions().collect().row(0, named=True)
    assert event["ts"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert (event["position"], event["propensity"], event["release"]) == (3, 0.5, None)
    assert store.shoppers().collect()["profile"].to_list() == [["age:20", "language:zh"]]
    assert store.relevance().collect()["grade"].to_list() == [1.0]


def test_parquet_and_jsonl_give_the_same_rows(lines: Lines, tmp_path: Path) -> None:
    items = [{**ITEM, "item_id": str(at), "attributes": {"Brand": f"b{at}"}} for at in range(5)]
    events = [{**EVENT, "event_id": f"e{at}", "item_id": str(at), "position": at} for at in range(5)]
    lines("items", items)
    first = run(lines("interactions", events), tmp_path / "s").store
    folder = tmp_path / "parquet"
    (folder / "interactions").mkdir(parents=True)
    first.items().write_parquet(folder / "items-0.parquet")
    first.interactions().collect()[:2].write_parquet(folder / "interactions" / "a.parquet")
    first.interactions().collect()[2:].write_parquet(folder / "interactions" / "b.parquet")
    second = run_import("parquet", partial(import_tables, folder, form="parquet"), tmp_path / "t").store
    assert second.items().equals(first.items())
    assert second.interactions().collect().equals(first.interactions().collect())
    assert second.fingerprint() == first.fingerprint()


@pytest.mark.parametrize(
    ("table", "row", "column", "reason"),
    [
        ("items", {**ITEM, "price": -1}, "price", "is not a price (a finite number, zero or more)"),
        ("items", {**ITEM, "title": "x" * 10_001}, "title", "is longer than 10,000 characters"),
        ("items", {**ITEM, "category": 7}, "category", "is not a list of texts"),
        ("interactions", {**EVENT, "action": "view"}, "action", "is none of impression, click, order"),
        ("interactions", {**EVENT, "scene": "home"}, "scene", "is none of search, recommend"),
        ("interactions", {**EVENT, "position": -1}, "position", "is negative"),
        ("interactions", {**EVENT, "position": 1.5}, "position", "is not a whole number"),
        ("interactions", {**EVENT, "propensity": 0}, "propensity", "is not a probability above 0"),
        ("interactions", {**EVENT, "propensity": 1.5}, "propensity", "is not a probability above 0"),
        ("interactions", {**EVENT, "ts": "1492-10-12"}, "ts", "is not a time between 1970 and 2199"),
        ("interactions", {**EVENT, "user_id": ""}, "user_id", "is empty"),
        (
            "relevance",
            {"query": "q", "item_id": "1", "grade": 1.01},
            "grade",
            "is outside the range of grades",
        ),
    ],
)
def test_rows_that_do_not_fit_are_rejected_with_their_reason(
    lines: Lines, tmp_path: Path, table: str, row: dict[str, Any], column: str, reason: str
) -> None:
    lines("items", [ITEM])
    before = [{**ITEM, "item_id": "0"}] if table == "items" else []
    report = run(lines(table, [*before, row]), tmp_path / "s")
    assert rejected(report) == [(1 + len(before), column, reason)]
    assert report.counts[table] == len(before)


def test_an_attribute_type_that_is_none_of_the_eighteen(lines: Lines, tmp_path: Path) -> None:
    report = run(
        lines("items", [ITEM, {"item_id": "2", "title": "x", "attributes": {"Colour": "red"}}]),
        tmp_path / "s",
    )
    ((row, column, reason),) = rejected(report)
    assert (row, column) == (2, "attributes")
    assert reason.startswith("names an attribute type that is none of Entity, Modifier, Brand")


def test_a_key_that_comes_again_is_rejected_across_batches(source: Path, tmp_path: Path) -> None:
    ids = [*range(150_000), 3, 149_999]
    pl.DataFrame({"item_id": ids, "title": ["t"] * len(ids)}).write_parquet(source / "items.parquet")
    report = run_import("parquet", partial(import_tables, source, form="parquet"), tmp_path / "s")
    assert report.counts["items"] == 150_000
    assert rejected(report) == [
        (150_001, "item_id", "stands in an earlier row, too"),
        (150_002, "item_id", "stands in an earlier row, too"),
    ]


def test_past_the_limit_the_import_stops_and_the_old_store_stays(lines: Lines, tmp_path: Path) -> None:
    run(lines("items", [ITEM]), tmp_path / "s")
    source = lines("items", [{**ITEM, "item_id": "new"}, "{", "[]", '{"item_id": 1}'])
    with pytest.raises(DataError) as raised:
        run(source, tmp_path / "s", limit=2)
    message = str(raised.value)
    assert message.startswith(
        "stopped: more than 2 rows do not fit, the first: items.jsonl, row 2: is not JSON"
    )
    assert str(tmp_path / "s" / "rejected.jsonl") in message
    assert len((tmp_path / "s" / "rejected.jsonl").read_text().splitlines()) == 3
    assert Store.open(tmp_path / "s").items()["item_id"].to_list() == ["1"]


def test_a_limit_of_none_stops_at_the_first(lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"more than 0 rows do not fit, the first: items\.jsonl, row 2"):
        run(lines("items", [ITEM, "?"]), tmp_path / "s", limit=0)
    with pytest.raises(UsageError, match="it must be 0 or more"):
        run(tmp_path, tmp_path / "s", limit=-1)


def test_a_clean_import_takes_the_last_ones_rejected_rows_away(lines: Lines, tmp_path: Path) -> None:
    report = run(lines("items", [ITEM, "?"]), tmp_path / "s")
    assert report.rejected_file is not None and report.rejected_file.exists()
    with pytest.raises(DataError, match=r"no items\.parquet"):
        run_import(
            "parquet", partial(import_tables, report.rejected_file.parent, form="parquet"), tmp_path / "s"
        )
    assert report.rejected_file.exists()
    run(lines("items", [ITEM]), tmp_path / "s")
    assert not report.rejected_file.exists()


def test_rejected_rows_are_json_whatever_they_hold(lines: Lines, tmp_path: Path) -> None:
    rows = [ITEM, '{"item_id": "2", "title": "x", "price": NaN}', '{"item_id": "3", "title": "\\ud800"}']
    report = run(lines("items", [*rows, json.dumps({"item_id": "4", "title": "x" * 99_000})]), tmp_path / "s")
    assert [row for row, _, _ in rejected(report)] == [
        3,
        4,
        2,
    ]  # what cannot be read, then what breaks a rule
    assert report.rejected_file is not None and report.rejected_file.stat().st_size < 10_000


def test_no_item_at_all_is_an_error(lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"not one item was found that fits; rejected rows: 1, see .*rejected.jsonl"
    ):
        run(lines("items", ["?"]), tmp_path / "s")
    assert not (tmp_path / "s" / "store.json").exists()


def test_columns_that_are_left_out_are_told(lines: Lines, tmp_path: Path) -> None:
    report = run(lines("items", [{**ITEM, "sku": 3}]), tmp_path / "s")
    assert report.notes == ["items.jsonl: column 'sku' is not one of the store's and was left out"]


KEYS = st.lists(st.lists(st.integers(0, 40), max_size=15), max_size=12)


@given(KEYS)
def test_seen_knows_what_came_before(calls: list[list[int]]) -> None:
    seen, known = Seen(), set[int]()
    for call in calls:
        expected = []
        for key in call:
            expected.append(key in known)
            known.add(key)
        assert seen.repeated(np.array(call, dtype=np.uint64)).tolist() == expected
    asked = np.arange(60, dtype=np.uint64)
    assert seen.holds(asked).tolist() == [int(key) in known for key in asked]
    sizes = [len(run) for run in seen.runs]
    assert set(np.concatenate([*seen.runs, []]).tolist()) == known
    assert all(2 * small < large for large, small in itertools.pairwise(sizes))
