"""What a night holds still while it runs: a version of the log, and the catalogue of one moment.

A version is pinned in the log itself, so that whoever vacuums it spares its files; several folders of
releases may learn from one log. The changes of a live catalogue are copied, for their log keeps what each
item has come to and not how: later it could not be asked what was known before.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.catalogue.changes import Change, changes_of, table_of
from onesearch.catalogue.log import ChangeLog
from onesearch.errors import ArtifactError, UsageError
from onesearch.training.ledger import hash_of, locked

from onesearch_streaming.ingest.pins import pin, pins, unpin

NIGHTS = "nights"
WORK = "work"
CHANGES = "changes.parquet"
_PREFIX = "night"


def hold(log: Path | None, releases: Path, night: date, version: int | None) -> None:
    """Keep a version of the log for a night, until :func:`let_go`. Doing it twice is doing it once."""
    if log is not None and version is not None:
        pin(log, _pin_name(releases, night), version)


def let_go(log: Path | None, releases: Path, night: date) -> None:
    """A night has ended, or will not go on."""
    if log is not None:
        unpin(log, _pin_name(releases, night))


def let_go_of_earlier(log: Path | None, releases: Path, night: date) -> list[str]:
    """Let go of what earlier nights of these releases hold, unless one is at work: the next makes them up.

    Returns the days of those nights.
    """
    gone = []
    for name in pins(log) if log is not None else ():
        day = name.removeprefix(f"{_PREFIX}-").removesuffix(f"-{_mark(releases)}")
        with suppress(ValueError):
            other = date.fromisoformat(day)
            if other < night and name == _pin_name(releases, other) and not _runs(releases, other):
                let_go(log, releases, other)
                gone.append(day)
    return gone


def copy_changes(catalogue: Path | None, folder: Path) -> dict[str, Any] | None:
    """Copy what a live catalogue was told so far into a folder.

    Returns the number of its newest batch, how many items it tells of, and a hash of what; None without a
    catalogue. Raises UsageError where the folder holds no catalogue, ArtifactError where it cannot be read.
    """
    if catalogue is None:
        return None
    if not catalogue.is_dir():
        raise UsageError(
            f"{catalogue}: there is no live catalogue; 'onesearch ingest run --catalogue' makes one"
        )
    told, through = ChangeLog(catalogue).since(0)
    changes = [told[item_id] for item_id in sorted(told)]
    table_of(changes).write_parquet(folder / CHANGES)
    return {"through": through, "items": len(changes), "content": hash_of([asdict(one) for one in changes])}


def copied_changes(folder: Path) -> dict[str, Change]:
    """What :func:`copy_changes` left, by item id; nothing where it left nothing."""
    path = folder / CHANGES
    if not path.exists():
        return {}
    try:
        return {change.item_id: change for change in changes_of(pl.read_parquet(path))}
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def _pin_name(releases: Path, night: date) -> str:
    return f"{_PREFIX}-{night.isoformat()}-{_mark(releases)}"


def _mark(releases: Path) -> str:
    return hashlib.sha256(str(releases.resolve()).encode()).hexdigest()[:12]


def _runs(releases: Path, night: date) -> bool:
    """Whether a process is at work on a night."""
    work = releases / NIGHTS / night.isoformat() / WORK
    if not work.is_dir():
        return False
    try:
        with locked(work):
            return False
    except UsageError:
        return True
