"""Imports stream: memory must not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

IMPORT = """
import sys
from functools import partial
from pathlib import Path
from onesearch.data import writing
from onesearch.data.importing import run_import
from onesearch.data.importers.tables import import_tables
writing.PART_ROWS = 100_000
form, source, store = sys.argv[1:]
assert run_import(form, partial(import_tables, Path(source), form=form), store).rejected == 0
# Not getrusage: its peak is carried over from the process that started this one.
status = Path("/proc/self/status").read_text(encoding="utf-8")
peak = next(line for line in status.splitlines() if "VmHWM" in line)
print(int(peak.split()[1]) / 1024)
"""


def events(rows: int) -> pl.DataFrame:
    at = pl.int_range(rows, dtype=pl.Int64)
    return pl.select(
        event_id=pl.concat_str(pl.lit("event-number-"), at),
        ts=pl.lit(1_714_557_600) + at,
        user_id=pl.concat_str(pl.lit("shopper-"), at % 9_999),
        scene=pl.lit("search"),
        query=pl.concat_str(pl.lit("a query of some words "), at % 7_777),
        item_id=(at % 100).cast(pl.String),
        action=pl.lit("impression"),
        position=at % 10,
    )


def peak_mib(folder: Path, form: str, rows: int) -> float:
    source = folder / f"{form}-{rows}"
    source.mkdir()
    items = pl.DataFrame({"item_id": [str(at) for at in range(100)], "title": ["t"] * 100})
    for name, table in (("items", items), ("interactions", events(rows))):
        if form == "parquet":
            table.write_parquet(source / f"{name}.parquet", row_group_size=50_000)
        else:
            table.write_ndjson(source / f"{name}.jsonl")
    command = [sys.executable, "-c", IMPORT, form, str(source), str(folder / f"{form}-store")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(
    ("form", "few", "many"), [("parquet", 700_000, 1_300_000), ("jsonl", 450_000, 900_000)]
)
def test_ten_million_rows_need_less_than_2_gb(tmp_path: Path, form: str, few: int, many: int) -> None:
    small, large = peak_mib(tmp_path, form, few), peak_mib(tmp_path, form, many)
    # The first batches take what they take, and the small import has them behind it; what a row takes beyond
    # them is known only within the allocator's tens of MiB, so that it is the whole need that is held.
    growth = (large - small) / (many - few)
    assert large + growth * (10_000_000 - many) < 2e9 / 2**20
    assert large < 1_000
