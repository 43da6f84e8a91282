from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onesearch.data.schemas import TABLES
from onesearch.data.sources import LINE_BYTES, ROW, Batch, read_jsonl, read_parquet
from onesearch.errors import DataError

ITEMS = TABLES["items"]
GOOD = st.fixed_dictionaries({"item_id": st.integers(0, 9), "title": st.just("t")}).map(
    lambda row: json.dumps(row).encode()
)
BAD = st.sampled_from(
    [
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"item_id": 1}',
        b"[" * 5000,
        b'{"title": "x", "item_id": [1]}',
        b"NaN",
    ]
)


def read_all(path: Path, rows: int = 3) -> list[Batch]:
    return list(read_jsonl(path, ITEMS, rows))


@given(st.lists(st.one_of(GOOD, BAD, st.just(b"  ")), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_is_read_or_at_fault_with_its_number(tmp_path: Path, written: list[bytes]) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n".join(written) + b"\n")
    batches = read_all(path)
    read = [number for batch in batches for number in batch.rows[ROW].to_list()]
    faults = [fault.row for batch in batches for fault in batch.faults]
    assert sorted(read + faults) == [at for at, line in enumerate(written, 1) if line.strip()]
    for batch in batches:
        for number in batch.rows[ROW].to_list():
            assert batch.original(number) == json.loads(written[number - 1])


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_any_kind_never_raise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(content)
    assert sum(len(batch.raw_rows) for batch in read_all(path)) <= content.count(b"\n") + 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"item_id": "1", "titel": "x"}', "items.jsonl, row 1, column 'title': is missing; is it 'titel'?"),
        ('{"item_id": "1", "title": " "}', "items.jsonl, row 1, column 'title': ' ' is empty"),
        (
            '{"item_id": "1", "title": "x", "price": "abc"}',
            "items.jsonl, row 1, column 'price': 'abc' is not a number",
        ),
        ('{"item_id": true, "title": "x"}', "items.jsonl, row 1, column 'item_id': True is not text"),
        (
            '{"item_id": "1", "title": "\\ud800"}',
            r"items.jsonl, row 1, column 'title': '\ud800' is not valid text",
        ),
        (
            '{"a":}',
            "items.jsonl, row 1: is not JSON (Expecting value at character 6)",
        ),
    ],
)
def test_faults_name_file_row_and_column(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(line)
    (fault,) = read_all(path)[0].faults
    assert str(fault) == told


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"item_id": "' + b"x" * (3 * LINE_BYTES) + b'"}\n{"item_id": "2", "title": "y"}\n')
    (batch,) = read_all(path)
    assert [fault.reason for fault in batch.faults] == [f"the line is longer than {LINE_BYTES:,} bytes"]
    assert batch.rows["item_id"].to_list() == ["2"]
    assert len(batch.original(1)) == 1000


def test_parquet_comes_in_batches_with_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": range(7), "title": ["a", "b", None, "d", "e", " ", "g"]}).write_parquet(path)
    batches = list(read_parquet(path, ITEMS, batch_rows=3))
    assert [batch.rows[ROW].to_list() for batch in batches] == [[1, 2], [4, 5], [7]]
    assert [fault.row for batch in batches for fault in batch.faults] == [3, 6]
    assert batches[0].rows["item_id"].to_list() == ["0", "1"]
    assert batches[0].rows["in_stock"].to_list() == [True, True]


def test_parquet_of_the_wrong_type_is_refused_by_column(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["1"], "title": [True]}).write_parquet(path)
    with pytest.raises(DataError, match=r"^items\.parquet, column 'title': is Boolean, not text$"):
        list(read_parquet(path, ITEMS))
    pl.DataFrame({"itemid": ["1"], "title": ["x"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"^items\.parquet: column 'item_id' is missing; is it 'itemid'\?$"):
        list(read_parquet(path, ITEMS))


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_parquet(path, ITEMS))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nope\.parquet: no such file"):
        list(read_parquet(tmp_path / "nope.parquet", ITEMS))
    with pytest.raises(DataError, match=r"nope\.jsonl: no such file"):
        list(read_jsonl(tmp_path / "nope.jsonl", ITEMS))
