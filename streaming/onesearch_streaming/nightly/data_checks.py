"""Whether a day of the log, and the catalogue, may be learnt from. Pure: figures in, checks out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from onesearch_streaming.nightly.settings import DataLimits, NightlySettings
from onesearch_streaming.nightly.verdict import Check, refusals, within

Day = Mapping[str, Any]
"""A row of :func:`onesearch_streaming.nightly.days.day_figures`."""
HEAD = 50
"""Queries and categories of the baseline that are told apart; all others are one kind, new ones another."""
_MAD = 1.4826


@dataclass(frozen=True)
class Judged:
    """A day and what its checks say."""

    day: date
    checks: tuple[Check, ...]
    compared_with: int
    """Good days before it that it was compared with."""

    @property
    def good(self) -> bool:
        """Whether it may be learnt from."""
        return not refusals(self.checks)


def judge_days(figures: pl.DataFrame, settings: NightlySettings) -> list[Judged]:
    """Every day of a table of figures, each compared with the good ones before it, in order."""
    judged: list[Judged] = []
    good: list[Day] = []
    for row in figures.sort("day").iter_rows(named=True):
        baseline = good[-settings.checks.baseline_days :]
        checks = check_day(row, baseline, settings.checks)
        found = Judged(row["day"], tuple(checks), len(baseline))
        judged.append(found)
        if (found.good and row["day"] not in settings.skip_days) or row["day"] in settings.accept_days:
            good.append(row)
    return judged


def check_day(day: Day, baseline: Sequence[Day], limits: DataLimits) -> list[Check]:
    """The checks of one day. Without enough days before it, those that need none."""
    checks = [
        within(
            "repeated",
            "data",
            day["repeated"],
            f"{_percent(day['repeated'])} of the events say what another event says: the same shopper, item, "
            "action, request and place",
            high=limits.repeated,
        ),
        within(
            "orphans",
            "data",
            day["orphans"],
            f"{_percent(day['orphans'])} of the clicks and orders lack the impression they belong to",
            high=max(limits.orphans, _usual(baseline, "orphans") + limits.spreads * limits.share_floor),
        ),
        within(
            "clock",
            "data",
            day["misordered"],
            f"{_percent(day['misordered'])} of the clicks and orders happened before what they follow, "
            "or hours "
            "after it",
            high=limits.misordered,
        ),
        _robots(day, baseline, limits),
    ]
    if len(baseline) < limits.least_days:
        return checks
    checks += [
        _usual_volume(day, baseline, limits),
        _usual_rate("click rate", "clicks", "impressions", "of what was shown was clicked",
                    day, baseline, limits),
        _usual_rate("order rate", "orders", "clicks", "of the clicks became orders", day, baseline, limits),
        _usual_rate("depth", "impressions", "searches", "items are shown a search",
                    day, baseline, limits, False),
        _usual_share("attention", "top3", "placed_clicks",
                     "of the clicks are in the first three places", day, baseline, limits),
        _usual_share("queries missing", "no_query", "searches", "of the search events name no query",
                     day, baseline, limits),
        _usual_share("places missing", "no_place", "impressions", "of the impressions name no place",
                     day, baseline, limits),
        _drift("query drift", "queries", "what is searched for", day, baseline, limits),
        _drift("label drift", "categories", "the categories of what is clicked", day, baseline, limits),
        _drift("hours", "hours", "when shoppers come", day, baseline, limits),
    ]  # fmt: skip
    return checks


def check_catalogue(figures: Mapping[str, float], limits: DataLimits) -> list[Check]:
    """The checks of a catalogue; figures as :func:`~onesearch_streaming.nightly.days.catalogue_figures`
    says."""
    return [
        within(
            "prices",
            "catalogue",
            figures["prices"],
            f"prices broke since the champion: {_percent(figures['zero'])} became zero, "
            f"{_percent(figures['lost'])} are missing, {_percent(figures['tenfold'])} changed tenfold",
            high=limits.prices,
        ),
        within(
            "catalogue",
            "catalogue",
            figures["gone"],
            f"{_percent(figures['gone'])} of the champion's {figures['champion_items']:,.0f} items left the "
            "catalogue",
            high=limits.catalogue_loss,
        ),
        within(
            "titles",
            "catalogue",
            max(figures["no_title"], figures["no_category"]),
            f"{_percent(figures['no_title'])} of the items have no title, "
            f"{_percent(figures['no_category'])} no category",
            high=0.5,
        ),
    ]


def check_ahead(share: float, limits: DataLimits) -> Check:
    """Events later than the night itself."""
    reason = f"{_percent(share)} of the log's events are dated after now: a clock runs ahead"
    return within("clock ahead", "data", share, reason, high=limits.ahead)


def robust_range(
    before: Sequence[float], floor: float, spreads: float, chance: float = 0.0
) -> tuple[float, float, float]:
    """Median of what was before, and how far a figure may be off: low and high.

    The spread is the largest of 1.4826 times the median distance from the median, of ``floor``, and of
    ``chance``, the standard error that the figure has by chance alone.
    """
    values = np.asarray(before, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, -math.inf, math.inf
    centre = float(np.median(values))
    spread = max(_MAD * float(np.median(np.abs(values - centre))), floor, chance)
    return centre, centre - spreads * spread, centre + spreads * spread


def stability(now: Mapping[str, float], before: Mapping[str, float], head: int = HEAD) -> float:
    """Population stability index Σ (p − q)·ln(p / q) of counts by key, less what chance alone gives.

    The ``head`` most frequent keys of before stand alone; others that were there before are one kind, and
    what was not there is another. Half a count is added to each kind. Never negative; 0 where nothing was
    counted.
    """
    top = sorted(before, key=lambda key: (-before[key], key))[:head]
    kinds = [*top, None, ""]
    named = set(top)

    def counts(of: Mapping[str, float]) -> np.ndarray:
        alone = [of.get(key, 0.0) for key in top]
        rest = sum(count for key, count in of.items() if key not in named and key in before)
        new = sum(count for key, count in of.items() if key not in before)
        return np.array([*alone, rest, new], np.float64)

    p, q = counts(now), counts(before)
    n, m = p.sum(), q.sum()
    if not n or not m:
        return 0.0
    p, q = (p + 0.5) / (n + 0.5 * len(kinds)), (q + 0.5) / (m + 0.5 * len(kinds))
    chance = (len(kinds) - 1) * (1 / n + 1 / m)
    return max(0.0, float(((p - q) * np.log(p / q)).sum()) - chance)


def _robots(day: Day, baseline: Sequence[Day], limits: DataLimits) -> Check:
    busiest = [max(one["top_clicks"] or [0]) for one in baseline]
    most = max(limits.robot_clicks, 3 * float(np.median(busiest))) if busiest else limits.robot_clicks
    own = [count for count in day["top_clicks"] or [] if count > most]
    share = sum(own) / max(1, day["clicks"])
    reason = (
        f"{len(own)} shoppers made more than {most:,.0f} clicks each, together {_percent(share)} of the "
        "day's: "
        "robots"
        if own
        else f"no shopper made more than {most:,.0f} clicks"
    )
    return within("robots", "data", share, reason, high=limits.robots)


def _usual_volume(day: Day, baseline: Sequence[Day], limits: DataLimits) -> Check:
    before = [float(one["searches"]) for one in baseline]
    floor = limits.volume_floor * float(np.median(before))
    centre, low, high = robust_range(
        before, floor, limits.spreads, math.sqrt(max(1.0, float(np.median(before))))
    )
    reason = f"{day['searches']:,} searches; {centre:,.0f} are usual"
    return within("volume", "data", float(day["searches"]), reason, max(0.0, low), high)


def _usual_rate(
    name: str, part: str, whole: str, said: str, day: Day, baseline: Sequence[Day], limits: DataLimits,
    share: bool = True,
) -> Check:  # fmt: skip
    """A ratio of counts, as usual."""
    before = [one[part] / max(1, one[whole]) for one in baseline]
    value = day[part] / max(1, day[whole])
    centre = float(np.median(before))
    # Counts of clicks and orders scatter like Poisson's: what chance does on such a day is allowed for.
    chance = math.sqrt(max(centre, 1e-12) / max(1, day[whole])) if share else 0.0
    centre, low, high = robust_range(before, limits.rate_floor * centre, limits.spreads, chance)
    shown = (_percent(value), _percent(centre)) if share else (f"{value:.2f}", f"{centre:.2f}")
    return within(name, "data", value, f"{shown[0]} {said}; {shown[1]} is usual", max(0.0, low), high)


def _usual_share(
    name: str, column: str, of: str, said: str, day: Day, baseline: Sequence[Day], limits: DataLimits
) -> Check:
    before = [one[column] if one[column] is not None else math.nan for one in baseline]
    value = day[column] if day[column] is not None else 0.0
    centre = float(np.nanmedian(before)) if np.isfinite(before).any() else 0.0
    chance = math.sqrt(centre * (1 - centre) / max(1, day[of] or 0))
    centre, low, high = robust_range(before, limits.share_floor, limits.spreads, chance)
    reason = f"{_percent(value)} {said}; {_percent(centre)} is usual"
    return within(name, "data", value, reason, max(0.0, low), min(1.0, high))


def _drift(name: str, column: str, said: str, day: Day, baseline: Sequence[Day], limits: DataLimits) -> Check:
    before: dict[str, float] = {}
    for one in baseline:
        for key, count in _counts(one[column]).items():
            before[key] = before.get(key, 0.0) + count
    index = stability(_counts(day[column]), before)
    # Days differ from each other, too: what they usually differ by is allowed for.
    usual = [
        stability(_counts(one[column]), _without(before, _counts(one[column])))
        for one in baseline[-limits.least_days :]
    ]
    high = max(limits.drift, 2 * float(np.median(usual)))
    reason = (
        f"{said} changed by a stability index of {index:.2f}; days usually differ by {np.median(usual):.2f}"
    )
    return within(name, "data", index, reason, high=high)


def _counts(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, float]:
    return {entry["key"]: float(entry["count"]) for entry in entries or []}


def _without(total: Mapping[str, float], part: Mapping[str, float]) -> dict[str, float]:
    left = {key: count - part.get(key, 0.0) for key, count in total.items()}
    return {key: count for key, count in left.items() if count > 0}


def _usual(baseline: Sequence[Day], column: str) -> float:
    return float(np.median([one[column] for one in baseline])) if baseline else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if abs(share) < 0.1 else f"{100 * share:.1f} %"
