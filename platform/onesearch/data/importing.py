"""One import: batches come in, good rows go to the store's writer, the others to the rejected ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onesearch.data.rejects import Fault, Rejects
from onesearch.data.schemas import KEYS, RULES, TABLES, TableName
from onesearch.data.sources import BATCH_ROWS, ROW, Batch, Columns, parquet_rows, read_jsonl, read_parquet
from onesearch.data.store import Store
from onesearch.data.writing import REJECTED, StoreWriter
from onesearch.errors import DataError, UsageError
from onesearch.progress import Progress, SilentProgress, Task

MAX_REJECTED = 1_000


@dataclass
class Seen:
    """Which 64-bit keys came before: sorted runs, merged when they are of a size; 8 bytes a key.

    Two different keys of equal hash would be taken for one: at 10 million keys the chance is 3 in a million.
    """

    runs: list[np.ndarray] = field(default_factory=list)

    def repeated(self, keys: np.ndarray) -> np.ndarray:
        """bool[n]: which of the keys u64[n] came before, in this call or an earlier one. Remembers them."""
        new, first = np.unique(keys, return_index=True)
        again = np.ones(len(keys), dtype=bool)
        again[first] = False
        for run in self.runs:
            again |= _within(run, keys)
        if len(new):
            self.runs.append(new)
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            last = self.runs.pop()
            self.runs[-1] = np.union1d(self.runs[-1], last)
        return again

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """bool[n]: which of the keys u64[n] were remembered."""
        found = np.zeros(len(keys), dtype=bool)
        for run in self.runs:
            found |= _within(run, keys)
        return found


def _within(run: np.ndarray, keys: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
    return run[at] == keys


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        store: the store that it made.
        counts: rows by table.
        rejected: how many rows were rejected, ``reasons`` by file, column and reason.
        unknown_items: interactions and judgements that name an item the catalogue does not hold; they are
            kept.
    """

    store: Store
    counts: dict[str, int]
    rejected: int
    reasons: dict[str, int]
    rejected_file: Path | None
    unknown_items: int
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "store": str(self.store.path),
            "source": self.store.source,
            "simulated": self.store.simulated,
            "fingerprint": self.store.fingerprint(),
            "counts": self.counts,
            "rejected": self.rejected,
            "reasons": self.reasons,
            "rejected_file": None if self.rejected_file is None else str(self.rejected_file),
            "unknown_items": self.unknown_items,
            "notes": self.notes,
        }


@dataclass
class Import:
    """A running import, handed to importers."""

    writer: StoreWriter
    rejects: Rejects
    progress: Progress
    notes: list[str] = field(default_factory=list)
    unknown_items: int = 0
    _seen: dict[str, Seen] = field(default_factory=dict)

    def parquet(self, path: Path, columns: Columns) -> Iterator[Batch]:
        """Read a Parquet file with a progress bar."""
        with self.progress.task(path.name, parquet_rows(path)) as task:
            for batch in read_parquet(path, columns):
                yield batch
                task.advance(len(batch.raw_rows))

    def jsonl(self, path: Path, columns: Columns, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """Read a JSONL file with a progress bar over its bytes."""
        size = path.stat().st_size if path.is_file() else None
        with self.progress.task(path.name, size) as task:
            yield from read_jsonl(path, columns, batch_rows, told=_teller(task))

    def add(self, table: TableName, batch: Batch) -> None:
        """Check a batch against a table's rules and write what fits, without columns the table lacks."""
        for fault in batch.faults:
            self.rejects.add(fault, lambda row=fault.row: batch.original(row))  # type: ignore[misc]
        batch.faults.clear()
        rows = _completed(table, batch.rows)
        broken = np.zeros(len(rows), dtype=bool)
        checks = [
            (name, pl.col(name).is_null(), "is empty")
            for name, spec in TABLES[table].items()
            if spec.required
        ]
        checks += [(rule.column, rule.broken, rule.reason) for rule in RULES[table]]
        verdicts = rows.select(
            [check.fill_null(False).alias(str(at)) for at, (_, check, _) in enumerate(checks)]
        )
        for (column, _, reason), verdict in zip(checks, verdicts.iter_columns(), strict=True):
            if verdict.any():
                self._reject(batch, rows, verdict.to_numpy() & ~broken, column, reason)
                broken |= verdict.to_numpy()
        rows = rows.filter(pl.Series(~broken)) if broken.any() else rows
        key = KEYS[table]
        if key is not None:
            again = self._seen.setdefault(table, Seen()).repeated(hashes(rows[key]))
            if again.any():
                self._reject(batch, rows, again, key, "stands in an earlier row, too")
                rows = rows.filter(pl.Series(~again))
        if table in ("interactions", "relevance") and "items" in self._seen:
            self.unknown_items += int((~self._seen["items"].holds(hashes(rows["item_id"]))).sum())
        self.writer.write(table, rows)

    def _reject(self, batch: Batch, rows: pl.DataFrame, which: np.ndarray, column: str, reason: str) -> None:
        for at in np.flatnonzero(which):
            number, name = int(rows[ROW][int(at)]), batch.names.get(column, column)
            value = batch.original(number).get(name)
            fault = Fault(batch.file, number, name, reason, value)
            self.rejects.add(fault, lambda row=number: batch.original(row))  # type: ignore[misc]


def _completed(table: TableName, rows: pl.DataFrame) -> pl.DataFrame:
    missing = [
        pl.lit(spec.default, spec.dtype).alias(name)
        for name, spec in TABLES[table].items()
        if name not in rows.columns
    ]
    return rows.with_columns(missing)


def hashes(keys: pl.Series) -> np.ndarray:
    """Keys as u64[n], equal within one process."""
    return keys.hash(seed=0).to_numpy()


def _teller(task: Task) -> Callable[[int], None]:
    return lambda size: task.advance(size)


Importer = Callable[[Path, Import], None]


def run_import(
    name: str,
    importer: Callable[[Import], None],
    store: Path | str,
    max_rejected: int = MAX_REJECTED,
    progress: Progress | None = None,
    simulated: bool = False,
) -> Report:
    """Run an importer into a store. Whatever it raises leaves the old store as it was.

    Rejected rows stand in ``<store>/rejected.jsonl``; more than ``max_rejected`` raise DataError.
    """
    if max_rejected < 0:
        raise UsageError(f"--max-rejected is {max_rejected}: it must be 0 or more")
    path = Path(store)
    with StoreWriter(path, name, simulated) as writer, _rejects(path / REJECTED, max_rejected) as rejects:
        job = Import(writer, rejects, progress or SilentProgress())
        importer(job)
        if not writer.count("items"):
            raise DataError(f"{name}: not one item was found that fits" + _why(rejects))
    rejects.clear()
    opened = Store.open(path)
    return Report(
        store=opened,
        counts={table: opened.count(table) for table in TABLES},
        rejected=rejects.count,
        reasons=dict(rejects.by_reason.most_common()),
        rejected_file=rejects.path if rejects.count else None,
        unknown_items=job.unknown_items,
        notes=job.notes,
    )


def _why(rejects: Rejects) -> str:
    return f"; rejected rows: {rejects.count:,}, see {rejects.path}" if rejects.count else ""


@contextmanager
def _rejects(path: Path, limit: int) -> Iterator[Rejects]:
    rejects = Rejects(path, limit)
    try:
        yield rejects
    finally:
        rejects.close()
