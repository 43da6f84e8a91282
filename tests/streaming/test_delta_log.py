"""The log: nothing twice, whoever writes; read by polars and DuckDB; small files go, pinned versions stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.shoppers.store import StaleError
from onesearch_streaming.ingest.delta_log import COLUMNS, DeltaLog, files
from onesearch_streaming.ingest.pins import pin, pins, unpin
from onesearch_streaming.nightly.delta import log_version, read_log

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rows(start: int, count: int, source: str = "t/1/0") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "event_id": f"e{at}", "ts": NOON + timedelta(hours=at), "user_id": "u", "item_id": f"i{at}",
                "action": "click", "scene": "search", "query": "红色 lamp", "session_id": None,
                "request_id": None, "position": 0, "score": 0.5, "propensity": 1.0, "release": "r",
                "source": source, "source_offset": at,
            }
            for at in range(start, start + count)
        ],
        schema={name: dtype for name, dtype in COLUMNS.items() if name not in ("day", "ingested_at")},
    )  # fmt: skip


def read(path: Path, version: int | None = None) -> list[str]:
    return sorted(pl.scan_delta(str(path), version=version).collect()["event_id"].to_list())


def test_rows_and_how_far_was_read_are_one(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path / "log")
    assert log.position("t/1/0") is None
    log.append(rows(0, 30), {"t/1/0": 35})
    log.append(rows(30, 2, "t/1/1"), {"t/1/1": 2, "t/1/0": 40})
    again = DeltaLog(tmp_path / "log")
    assert again.position("t/1/0") == 40 and again.position("t/1/1") == 2 and again.version == 2
    # Nothing to write moves the position all the same.
    again.append(rows(0, 0), {"t/1/0": 50})
    assert DeltaLog(tmp_path / "log").position("t/1/0") == 50
    assert len(read(tmp_path / "log")) == 32 and len(read(tmp_path / "log", version=1)) == 30
    days = sorted(path.name for path in (tmp_path / "log").glob("day=*"))
    assert days == ["day=2026-03-01", "day=2026-03-02"]
    # The schema is the one that the nightly reads.
    table = pl.scan_delta(str(tmp_path / "log")).collect_schema()
    assert {name: table[name] for name in COLUMNS} == COLUMNS
    version = log_version(tmp_path / "log")
    found = read_log(tmp_path / "log", version, NOON + timedelta(days=1)).collect()
    assert found["item_id"].sort().to_list() == sorted(f"i{at}" for at in range(24, 32))


def test_two_who_read_the_same_partition_do_not_both_write(tmp_path: Path) -> None:
    one, two = DeltaLog(tmp_path), DeltaLog(tmp_path)
    for log in (one, two):
        assert log.position("t/1/0") is None and log.position("t/1/1") is None
    one.append(rows(0, 5), {"t/1/0": 5})
    with pytest.raises(StaleError):
        two.append(rows(0, 5), {"t/1/0": 5})
    # Who has only heard of it does not write either.
    three = DeltaLog(tmp_path)
    assert three.position("t/1/0") == 5
    one.append(rows(5, 1), {"t/1/0": 6})
    three.position("t/1/1")
    with pytest.raises(StaleError):
        three.append(rows(5, 1), {"t/1/0": 6})
    # Another partition is nobody's concern.
    two.position("t/1/0")
    two.append(rows(50, 2, "t/1/1"), {"t/1/1": 2})
    assert len(read(tmp_path)) == 8


def test_duckdb_reads_the_files(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path)
    log.append(rows(0, 30), {"t/1/0": 30})
    found = duckdb.sql(
        "select day, count(*) from read_parquet($files, hive_partitioning = true) group by day order by day",
        params={"files": list(files(tmp_path))},
    ).fetchall()
    assert [count for _, count in found] == [12, 18] and str(found[0][0]) == "2026-03-01"
    query = "select distinct query from read_parquet($files)"
    assert duckdb.sql(query, params={"files": list(files(tmp_path, 1))}).fetchall() == [("红色 lamp",)]


def test_small_files_go_and_pinned_versions_stay(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path)
    for at in range(6):
        log.append(rows(at, 1), {"t/1/0": at + 1})
    pin(tmp_path, "night", 3)
    assert pins(tmp_path) == {"night": 3}
    done = log.compact(file_mb=128)
    assert done == {"added": 1, "removed": 6} and len(files(tmp_path)) == 1
    assert log.vacuum(keep_hours=0)
    assert len(read(tmp_path)) == 6 and read(tmp_path, 3) == ["e0", "e1", "e2"]
    with pytest.raises((OSError, pl.exceptions.PolarsError)):  # vacuumed
        read(tmp_path, 5)
    unpin(tmp_path, "night")
    unpin(tmp_path, "night")
    assert log.vacuum(keep_hours=0) and pins(tmp_path) == {}
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    # Positions outlive it, and it goes on.
    log = DeltaLog(tmp_path)
    assert log.position("t/1/0") == 6
    log.append(rows(6, 1), {"t/1/0": 7})
    assert len(read(tmp_path)) == 7


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OneSearchError):
        DeltaLog(tmp_path / "file" / "log")
    folder = tmp_path / "log" / "_pins"
    folder.mkdir(parents=True)
    (folder / "odd").write_text("three")
    with pytest.raises(ArtifactError, match="odd"):
        pins(tmp_path / "log")
