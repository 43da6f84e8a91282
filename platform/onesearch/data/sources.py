"""Reading files in batches: typed, with the row number of everything that does not fit."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from onesearch.data.casting import cast, from_python, kind_of, takes
from onesearch.data.rejects import Fault
from onesearch.data.schemas import Column
from onesearch.errors import DataError

BATCH_ROWS = 100_000
LINE_BYTES = 4 << 20
"""The longest line that a JSONL file may have."""
ROW = "_row"
"""Column of a batch that holds the row's number in its file, from 1."""

Columns = Mapping[str, Column]


@dataclass(frozen=True)
class Batch:
    """Some rows of a file.

    Attributes:
        file: its name.
        rows: the readable rows, typed, with the column ``_row``.
        raw: the rows as the file has them, ``raw_rows`` i64 their numbers.
        faults: what could not be read; :meth:`Import.add` takes them out when it has recorded them.
        names: what the file calls a column that was renamed.
    """

    file: str
    rows: pl.DataFrame
    raw: pl.DataFrame | list[Any]
    raw_rows: np.ndarray
    faults: list[Fault] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def map(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Batch:
        """The batch with its rows changed; ``change`` keeps the column ``_row``, it may explode or filter."""
        return replace(self, rows=change(self.rows))

    def rename(self, names: Mapping[str, str]) -> Batch:
        """The batch with columns renamed, file's name → store's name."""
        known = {new: old for old, new in names.items()}
        return replace(self, rows=self.rows.rename(dict(names)), names={**self.names, **known})

    def original(self, row: int) -> Any:
        """The row of that number as the file has it."""
        at = int(np.searchsorted(self.raw_rows, row))
        return self.raw.row(at, named=True) if isinstance(self.raw, pl.DataFrame) else self.raw[at]


def read_parquet(path: Path, columns: Columns, batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """The named columns of a Parquet file, batch by batch.

    Raises DataError naming file and column where the file is none, a required column is missing, or a
    column's type cannot hold what is wanted.
    """
    scan = pl.scan_parquet(path)
    try:
        found = scan.collect_schema()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(_unreadable(path, error, "Parquet")) from error
    present = {name: column for name, column in columns.items() if name in found}
    for name, column in columns.items():
        if name in found:
            if not takes(found[name], column.dtype):
                raise DataError(
                    f"{path.name}, column '{name}': is {found[name]}, not {kind_of(column.dtype)}"
                )
        elif column.required:
            raise DataError(f"{path.name}: column '{name}' is missing{_nearest(name, list(found))}")
    scan = scan.select(list(present))
    start = 0
    while True:
        try:
            raw = scan.slice(start, batch_rows).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(_unreadable(path, error, "Parquet")) from error
        if not len(raw):
            return
        numbers = np.arange(start + 1, start + 1 + len(raw))
        typed = {name: cast(raw[name], column.dtype) for name, column in present.items()}
        yield _checked(path.name, raw, numbers, {name: raw[name] for name in present}, typed, columns)
        start += len(raw)


def parquet_rows(path: Path) -> int | None:
    """Number of rows of a Parquet file; None where it cannot be read."""
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError):
        return None


def read_jsonl(
    path: Path, columns: Columns, batch_rows: int = BATCH_ROWS, told: Callable[[int], None] | None = None
) -> Iterator[Batch]:
    """The named columns of a file with one JSON object a line; ``told`` hears of bytes read."""
    try:
        with path.open("rb") as file:
            yield from _jsonl_batches(path.name, file, columns, batch_rows, told or (lambda _: None))
    except OSError as error:
        raise DataError(_unreadable(path, error, "JSONL")) from error


def _jsonl_batches(
    name: str, file: IO[bytes], columns: Columns, batch_rows: int, told: Callable[[int], None]
) -> Iterator[Batch]:
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    faults: list[Fault] = []
    broken: list[Any] = []
    broken_rows: list[int] = []
    size = 0

    def batch() -> Batch:
        made = _json_batch(name, objects, np.array(numbers, dtype=np.int64), columns)
        if not broken:
            return made
        raw = [*broken, *made.raw]
        rows = np.concatenate([np.array(broken_rows, dtype=np.int64), made.raw_rows])
        order = np.argsort(rows, kind="stable")
        return replace(
            made,
            raw=[raw[at] for at in order],
            raw_rows=rows[order],
            faults=sorted([*faults, *made.faults], key=lambda fault: fault.row),
        )

    for number, line in enumerate(_lines(file), start=1):
        size += len(line)
        try:
            found = _json_object(line)
            if found is not None:
                objects.append(found)
                numbers.append(number)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(name, number, None, _json_reason(line, error)))
            broken.append(line[:1000].decode("utf-8", "replace"))
            broken_rows.append(number)
        if len(objects) + len(broken) >= batch_rows or size >= 64 << 20:
            yield batch()
            told(size)
            objects, numbers, faults, broken, broken_rows, size = [], [], [], [], [], 0
    if objects or broken:
        yield batch()
    told(size)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines; of one longer than LINE_BYTES only its beginning, the rest is passed over."""
    while line := file.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES and not line.endswith(b"\n"):
            while rest := file.readline(LINE_BYTES):
                if rest.endswith(b"\n"):
                    break
        yield line


def _json_object(line: bytes) -> dict[str, Any] | None:
    if len(line) > LINE_BYTES:
        raise ValueError("too long")
    text = line.strip()
    if not text:
        return None
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _json_reason(line: bytes, error: Exception) -> str:
    if len(line) > LINE_BYTES:
        return f"the line is longer than {LINE_BYTES:,} bytes"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error.msg} at character {error.pos + 1})"
    return "is not a JSON object"


def _json_batch(name: str, objects: list[dict[str, Any]], numbers: np.ndarray, columns: Columns) -> Batch:
    values = {column: [found.get(column) for found in objects] for column in columns}
    typed = {column: from_python(column, values[column], spec.dtype) for column, spec in columns.items()}
    return _checked(name, objects, numbers, values, typed, columns)


def _checked(
    name: str,
    raw: pl.DataFrame | list[Any],
    numbers: np.ndarray,
    values: Mapping[str, pl.Series | list[Any]],
    typed: Mapping[str, pl.Series],
    columns: Columns,
) -> Batch:
    """Put typed columns together; rows with unreadable values, or without a required one, become faults."""
    faults: dict[int, Fault] = {}
    for column, spec in columns.items():
        if column not in typed:
            continue
        suspects = typed[column].is_null().to_numpy()
        if not spec.required:
            suspects &= ~_absent(values[column])
        for at in np.flatnonzero(suspects).tolist():
            value = values[column][at]
            reason = (
                None
                if at in faults
                else _why_not(value, column, spec, raw[at] if isinstance(raw, list) else None)
            )
            if reason is not None:
                faults[at] = Fault(name, int(numbers[at]), column, reason, value)
    rows = pl.DataFrame({ROW: numbers, **typed})
    for column, spec in columns.items():
        if column not in typed:
            rows = rows.with_columns(pl.lit(spec.default, spec.dtype).alias(column))
        elif spec.default is not None:
            rows = rows.with_columns(pl.col(column).fill_null(pl.lit(spec.default, spec.dtype)))
    if faults:
        keep = np.ones(len(rows), dtype=bool)
        keep[list(faults)] = False
        rows = rows.filter(pl.Series(keep))
    return Batch(name, rows, raw, numbers, [faults[at] for at in sorted(faults)])


def _absent(values: pl.Series | list[Any]) -> np.ndarray:
    if isinstance(values, pl.Series):
        return values.is_null().to_numpy()
    return np.fromiter((value is None for value in values), dtype=bool, count=len(values))


def _why_not(value: Any, column: str, spec: Column, row: dict[str, Any] | None) -> str | None:
    """Why a value that became null is a fault; None where it may be empty."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "is not valid text"
    if value is None or (isinstance(value, str) and (spec.dtype == pl.String or not value.strip())):
        if not spec.required:
            return None
        return "is empty" if row is None or column in row else f"is missing{_nearest(column, list(row))}"
    return f"is not {kind_of(spec.dtype)}"


def _nearest(name: str, found: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, found, n=1, cutoff=0.6)
    if close:
        return f"; is it '{close[0]}'?"
    return f"; there is {', '.join(repr(one) for one in list(found)[:12])}" if found else ""


def _unreadable(path: Path, error: Exception, kind: str) -> str:
    if not path.exists():
        return f"{path}: no such file"
    return f"{path}: cannot be read as {kind} ({str(error).splitlines()[0][:200] if str(error) else error!r})"
