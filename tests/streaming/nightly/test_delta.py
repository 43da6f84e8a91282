"""How a night reads the log: only the days that it asks for."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from onesearch.errors import UsageError
from onesearch_streaming.nightly.delta import append_to_log, log_version, newest_logged, read_log


def test_only_the_files_of_the_days_asked_for_are_needed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for day in range(1, 7):
        ts = [datetime(2024, 3, day, hour, tzinfo=UTC) for hour in (1, 23)]
        rows = {"event_id": [f"e{day}-{at}" for at in (0, 1)], "ts": ts, "user_id": "u", "scene": "search",
                "item_id": "i", "action": "click"}  # fmt: skip
        append_to_log(log, pl.DataFrame(rows))
    older = sorted(log.glob("day=*"))[:4]
    assert [path.name for path in older] == [f"day=2024-03-0{day}" for day in range(1, 5)]
    for path in older:
        shutil.rmtree(path)
    version, since = log_version(log), datetime(2024, 3, 5, 12, tzinfo=UTC)
    read = read_log(log, version, since, datetime(2024, 3, 6, 12, tzinfo=UTC)).collect()
    assert sorted(read["event_id"]) == ["e5-1", "e6-0"]
    with pytest.raises(FileNotFoundError):
        read_log(log, version, datetime(2024, 3, 4, tzinfo=UTC)).collect()
    # The newest day is known by its name.
    for path in log.glob("day=*"):
        shutil.rmtree(path)
    assert newest_logged(log) == date(2024, 3, 6)
    with pytest.raises(UsageError, match="no Delta log"):
        newest_logged(tmp_path / "nothing")
