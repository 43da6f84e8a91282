"""A folder with the store's own tables as plain Parquet or JSONL: what most shops export to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from onesearch.data.importing import Import
from onesearch.data.schemas import TABLE_NAMES, TABLES
from onesearch.errors import DataError

Format = Literal["parquet", "jsonl"]


def import_tables(source: Path, job: Import, form: Format) -> None:
    """Read ``items``, and ``shoppers``, ``interactions``, ``relevance`` where they are.

    A table is ``<table>.<format>``, or several files: ``<table>-*.<format>`` or ``<table>/*.<format>``,
    read in the order of their names. Columns are those of the store; others are left out and named in the
    report's notes.
    """
    if not source.is_dir():
        raise DataError(
            f"{source}: not a folder; it should hold items.{form} and, if there are logs, interactions.{form}"
        )
    for table in TABLE_NAMES:
        files = [
            *sorted(source.glob(f"{table}.{form}")),
            *sorted(source.glob(f"{table}-*.{form}")),
            *sorted((source / table).glob(f"*.{form}")),
        ]
        if not files and table == "items":
            raise DataError(f"{source}: no items.{form}")
        for file in files:
            reading = (
                job.parquet(file, TABLES[table]) if form == "parquet" else job.jsonl(file, TABLES[table])
            )
            for at, batch in enumerate(reading):
                if at == 0:
                    _note_unused(job, file, batch.raw, set(TABLES[table]))
                job.add(table, batch)


def _note_unused(job: Import, file: Path, raw: object, known: set[str]) -> None:
    if isinstance(raw, list):
        found = {key for row in raw if isinstance(row, dict) for key in row}
    else:
        found = set(pl.scan_parquet(file).collect_schema())
    for column in sorted(found - known):
        job.notes.append(f"{file.name}: column '{column}' is not one of the store's and was left out")
