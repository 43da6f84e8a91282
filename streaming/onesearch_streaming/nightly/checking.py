"""The step that looks at the data: the days of the window and the catalogue, before anything is learnt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from onesearch.errors import UsageError

from onesearch_streaming.nightly.data_checks import Judged, check_ahead, check_catalogue, judge_days
from onesearch_streaming.nightly.days import ahead_of, catalogue_figures, day_figures
from onesearch_streaming.nightly.delta import read_log
from onesearch_streaming.nightly.inputs import Inputs
from onesearch_streaming.nightly.settings import NightlySettings

_NUMBERS = (
    "events", "searches", "shoppers", "impressions", "clicks", "orders", "repeated", "orphans", "misordered",
    "top3",
)  # fmt: skip


def look_at_data(inputs: Inputs) -> dict[str, Any]:
    """Judge the days of a night's window and its catalogue.

    Returns ``checks``, ``skipped`` days and ``why_skipped``, how many ``days`` and ``events``, how many days
    the last was ``compared_with``, the ``catalogue``'s figures and a ``table`` of each day's.
    Raises UsageError where nothing is logged on the day.
    """
    limits, items = inputs.settings.checks, inputs.items
    figures = day_figures(inputs.events(baseline=True), items, inputs.window.end)
    if not len(figures) or figures["day"][-1] != inputs.night:
        raise UsageError(f"nothing is logged on {inputs.night}: there is no night to be done")
    judged = judge_days(figures, inputs.settings)
    last = judged[-1]
    catalogue = catalogue_figures(items, inputs.champion.index.items.select("item_id", "price"))
    checks = list(last.checks) if inputs.night not in inputs.settings.accept_days else []
    checks += check_catalogue(catalogue, limits)
    if inputs.log_path is not None:
        rows = read_log(inputs.log_path, inputs.pinned["version"], inputs.window.start)
        # Clicks come in hours after the day, and a night made up later finds whole days after its own.
        late = inputs.window.end + timedelta(hours=inputs.settings.attribution_hours)
        now = max(late, datetime.now(UTC)) + timedelta(hours=1)
        checks.append(check_ahead(ahead_of(rows, now), limits))
    in_window = [one for one in judged if one.day >= inputs.window.start.date()]
    return {
        "checks": [check.as_dict() for check in checks],
        "skipped": sorted({one.day.isoformat() for one in in_window if _skips(one, inputs.settings)}),
        "why_skipped": {
            one.day.isoformat(): [f"{check.name}: {check.reason}" for check in one.checks if check.refuses]
            or ["the settings say so"]
            for one in in_window
            if _skips(one, inputs.settings)
        },
        "days": len(in_window),
        "compared_with": last.compared_with,
        "catalogue": catalogue,
        "events": int(figures.filter(pl.col("day") >= inputs.window.start.date())["events"].sum()),
        "table": _table(figures),
    }


def _skips(judged: Judged, settings: NightlySettings) -> bool:
    if judged.day in settings.skip_days:
        return True
    return not judged.good and judged.day not in settings.accept_days


def _table(figures: pl.DataFrame) -> list[dict[str, Any]]:
    """The plain numbers of each day, for report and plots."""
    return figures.select(pl.col("day").cast(pl.String), *_NUMBERS).to_dicts()
