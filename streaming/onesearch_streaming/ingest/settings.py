"""The table ``[ingest]`` of the configuration."""

from __future__ import annotations

from onesearch.config import Section
from pydantic import Field


class IngestSettings(Section):
    """How Kafka is read into the log, the shoppers' states and the catalogue."""

    group: str = Field(default="onesearch-ingest", min_length=1)
    """Consumer group: processes of one group share the partitions."""
    poll_events: int = Field(default=10_000, ge=1)
    """Messages taken at once, at most; what is held in memory grows with it."""
    log_events: int = Field(default=100_000, ge=1)
    """Rows that are gathered for one commit of the log, at most."""
    log_every_s: float = Field(default=5.0, gt=0)
    """Seconds that a row waits for the log, at most. States are written at once."""
    window: int = Field(default=100_000, ge=0)
    """An event that comes again is known if no more than so many messages of its partition lie between. They
    are read again at the start."""
    message_bytes: int = Field(default=1_000_000, ge=1_000)
    """Longer messages are refused."""
    dead_letters: int = Field(default=1_000, ge=0)
    """So many letters may wait in the dead-letter topic; with more the consumer stops."""
    compact_every: int = Field(default=200, ge=1)
    """Commits of the log after which its small files are put together."""
    file_mb: int = Field(default=128, ge=1)
    """Size that files are put together to."""
    keep_hours: int = Field(default=168, ge=0)
    """Hours that files which the newest version does not need are kept; those of pinned versions stay."""
    retry_s: float = Field(default=1.0, gt=0)
    """Seconds between tries where nothing can be written."""
