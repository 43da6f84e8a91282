"""Where events are written, each with how far it has come in every partition.

A sink's own positions are the truth: they change in one step with what is written. What Kafka keeps for the
group is for people who look at lag.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

import polars as pl
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.events.messages import ANONYMOUS
from onesearch.shoppers.events import Event, by_user
from onesearch.shoppers.store import StaleError, StateStore

from onesearch_streaming.ingest.delta_log import COLUMNS, DeltaLog

B = TypeVar("B")
_MARK = "ingest/"


class Sink(ABC, Generic[B]):
    """Takes what was read, of many partitions, and writes it.

    Attributes:
        name: for people and metrics.
        written: events written since the start.
    """

    name: str

    def __init__(self) -> None:
        self.written = 0

    @abstractmethod
    def position(self, source: str) -> int | None:
        """The next offset that is wanted of a partition; None: it is unknown here."""

    @abstractmethod
    def take(self, source: str, before: int, batch: B, now: float) -> None:
        """Take in what a partition has from the position on, up to before an offset."""

    @abstractmethod
    def due(self) -> bool:
        """Whether it is time to write."""

    @abstractmethod
    def write(self) -> dict[str, int]:
        """Write what was taken in; returns how far each partition is now.

        Raises StaleError where another process has read on in one of them: forget what was taken in. Any
        other OneSearchError: nothing was written, and trying again does no harm.
        """

    @abstractmethod
    def forget(self) -> None:
        """Throw away what was taken in and not written: it will be read again."""


@dataclass
class _Gathered:
    """What waits to be written."""

    tables: list[pl.DataFrame] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    since: float = 0.0


class LogSink(Sink[pl.DataFrame]):
    """Into the Delta log, some seconds' events in one commit."""

    name = "log"

    def __init__(self, log: DeltaLog, most_rows: int, every_s: float) -> None:
        super().__init__()
        self.log = log
        self.commits = 0
        self._most_rows, self._every_s = most_rows, every_s
        self._gathered = _Gathered()

    @property
    def waiting(self) -> bool:
        """Whether anything is taken in and not written."""
        return bool(self._gathered.positions)

    def position(self, source: str) -> int | None:
        """The next offset that is wanted of a partition."""
        return self.log.position(source)

    def take(self, source: str, before: int, batch: pl.DataFrame, now: float) -> None:
        """Take in what a partition has."""
        gathered = self._gathered
        if not gathered.positions:
            gathered.since = monotonic()
        gathered.positions[source] = before
        gathered.tables.append(batch)
        gathered.rows += len(batch)

    def due(self) -> bool:
        """Whether it is time to write."""
        gathered = self._gathered
        return bool(gathered.positions) and (
            gathered.rows >= self._most_rows or monotonic() - gathered.since >= self._every_s
        )

    def write(self) -> dict[str, int]:
        """Write what was taken in."""
        gathered = self._gathered
        if not gathered.positions:
            return {}
        wanted = [name for name in COLUMNS if name not in ("day", "ingested_at")]
        rows = pl.concat([table.select(wanted) for table in gathered.tables])
        try:
            self.log.append(rows, gathered.positions)
        except StaleError:
            self.forget()
            raise
        self._gathered = _Gathered()
        self.written += gathered.rows
        self.commits += 1
        return gathered.positions

    def forget(self) -> None:
        """Throw away what was taken in and not written."""
        self._gathered = _Gathered()


class StateSink(Sink[pl.DataFrame]):
    """Into the shoppers' states, at once."""

    name = "states"

    def __init__(self, states: StateStore) -> None:
        super().__init__()
        self.states = states
        self._stand: dict[str, int | None] = {}
        self._positions: dict[str, int] = {}
        self._events: list[Event] = []
        self._now = 0.0

    def position(self, source: str) -> int | None:
        """The next offset that is wanted of a partition."""
        self._stand[source] = self.states.marks().get(_MARK + source)
        return self._stand[source]

    def take(self, source: str, before: int, batch: pl.DataFrame, now: float) -> None:
        """Take in what a partition has."""
        self._positions[source] = before
        self._now = max(self._now, now)
        known = batch.filter(~pl.col("user_id").str.starts_with(ANONYMOUS))
        columns = known.select("user_id", pl.col("ts").dt.epoch("s"), "action", "item_id", "query", "scene")
        self._events += map(Event._make, columns.iter_rows())

    def due(self) -> bool:
        """Whether it is time to write."""
        return bool(self._positions)

    def write(self) -> dict[str, int]:
        """Write what was taken in."""
        positions, events = self._positions, self._events
        if not positions:
            return {}
        after = {_MARK + source: self._stand.get(source) for source in positions}
        marks = {_MARK + source: offset for source, offset in positions.items()}
        try:
            self.states.update(by_user(events), marks, self._now, after)
        except StaleError:
            self.forget()
            raise
        self.written += len(events)
        self._stand.update(positions)
        self.forget()
        return positions

    def forget(self) -> None:
        """Throw away what was taken in and not written."""
        self._positions, self._events, self._now = {}, [], 0.0


class CatalogueSink(Sink[list[Change]]):
    """Into the log of changes of a live catalogue, at once."""

    name = "catalogue"

    def __init__(self, changes: ChangeLog) -> None:
        super().__init__()
        self.changes = changes
        self._stand: dict[str, int | None] = {}
        self._positions: dict[str, int] = {}
        self._changes: list[Change] = []

    def position(self, source: str) -> int | None:
        """The next offset that is wanted of a partition."""
        self._stand[source] = self.changes.marks().get(_MARK + source)
        return self._stand[source]

    def take(self, source: str, before: int, batch: list[Change], now: float) -> None:
        """Take in what a partition has."""
        self._positions[source] = before
        self._changes += batch

    def due(self) -> bool:
        """Whether it is time to write."""
        return bool(self._positions)

    def write(self) -> dict[str, int]:
        """Write what was taken in."""
        positions = self._positions
        if not positions:
            return {}
        marks: Mapping[str, int] = self.changes.marks()
        if any(marks.get(_MARK + source) != self._stand.get(source) for source in positions):
            self.forget()
            raise StaleError(f"{self.changes.folder}: another writer has read on")
        self.changes.append(self._changes, {_MARK + source: offset for source, offset in positions.items()})
        self.written += len(self._changes)
        self._stand.update(positions)
        self.forget()
        return positions

    def forget(self) -> None:
        """Throw away what was taken in and not written."""
        self._positions, self._changes = {}, []
