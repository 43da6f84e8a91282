"""Changes: read from files, checked field by field, folded per item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onesearch.catalogue.changes import Change, changes_of, folded, read_changes, table_of
from onesearch.errors import DataError

LAMP = {
    "item_id": "a",
    "title": "red lamp",
    "category": ["home", "lamps"],
    "attributes": {"Brand": "Lux", "Color": ["red", "dark red"]},
    "price": 3,
    "in_stock": False,
}


def test_jsonl_and_parquet_say_the_same(tmp_path: Path) -> None:
    rows = [LAMP, {"item_id": "b", "action": "patch", "price": 2.5}, {"item_id": "词", "action": "withdraw"}]
    lines = tmp_path / "changes.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    read = list(read_changes(lines))
    assert read[0].attributes == (("Brand", "Lux"), ("Color", "red"), ("Color", "dark red"))
    assert read[0].price == 3.0 and read[1].action == "patch" and read[2].item_id == "词"
    table_of(read).write_parquet(tmp_path / "changes.parquet")
    assert list(read_changes(tmp_path / "changes.parquet")) == read


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "item_id: missing"),
        ({"item_id": ""}, "item_id: empty"),
        ({"item_id": "a"}, "title: empty, and an item is put"),
        ({"item_id": "a", "action": "sell"}, "action: 'sell' is none of put, patch, withdraw"),
        ({"item_id": "a", "titel": "x"}, "titel: unknown"),
        ({"item_id": 3, "title": "x"}, "item_id: 3 is not a text"),
        ({"item_id": "a", "title": "x", "price": -1}, "price: -1"),
        ({"item_id": "a", "title": "x", "price": "1"}, "price: '1' is not a finite number"),
        ({"item_id": "a", "title": "x", "price": True}, "price: True"),
        ({"item_id": "a", "title": "x", "in_stock": 1}, "in_stock: 1 is neither"),
        ({"item_id": "a", "title": "x", "category": "home"}, "category: 'home' is not a list"),
        ({"item_id": "a", "title": "x", "attributes": {"Colour": "red"}}, "attributes: 'Colour' is none"),
        ({"item_id": "a", "title": "x", "attributes": [{"type": "Color"}]}, "attributes: None is not a text"),
        ({"item_id": "a", "title": "x", "popularity": 0}, "popularity: 0.0"),
        ({"item_id": "a", "title": "x" * 10_001}, "title: longer than 10,000"),
        ({"item_id": "a", "action": "patch"}, "a patch tells one of price"),
        ({"item_id": "a", "action": "patch", "title": "x"}, "title: a patch tells only"),
    ],
)
def test_what_does_not_fit_is_told_by_row_and_field(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    path.write_text(json.dumps(LAMP) + "\n" + json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=f"changes.jsonl, row 2: {said}"):
        list(read_changes(path))


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"price": NaN}' * 2])
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"changes{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match="changes"):
            list(read_changes(path))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["item_id", "title", "price", "category", "attributes"]),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.integers() | st.text(max_size=2), max_size=2),
    )
)
def test_any_row_is_a_change_or_a_data_error(row: dict[str, Any]) -> None:
    try:
        change = Change.of(row)
    except DataError:
        return
    assert changes_of(table_of([change])) == [change]


PUT, AGAIN = Change("a", title="red lamp", price=3.0), Change("a", title="blue lamp")
CHEAP, POPULAR = Change("a", "patch", price=1.0), Change("a", "patch", popularity=9.0)
GONE = Change("a", "withdraw")


@pytest.mark.parametrize(
    ("story", "end"),
    [
        ([PUT, CHEAP], Change("a", title="red lamp", price=1.0)),
        ([PUT, CHEAP, AGAIN], AGAIN),
        ([CHEAP, POPULAR], Change("a", "patch", price=1.0, popularity=9.0)),
        ([PUT, GONE], GONE),
        ([GONE, CHEAP], GONE),
        ([GONE, PUT], PUT),
        ([POPULAR, AGAIN], Change("a", title="blue lamp", popularity=9.0)),
        ([POPULAR, GONE, AGAIN], Change("a", title="blue lamp", popularity=9.0)),
    ],
)
def test_folding(story: list[Change], end: Change) -> None:
    assert folded([*story, Change("b", "withdraw")]) == {"a": end, "b": Change("b", "withdraw")}
