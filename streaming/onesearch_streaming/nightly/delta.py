"""The Delta log as a night reads it: one pinned version, only the days of its window."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import polars as pl
from onesearch.data.schemas import schema
from onesearch.errors import ArtifactError, UsageError

PARTITION = "day"


def log_version(path: Path | str) -> int:
    """The newest version of a Delta log. Raises UsageError where there is none."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return int(DeltaTable(str(path)).version())
    except TableNotFoundError:
        raise UsageError(f"{path}: there is no Delta log; 'onesearch ingest' writes one") from None
    except (DeltaError, OSError) as error:
        raise ArtifactError(f"{path}: not a readable Delta log ({error})") from error


def newest_logged(path: Path | str) -> date | None:
    """The newest day of a Delta log, by its partitions: no file of the table is read. None: it is empty.

    Raises UsageError where there is none.
    """
    from deltalake import DeltaTable

    days = DeltaTable(str(path), version=log_version(path)).partitions()
    return max((date.fromisoformat(one[PARTITION]) for one in days), default=None)


def read_log(path: Path | str, version: int, since: datetime, until: datetime | None = None) -> pl.LazyFrame:
    """Rows of the table ``interactions`` from ``since`` on, before ``until``, as of a version.

    Raises ArtifactError where that version cannot be read: it was vacuumed, or files are missing.
    """
    try:
        rows = pl.scan_delta(str(path), version=version)
        columns = rows.collect_schema()
    except Exception as error:  # deltalake's and polars' errors have no common type
        raise ArtifactError(f"{path}: version {version} of the log cannot be read ({error})") from error
    if columns.get(PARTITION) == pl.Date():
        rows = rows.filter(pl.col(PARTITION) >= since.date())
    rows = rows.filter(pl.col("ts") >= since)
    if until is not None:
        rows = rows.filter(pl.col("ts") < until)
    wanted = schema("interactions")
    return rows.select(
        pl.col(name).cast(dtype) if name in columns else pl.lit(None, dtype).alias(name)
        for name, dtype in wanted.items()
    )


def append_to_log(path: Path | str, events: pl.DataFrame) -> None:
    """Add rows of the table ``interactions``: what stands in for Kafka where shoppers are simulated."""
    wanted = schema("interactions")
    rows = events.select(
        pl.col(name).cast(dtype) if name in events.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in wanted.items()
    ).with_columns(pl.col("ts").dt.date().alias(PARTITION))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows.write_delta(str(path), mode="append", delta_write_options={"partition_by": [PARTITION]})
