"""Champion and challenger by what their shoppers did, from a log of interactions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from onesearch.errors import DataError, UsageError
from onesearch.evaluation.sequential import MIN_OUTCOMES, MIN_SEARCHES, Look, looks

METRICS = ("orders", "clicks")
Verdict = Literal["better", "worse", "open"]
_COLUMNS = ("ts", "user_id", "request_id", "scene", "action", "release")


@dataclass(frozen=True)
class Comparison:
    """How a challenger does beside the champion.

    Attributes:
        metric: what is counted per search. alpha: the level of interval and verdict.
        since: the challenger's first search; nothing before it counts.
        look: as of the end of the log.
        verdict: of the challenger; once decided it stays, however the later looks are.
        decided_after: searches of both sides at the first look that decided; None: open.
        in_both: shoppers left out because they were seen with both releases (the share was changed, say).
    """

    champion: str
    challenger: str
    metric: str
    alpha: float
    since: datetime
    look: Look
    verdict: Verdict
    decided_after: int | None
    in_both: int

    @property
    def lift(self) -> tuple[float, float, float]:
        """The difference and its interval in per cent of the champion's rate."""
        rate = self.look.champion.rate
        parts = (self.look.difference, self.look.low, self.look.high)
        return tuple(100 * part / rate if rate else float("nan") for part in parts)  # type: ignore[return-value]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        lift, low, high = self.lift
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "metric": self.metric,
            "since": self.since.isoformat(),
            "sides": {"champion": asdict(self.look.champion), "challenger": asdict(self.look.challenger)},
            "lift_percent": lift,
            "low": low,
            "high": high,
            "p": self.look.p,
            "alpha": self.alpha,
            "verdict": self.verdict,
            "decided_after": self.decided_after,
            "in_both": self.in_both,
        }


def compare(
    log: pl.DataFrame,
    champion: str,
    challenger: str,
    metric: str = "orders",
    expected: float = 0.05,
    alpha: float = 0.05,
) -> Comparison:
    """Compare two releases that answered side by side.

    A search counts where it showed something, which is when the log has an impression of it; what a shopper
    did counts for the request that showed it, at the time of the deed. Shoppers without an id are new ones at
    every request.

    Args:
        log: interactions, with the columns of the store; see :mod:`onesearch.data.schemas`.
        champion, challenger: names of the releases, as logged.
        metric: ``orders`` or ``clicks``.
        expected: relative effect looked for; see :mod:`onesearch.evaluation.sequential`.
        alpha: level.

    Raises:
        UsageError: a release has no searches in the log, or there is too little to say anything.
    """
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r} is none of {', '.join(METRICS)}")
    missing = [name for name in _COLUMNS if name not in log.columns]
    if missing:
        raise DataError(f"the log has no column {', '.join(missing)}")
    searches = _searches(log, champion, challenger)
    for name in (champion, challenger):
        if not (searches["release"] == name).any():
            raise UsageError(f"the log has no searches that release '{name}' answered")
    since = cast(datetime, searches.filter(pl.col("release") == challenger)["ts"].min())
    searches = searches.filter(pl.col("ts") >= since)
    sides = searches.group_by("shopper").agg(
        pl.col("release").n_unique().alias("sides"), pl.col("release").first()
    )
    alone = sides.filter(pl.col("sides") == 1).sort("shopper").with_row_index("number")
    searches = searches.join(alone.select("shopper", "number"), on="shopper")
    deeds = (
        log.filter(pl.col("action") == metric.removesuffix("s"))
        .select("ts", "request_id")
        .join(searches.select("request_id", "number"), on="request_id")
    )
    events = pl.concat(
        [
            searches.select("ts", "number", search=pl.lit(True)),
            deeds.select("ts", "number", search=pl.lit(False)),
        ]
    ).sort("ts", "search", descending=[False, True], maintain_order=True)
    return _compared(
        events, alone, champion, challenger, metric, expected, alpha, since, len(sides) - len(alone)
    )


def read_log(path: Path) -> pl.DataFrame:
    """Interactions from a Delta table, a Parquet file or a folder of them.

    Raises:
        DataError: it cannot be read, or is a Delta table where deltalake is not installed.
    """
    try:
        if (path / "_delta_log").is_dir():  # it also holds files that are no part of it any more
            rows = pl.scan_delta(str(path))
        else:
            rows = pl.scan_parquet(path / "**" / "*.parquet" if path.is_dir() else path)
        return rows.select(_COLUMNS).collect()
    except ImportError as error:
        raise DataError(f"{path}: is a Delta table; install deltalake (the extra 'streaming')") from error
    except Exception as error:  # polars and deltalake raise types of their own
        raise DataError(f"{path}: not a log of interactions ({error})") from error


def _searches(log: pl.DataFrame, champion: str, challenger: str) -> pl.DataFrame:
    """One row a search: ts, request_id, release, shopper."""
    shown = (pl.col("action") == "impression") & (pl.col("scene") == "search")
    return (
        log.filter(shown & pl.col("release").is_in([champion, challenger]), pl.col("request_id") != "")
        .group_by("request_id")
        .agg(pl.col("ts").min(), pl.col("release").first(), pl.col("user_id").first())
        .with_columns(
            shopper=pl.when(pl.col("user_id").fill_null("") == "")
            .then(pl.lit("\0") + pl.col("request_id"))
            .otherwise(pl.col("user_id"))
        )
        .sort("ts", "request_id")
    )


def _compared(
    events: pl.DataFrame,
    shoppers: pl.DataFrame,
    champion: str,
    challenger: str,
    metric: str,
    expected: float,
    alpha: float,
    since: datetime,
    in_both: int,
) -> Comparison:
    decided: Look | None = None
    look: Look | None = None
    found = looks(
        events["number"].to_numpy().astype(np.int64),
        events["search"].to_numpy(),
        (shoppers["release"] == challenger).to_numpy(),
        expected,
        alpha,
    )
    for look in found:
        decided = decided or (look if look.p <= alpha else None)
    if look is None:
        raise UsageError(
            f"too little to compare: each side needs {MIN_SEARCHES} searches, and both together"
            f" {MIN_OUTCOMES} {metric}, of shoppers that saw one side only"
        )
    verdict: Verdict = "open" if decided is None else "better" if decided.difference > 0 else "worse"
    after = decided.champion.searches + decided.challenger.searches if decided else None
    return Comparison(champion, challenger, metric, alpha, since, look, verdict, after, in_both)
