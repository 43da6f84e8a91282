"""What the messages of a partition say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from onesearch.catalogue.changes import Change
from onesearch.events.columns import Refused, read_changes, read_interactions
from onesearch.kafka.contract import Fetched

from onesearch_streaming.ingest.lanes import Lane
from onesearch_streaming.ingest.letters import Letter


@dataclass(frozen=True)
class Batch(ABC):
    """Messages of one partition, read; what nobody wants any more fills the window only.

    Attributes:
        before: the offset after the last of them.
        now: seconds since 1970, when Kafka or the sender stamped the last of them.
        letters: for those that cannot be read.
        repeated: how many had come before.
    """

    before: int
    now: float
    letters: list[Letter]
    repeated: int

    @abstractmethod
    def since(self, offset: int) -> Any:
        """What a sink takes that wants everything from an offset on."""


@dataclass(frozen=True)
class Interactions(Batch):
    """Rows of interactions with their ``source`` and ``source_offset``."""

    table: pl.DataFrame

    def since(self, offset: int) -> pl.DataFrame:
        """Rows from an offset on."""
        offsets = self.table["source_offset"]
        if len(offsets) == 0 or offsets[0] >= offset:
            return self.table
        return self.table.filter(pl.col("source_offset") >= offset)


@dataclass(frozen=True)
class Changes(Batch):
    """Changes of the catalogue with their offsets."""

    changes: list[tuple[int, Change]]

    def since(self, offset: int) -> list[Change]:
        """Changes from an offset on."""
        return [change for at, change in self.changes if at >= offset]


def read_batch(lane: Lane, messages: Fetched, interactions: bool, longest: int) -> Batch:
    """Read messages of a partition, in order, and take them into its window.

    Args:
        lane: the partition.
        messages: what came.
        interactions: whether they are, or changes of the catalogue.
        longest: bytes of a message that is looked at.
    """
    offsets = messages.offsets
    # The clock of whoever stamped the message, so that a message is judged alike whenever it is read.
    now = max(messages.times) / 1000
    values = [value if len(value) <= longest else b"" for value in messages.values]
    if interactions:
        read = read_interactions(values, now)
        rows, refused, ids = read.rows, read.refused, read.table["event_id"].to_list()
    else:
        rows, events, refused = read_changes(values, now)
        ids = [event.event_id for event in events]
    where = [offsets[row] for row in rows]
    fresh = lane.window.fresh(where, ids)
    wanted = min(lane.wanted.values())
    repeated = 0
    if not all(fresh):
        repeated = sum(not first and at >= wanted for at, first in zip(where, fresh, strict=True))
    letters = _letters(lane, messages, refused, wanted, longest)
    before = offsets[-1] + 1
    if not interactions:
        changes = [(at, event.change) for at, event, first in zip(where, events, fresh, strict=True) if first]
        return Changes(before, now, letters, repeated, changes)
    table = read.table.with_columns(
        pl.lit(lane.source).alias("source"), pl.Series("source_offset", where, pl.Int64())
    )
    if not all(fresh):
        table = table.filter(pl.Series(fresh, dtype=pl.Boolean()))
    return Interactions(before, now, letters, repeated, table)


def _letters(
    lane: Lane, messages: Fetched, refused: Sequence[Refused], wanted: int, longest: int
) -> list[Letter]:
    letters = []
    for row, reason in refused:
        at, value = messages.offsets[row], messages.values[row]
        if at < wanted:
            continue
        if len(value) > longest:
            reason = f"has {len(value):,} bytes, where {longest:,} may be"
        topic, number = lane.partition
        letters.append(
            Letter(reason, topic, number, at, lane.topic_id, messages.keys[row], value, len(value))
        )
    return letters
