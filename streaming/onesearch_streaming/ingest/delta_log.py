"""The log: an append-only Delta Lake table of interactions, a partition a day.

Every commit carries, as Delta's application transactions, the next offset of each partition that it was read
from. What is in the table was read, what was read up to those offsets is in the table: a batch that is
written again is refused or passed over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from arro3.core import Table
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from onesearch.data.schemas import TIME, schema
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.shoppers.store import StaleError

from onesearch_streaming.ingest.pins import pins

DAY = "day"
COLUMNS: dict[str, pl.DataType] = {
    **schema("interactions"),
    DAY: pl.Date(),
    "source": pl.String(),
    "source_offset": pl.Int64(),
    "ingested_at": TIME,
}
"""Those of a store's interactions, then: the day of ``ts`` in UTC; the partition of Kafka, as a mark names
it, and the offset that the row was read from; when it was written."""
_APPLICATION = "onesearch-ingest"


class DeltaLog:
    """Appends to the log. Several processes may, each for partitions of its own; any number reads."""

    def __init__(self, path: Path | str) -> None:
        """Open a log; one that is not there is made. Raises ArtifactError where it is something else."""
        self.path = Path(path)
        try:
            if not DeltaTable.is_deltatable(str(self.path)):
                self.path.mkdir(parents=True, exist_ok=True)
                empty = Table(pl.DataFrame(schema=COLUMNS))
                DeltaTable.create(
                    str(self.path),
                    Schema.from_arrow(empty.schema),
                    mode="ignore",
                    partition_by=[DAY],
                    configuration={"delta.appendOnly": "true"},
                )
            self._table = DeltaTable(str(self.path))
        except OSError as error:
            raise OneSearchError(f"{self.path}: the log cannot be opened ({error})") from error
        except DeltaError as error:
            raise ArtifactError(f"{self.path}: not a readable Delta log ({error})") from error
        self._known: dict[str, int | None] = {}

    @property
    def version(self) -> int:
        """Number of the newest commit seen."""
        return int(self._table.version())

    def position(self, source: str) -> int | None:
        """The next offset to be read of a partition; None where nothing of it was."""
        self._table.update_incremental()
        self._known[source] = self._stands(source)
        return self._known[source]

    def append(self, rows: pl.DataFrame, positions: Mapping[str, int]) -> None:
        """Add rows, and with them how far their partitions were read, in one commit.

        Args:
            rows: with the columns of interactions, ``source`` and ``source_offset``.
            positions: by source, the offset after the last that was read, of messages without a row, too.

        Raises StaleError where somebody else has read on in one of the partitions meanwhile, OneSearchError
        where it cannot be written. Nothing is added then.
        """
        for source in positions:
            if self._stands(source) != self._known.get(source):
                raise StaleError(f"{self.path}: another writer has read on in {source}")
        rows = rows.with_columns(
            pl.col("ts").dt.date().alias(DAY), pl.lit(datetime.now(UTC)).cast(TIME).alias("ingested_at")
        ).select(pl.col(name).cast(dtype) for name, dtype in COLUMNS.items())
        now = int(1000 * time.time())
        transactions = [
            Transaction(_transaction(source), offset, now) for source, offset in positions.items()
        ]
        try:
            write_deltalake(
                self._table,
                rows,
                mode="append",
                commit_properties=CommitProperties(app_transactions=transactions),
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            )
        except CommitFailedError as error:
            raise StaleError(f"{self.path}: another writer has read on ({error})") from error
        except (DeltaError, OSError) as error:
            raise OneSearchError(f"{self.path}: cannot be written ({error})") from error
        self._known.update(positions)

    def compact(self, file_mb: int) -> dict[str, int]:
        """Put small files together; writers and readers go on. Returns files ``added``, ``removed``."""
        try:
            done = self._table.optimize.compact(target_size=file_mb << 20)
            return {"added": int(done["numFilesAdded"]), "removed": int(done["numFilesRemoved"])}
        except (DeltaError, OSError) as error:
            raise OneSearchError(f"{self.path}: small files cannot be put together ({error})") from error

    def vacuum(self, keep_hours: int) -> list[str]:
        """Remove files that neither the newest version nor a pinned one needs, older than so many hours."""
        try:
            self._table.update_incremental()
            return list(
                self._table.vacuum(
                    retention_hours=keep_hours,
                    dry_run=False,
                    enforce_retention_duration=False,
                    keep_versions=sorted(set(pins(self.path).values())) or None,
                )
            )
        except (DeltaError, OSError) as error:
            raise OneSearchError(f"{self.path}: old files cannot be removed ({error})") from error

    def _stands(self, source: str) -> int | None:
        found = self._table.transaction_version(_transaction(source))
        return None if found is None else int(found)


def files(path: Path | str, version: int | None = None) -> Sequence[str]:
    """The Parquet files of a version, for readers that know no Delta."""
    return list(DeltaTable(str(path), version=version).file_uris())


def _transaction(source: str) -> str:
    return f"{_APPLICATION}/{source}"
