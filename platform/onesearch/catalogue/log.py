"""The log of changes: what was accepted, in order, with how far each source was read.

.. code-block:: text

    <catalogue>/changes/000000000001.parquet    a batch of changes; its metadata hold the marks

A batch and the marks of its sources are one file that appears in one rename: what is in the log was read, and
what was read up to its marks is in the log.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from onesearch._files import sync
from onesearch.catalogue.changes import Change, changes_of, folded, table_of
from onesearch.errors import ArtifactError, OneSearchError

FOLDER = "changes"
_MARKS = "onesearch.marks"
_MOST_FILES = 64


class ChangeLog:
    """Changes of one live catalogue. One process writes at a time; any number reads."""

    def __init__(self, catalogue: Path) -> None:
        self.folder = catalogue / FOLDER

    @property
    def last(self) -> int:
        """Number of the newest batch; 0: there is none."""
        return max(self._numbers(), default=0)

    def marks(self) -> dict[str, int]:
        """How far each source was read: for a topic, the next offset of each partition."""
        last = self.last
        return self._marks_of(last) if last else {}

    def append(self, changes: Sequence[Change], marks: Mapping[str, int] | None = None) -> int:
        """Add a batch and, with it, how far its sources were read; return its number.

        Raises OneSearchError where it cannot be written: nothing is accepted then.
        """
        with locked(self.folder):
            number = self.last + 1
            known = {**self.marks(), **(marks or {})}
            self._write(number, list(changes), known)
            if len(self._numbers()) > _MOST_FILES:
                self._compact()
            return number

    def since(self, number: int) -> tuple[dict[str, Change], int]:
        """What the batches after one come to, an item at a time, and the number of the last of them.

        A log that was put together says what it said, so that it does no harm to hear some of it again.
        """
        numbers = sorted(self._numbers())
        wanted = [one for one in numbers if one > number]
        for _ in range(3):
            try:
                changes = [change for one in wanted for change in self._read(one)]
                return folded(changes), max([number, *wanted])
            except FileNotFoundError:  # put together meanwhile
                wanted = [one for one in sorted(self._numbers()) if one > number]
        raise ArtifactError(f"{self.folder}: the log of changes does not hold still")

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(path.stem) for path in self.folder.glob("*.parquet") if path.stem.isdigit()]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.parquet"

    def _read(self, number: int) -> list[Change]:
        try:
            return changes_of(pl.read_parquet(self._path(number)))
        except pl.exceptions.PolarsError as error:
            raise ArtifactError(f"{self._path(number)}: cannot be read ({error})") from error

    def _marks_of(self, number: int) -> dict[str, int]:
        try:
            told = pl.read_parquet_metadata(self._path(number))[_MARKS]
            return {name: int(mark) for name, mark in json.loads(told).items()}
        except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
            raise ArtifactError(f"{self._path(number)}: cannot be read ({error})") from error

    def _write(self, number: int, changes: list[Change], marks: Mapping[str, int]) -> None:
        draft = self.folder / f".draft-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            metadata = {_MARKS: json.dumps(dict(marks))}
            with draft.open("wb") as file:
                table_of(changes).write_parquet(file, metadata=metadata)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._path(number))
            sync(self.folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OneSearchError(f"{self.folder}: changes cannot be written: {error}") from error

    def _compact(self) -> None:
        """Put all batches but the newest together. Killed on the way, what is left says the same."""
        numbers = sorted(self._numbers())[:-1]
        changes = folded(change for number in numbers for change in self._read(number))
        self._write(numbers[-1], list(changes.values()), self._marks_of(numbers[-1]))
        for number in numbers[:-1]:
            self._path(number).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time is in here with a folder, which is made where it is missing.

    Raises OneSearchError where that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise OneSearchError(f"{folder}: cannot be written: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
