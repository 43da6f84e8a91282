"""Pictures of a night, as SVG text to stand inside a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, GREY, INK = "#0b6e4f", "#b3261e", "#8a8f98", "#222222"
_PANELS = (
    ("searches", "searches a day", None),
    ("click rate", "click rate (clicks / impressions)", ("clicks", "impressions")),
    ("order rate", "order rate (orders / clicks)", ("orders", "clicks")),
    ("orders a search", "orders a search", ("orders", "searches")),
)
_LIMITS = {"searches": "volume", "click rate": "click rate", "order rate": "order rate"}
_SHOWN_DAYS = 28


def days_figure(
    days: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    skipped: Sequence[str],
    held_out: str,
) -> Figure:
    """The newest days of the log: volume and rates, the last day's limits as a band, days left out in red."""
    figure, axes = _figure(9.0, 4.6, 2, 2)
    shown = list(days)[-_SHOWN_DAYS:]
    names = [str(day["day"]) for day in shown]
    limits = {check["name"]: check for check in checks}
    for axis, (key, title, ratio) in zip(axes, _PANELS, strict=True):
        values = [day[ratio[0]] / max(1, day[ratio[1]]) if ratio else day[key] for day in shown]
        place = np.arange(len(shown))
        band = limits.get(_LIMITS.get(key, ""))
        if band and band["low"] is not None and band["high"] is not None:
            axis.axhspan(band["low"], band["high"], color=GOOD, alpha=0.08, linewidth=0)
        axis.plot(place, values, color=GREY, linewidth=1.4)
        colours = [BAD if name in skipped else GOOD if name >= held_out else INK for name in names]
        axis.scatter(place, values, c=colours, s=22, zorder=3)
        axis.set_ylim(bottom=0)
        _date_axis(axis, names)
        _plain(axis, title)
    return figure


def quality_figure(each: Mapping[str, Sequence[float]]) -> Figure:
    """How the searches changed: the differences challenger − champion, sorted, and where both stand."""
    figure, axes = _figure(9.0, 2.9, 1, 2)
    champion, challenger = (np.asarray(each[name], np.float64) for name in ("champion", "challenger"))
    change = np.sort(challenger - champion)
    place = np.linspace(0, 100, len(change)) if len(change) else np.zeros(0)
    axes[0].fill_between(place, change, 0, where=change >= 0, color=GOOD, alpha=0.75, linewidth=0)
    axes[0].fill_between(place, change, 0, where=change < 0, color=BAD, alpha=0.75, linewidth=0)
    axes[0].axhline(0, color=INK, linewidth=0.8)
    axes[0].set_xlabel("% of the held-out searches", fontsize=8)
    _plain(axes[0], "change of quality, search by search")
    most = float(max(champion.max(initial=0.0), challenger.max(initial=0.0), 1.0))
    bins = np.linspace(0.0, most, 31).tolist()
    for values, colour, name in ((champion, GREY, "champion"), (challenger, GOOD, "challenger")):
        axes[1].hist(values, bins=bins, histtype="step", color=colour, linewidth=1.6, label=name)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")
    axes[1].set_xlabel("quality", fontsize=8)
    _plain(axes[1], "searches by quality")
    return figure


def limits_figure(checks: Sequence[Mapping[str, Any]]) -> Figure:
    """Every check with two limits or one: where its figure lies between them."""
    rows = [check for check in checks if check["value"] is not None]
    figure, [axis] = _figure(9.0, 0.8 + 0.24 * max(1, len(rows)), 1, 1)
    for at, check in enumerate(rows):
        where = min(1.3, max(-0.3, _between(check)))
        colour = GOOD if check["passed"] else BAD if check["blocking"] else "#c77700"
        axis.plot([0, 1], [at, at], color="#dddddd", linewidth=5, solid_capstyle="butt", zorder=1)
        axis.plot(where, at, "o", color=colour, markersize=6, zorder=3)
    axis.set_yticks(range(len(rows)), [check["name"] for check in rows], fontsize=8)
    axis.set_xticks([0, 1], ["lower limit, or 0", "upper limit, or far above the lower"], fontsize=8)
    axis.set_xlim(-0.35, 1.35)
    axis.invert_yaxis()
    _plain(axis, "where each figure lies within its limits", grid=False)
    return figure


def svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element; equal figures give equal text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "onesearch", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _between(check: Mapping[str, Any]) -> float:
    """0 at the lower limit, 1 at the upper one."""
    value, low, high = check["value"], check["low"], check["high"]
    if low is not None and high is not None:
        return float((value - low) / (high - low)) if high > low else 0.5
    if high is not None:
        return float(value / high) if high > 0 else float(value > high)
    # One lower limit: as far above it as it is from nought, in a bounded measure.
    size = max(abs(low), 1e-9)
    return float(np.tanh((value - low) / (2 * size)))


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    figure = new_figure(width, height)
    return figure, list(np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel())


def _plain(axis: Axes, title: str, grid: bool = True) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, length=3)
    if grid:
        axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)


def _date_axis(axis: Axes, names: Sequence[str]) -> None:
    step = max(1, len(names) // 4)
    ticks = list(range(len(names) - 1, -1, -step))[::-1]
    axis.set_xticks(ticks, [names[at][5:] for at in ticks])
