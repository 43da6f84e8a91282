"""What a night costs beside histories of several sizes: the same newest days, ever more before them.

While a night runs, the log's files of the days before its window are not there: they have been moved away.
So whatever a night reads, it is not the history. What it learns is cut short: training costs the same beside
any of them. All shoppers are simulated.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.config import parse_config
from onesearch.data.importers.demo import DemoSize, store_or_demo
from onesearch.data.simulation import SimulatedShoppers, day_of
from onesearch.data.store import Store
from onesearch.progress import Progress
from onesearch.releases.registry import Registry
from onesearch.training.run import train
from onesearch.training.tracking import TrackingConfig

from onesearch_streaming.nightly.brevity import cut_short
from onesearch_streaming.nightly.delta import PARTITION, append_to_log
from onesearch_streaming.nightly.night import newest_day, run_night
from onesearch_streaming.nightly.settings import DataLimits, NightlySettings
from onesearch_streaming.nightly.simulated import keyword_day
from onesearch_streaming.nightly.window import Window

HISTORIES = (30, 120, 480)
MADE = 30
"""Days that are simulated; older ones are the same events, moved into the past."""
SETTINGS = NightlySettings(window_days=7, checks=DataLimits(baseline_days=7))
_FIRST, _AT_ONCE = "first", 10


def night_costs(
    folder: Path,
    store: Path | None,
    first: Path,
    config: Path,
    searches: int,
    seed: int,
    progress: Progress,
    histories: Sequence[int] = HISTORIES,
) -> dict[str, Any]:
    """Run the same night beside histories of so many days.

    Args:
        folder: where all of it happens. store: a demo store; None: a small one is made.
        first: configuration that the first release is trained with. config: what the night is.
        searches: of a day.

    Returns:
        ``rows``: ``days``, ``events``, ``log_mb`` and ``files`` of the log; ``files_there`` while the night
        ran; ``seconds`` of the night; ``apart_from_training``; and each step's. ``night_over_shortest``: its
        seconds beside the longest history to those beside the shortest; ``history_over_shortest``: events
        likewise. ``same_release``: whether all ended in the same content.
    """
    base = store_or_demo(store, folder, progress, DemoSize.small)
    shoppers = SimulatedShoppers.open(base)
    releases = folder / "releases"
    train(base, releases, _FIRST, parse_config(cut_short(first), str(first)), progress)
    Registry(releases).promote(_FIRST)
    days = []
    with progress.task("simulated days", MADE) as task:
        for number in range(MADE):
            days.append(keyword_day(shoppers, searches, number, seed))
            task.advance()
    rows, contents = [], []
    # The first night loads what all of them need: it is done twice, and counts once.
    for length in (histories[0], *histories):
        place = folder / f"history-{length}"
        with progress.task(f"a history of {length} days", length) as task:
            _write_history(place / "log", days, length, task)
        shutil.copytree(releases, place / "releases")
        row, content = _one(base, place, config, length, progress)
        rows.append(row)
        contents.append(content)
        shutil.rmtree(place)
    return {
        "simulated": True,
        "searches_a_day": searches,
        "window_days": SETTINGS.window_days,
        "rows": rows[1:],
        "night_over_shortest": round(rows[-1]["seconds"] / rows[1]["seconds"], 3),
        "history_over_shortest": round(rows[-1]["events"] / rows[1]["events"], 1),
        "same_release": len(set(contents)) == 1,
    }


def _write_history(log: Path, days: Sequence[pl.DataFrame], length: int, task: Any) -> None:
    """The simulated days last, before them the same ones again, ever further back."""
    newest = MADE - 1
    for start in range(0, length, _AT_ONCE):
        back = range(start, min(start + _AT_ONCE, length))
        made = []
        for ago in back:
            rounds, number = divmod(ago, MADE)
            moved = days[newest - number].with_columns(pl.col("ts") - timedelta(days=MADE * rounds))
            names = {one: pl.format("{}~" + str(rounds), one) for one in ("event_id", "request_id")}
            made.append(moved.with_columns(**names) if rounds else moved)
        append_to_log(log, pl.concat(made))
        task.advance(len(back))


def _one(
    base: Store, place: Path, config: Path, length: int, progress: Progress
) -> tuple[dict[str, Any], str]:
    """One night; the row, and the content of what it learnt."""
    log, night = place / "log", day_of(MADE - 1)
    files = list(log.glob(f"{PARTITION}=*/*.parquet"))
    size = sum(file.stat().st_size for file in files)
    events = pl.scan_delta(str(log)).select(pl.len()).collect().item()
    begins = Window.of(night, SETTINGS).baseline.date()
    for day in log.glob(f"{PARTITION}=*"):
        if date.fromisoformat(day.name.partition("=")[2]) < begins:
            shutil.rmtree(day)
    text = cut_short(config)
    chosen = replace(
        parse_config(text, str(config)),
        others={"nightly": SETTINGS, "tracking": TrackingConfig(enabled=False)},
    )
    began = time.monotonic()
    assert newest_day(base, log) == night
    ended = run_night(base.path, log, place / "releases", chosen, night, progress, text)
    took = time.monotonic() - began
    steps = ended.about["seconds"]
    challenger = ended.about["challenger"] or {"content": "nothing was learnt"}
    row = {
        "days": length,
        "events": events,
        "log_mb": round(size / 1e6, 1),
        "files": len(files),
        "files_there": len(list(log.glob(f"{PARTITION}=*/*.parquet"))),
        "seconds": round(took, 2),
        "apart_from_training": round(took - steps.get("train", 0.0), 2),
        **{name: round(seconds, 2) for name, seconds in steps.items()},
    }
    return row, str(challenger["content"])
