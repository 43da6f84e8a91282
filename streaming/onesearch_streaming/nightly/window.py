"""What a night learns from and what it is judged on: the days of its window, good days only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.data.store import Store

from onesearch_streaming.nightly.settings import NightlySettings
from onesearch_streaming.snapshot import derived


@dataclass(frozen=True)
class Window:
    """The moments of a night; all UTC, midnight.

    Attributes:
        night: its last day. end: the end of that day.
        held_out: where the held-out days begin; what is learnt from is before.
        start: where the window begins. baseline: where the days begin that only the checks look at.
    """

    night: date
    end: datetime
    held_out: datetime
    start: datetime
    baseline: datetime

    @classmethod
    def of(cls, night: date, settings: NightlySettings) -> Window:
        """The window of a day's night."""
        end = datetime.combine(night, time(), UTC) + timedelta(days=1)
        held_out = end - timedelta(days=settings.held_out_days)
        start = held_out - timedelta(days=settings.window_days)
        return cls(night, end, held_out, start, start - timedelta(days=settings.checks.baseline_days))


def events_of(store: Store, log: pl.LazyFrame | None, since: datetime, until: datetime) -> pl.LazyFrame:
    """What shoppers did, by the base store's log and the Delta log together, each event once."""
    base = store.interactions().filter(pl.col("ts").is_between(since, until, closed="left"))
    parts = (
        [base] if log is None else [base, log.filter(pl.col("ts").is_between(since, until, closed="left"))]
    )
    return pl.concat(parts).unique("event_id", keep="first", maintain_order=False)


def without_days(events: pl.LazyFrame, days: Collection[date]) -> pl.LazyFrame:
    """Events of all other days."""
    return events.filter(~pl.col("ts").dt.date().is_in(list(days))) if days else events


def learnt_from(events: pl.LazyFrame, window: Window, attribution: timedelta) -> pl.LazyFrame:
    """What the night learns from: events before the held-out days, and the late labels of their requests.

    A click or an order within the attribution window after an impression before the held-out days belongs to
    that impression, on whichever side of midnight it happened.
    """
    before = events.filter(pl.col("ts") < window.held_out)
    asked = (
        before.filter((pl.col("action") == "impression") & pl.col("request_id").is_not_null())
        .group_by("request_id")
        .agg(asked=pl.col("ts").min())
    )
    late = (
        events.filter((pl.col("ts") >= window.held_out) & (pl.col("action") != "impression"))
        .join(asked, on="request_id", how="inner")
        .filter(pl.col("ts") < pl.col("asked") + attribution)
        .drop("asked")
    )
    return pl.concat([before, late])


def write_night_store(
    path: Path, base: Store, events: pl.LazyFrame, about: dict[str, Any], items: pl.DataFrame | None = None
) -> Store:
    """A store of the base's shoppers and judgements, and of these events, in order of time.

    ``items`` is its catalogue; None: the base's.
    """
    rows = events.sort("ts", "event_id").collect(engine="streaming")
    replaced = {"interactions": rows} | ({} if items is None else {"items": items})
    return derived(base, path, {"night": about}, replaced=replaced)
