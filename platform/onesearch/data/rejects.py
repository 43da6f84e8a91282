"""Rows that do not fit: written to ``rejected.jsonl`` with their reason, until there are too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from onesearch.errors import DataError, OneSearchError

_SHOWN = 80
_KEPT = 2_000


@dataclass(frozen=True)
class Fault:
    """Why one row is rejected.

    Attributes:
        file: name of the file.
        row: its row, counted from 1 (of a JSONL file: its line).
        column: the column at fault, as the file calls it; None where the row itself cannot be read.
        reason: what is wrong, to be read after the value: "is not a number".
        value: the value at fault, shown only when there is a column.
    """

    file: str
    row: int
    column: str | None
    reason: str
    value: Any = None

    def __str__(self) -> str:
        if self.column is None:
            return f"{self.file}, row {self.row}: {self.reason}"
        shown = "" if self.value is None else f"{_short(self.value)} "
        return f"{self.file}, row {self.row}, column '{self.column}': {shown}{self.reason}"


def _short(value: Any) -> str:
    text = ascii(value) if _broken_text(value) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _broken_text(value: Any) -> bool:
    try:
        repr(value).encode()
    except UnicodeEncodeError:
        return True
    return False


class Rejects:
    """Collects faults; one more than ``limit`` raises DataError. Closing replaces the last import's file."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.count = 0
        self.by_reason: Counter[str] = Counter()
        self._first: Fault | None = None
        self._draft = path.with_name(path.name + ".new")
        self._file: IO[str] | None = None

    def add(self, fault: Fault, row: Callable[[], Any]) -> None:
        """Record one rejected row; ``row`` gives what stood there."""
        self._first = self._first or fault
        self.count += 1
        place = f", column '{fault.column}'" if fault.column else ""
        self.by_reason[f"{fault.file}{place}: {fault.reason}"] += 1
        self._write(fault, row())
        if self.count > self.limit:
            raise DataError(
                f"stopped: more than {self.limit:,} rows do not fit, the first: {self._first}. "
                f"All of them: {self.path}. Correct them, or allow more with --max-rejected"
            )

    def _write(self, fault: Fault, row: Any) -> None:
        record = {
            "file": fault.file,
            "row": fault.row,
            "column": fault.column,
            "reason": fault.reason,
            "data": row,
        }
        try:
            text = json.dumps(
                record, default=str, allow_nan=False
            )  # ASCII: broken text cannot break this file
        except ValueError:
            text = ""  # the row holds NaN or Infinity, which JSON has not
        if not text or len(text) > 10 * _KEPT:
            text = json.dumps({**record, "data": str(row)[:_KEPT]})
        try:
            if self._file is None:
                self._file = self._draft.open("w", encoding="ascii")
            self._file.write(text + "\n")
        except OSError as error:
            raise self._cannot(error) from error

    def close(self) -> None:
        """Put the file in place, if there is one."""
        if self._file is None:
            return
        try:
            self._file.close()
            self._draft.replace(self.path)
        except OSError as error:
            raise self._cannot(error) from error

    def clear(self) -> None:
        """Remove the last import's file where this one, which ends well, rejected nothing."""
        if self._file is None:
            self.path.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> OneSearchError:
        return OneSearchError(
            f"{self.path}: cannot be written ({error.strerror or error}); the store is as it was"
        )
