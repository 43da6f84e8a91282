"""``onesearch bench nights``: nights of a simulated shop, good ones and planted bad ones, and what they
teach."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.config import parse_config
from onesearch.data.demo.world import START
from onesearch.data.importers.demo import DemoSize, store_or_demo
from onesearch.data.simulation import SimulatedShoppers, day_of
from onesearch.data.store import Store
from onesearch.progress import Progress
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog
from onesearch.training.run import train

from onesearch_streaming.nightly.cost import night_costs
from onesearch_streaming.nightly.damage import KINDS
from onesearch_streaming.nightly.delta import append_to_log, log_version, read_log
from onesearch_streaming.nightly.night import Outcome, run_night
from onesearch_streaming.nightly.planted import Planted, planted_rows
from onesearch_streaming.nightly.settings import DataLimits, NightlySettings
from onesearch_streaming.nightly.simulated import (
    ServedDay,
    answers,
    expected_orders,
    lift_of,
    serve_day,
)
from onesearch_streaming.nightly.verdict import refusals
from onesearch_streaming.nightly.window import write_night_store

FIRST = "first"
FIRST_CONFIG, NIGHT_CONFIG = (Path(__file__).with_name(name) for name in ("first.toml", "night.toml"))
HISTORY_DAYS = 365
WARM_DAYS = 4
"""Days that the first release serves before the first night, so that there is something to compare days
with."""


def run(
    store: Path | None = None,
    release: Path | None = None,
    work: Path | None = None,
    nights: int = 7,
    history_days: int = HISTORY_DAYS,
    searches: int = 600,
    judged: int = 2_000,
    good: int = 10,
    planted_searches: int = 1_500,
    explore: float = 0.05,
    cost: bool = False,
    seed: int = 0,
    config: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Nights of a simulated shop: what they teach, which bad ones are refused. All figures are simulated.

    Args:
        store: a demo store; without one a small one is made.
        release: the first champion; without one it is trained on the shop's history.
        work: where the nights happen; kept, and gone on with. Without it a temporary folder.
        nights: nights that learn, one after another; 0: only the planted ones.
        history_days: days of the store's log that the shop begins with.
        searches: searches that the champion answers on each day.
        judged: searches of the day after the last night that every champion is judged by.
        good: normal days that the data checks must let pass.
        planted_searches: searches of a planted day.
        explore: share of the places that show something from below, with its propensity logged.
        cost: measure instead what one night costs beside histories of 30, 120 and 480 days.
        seed: of shoppers, luck and damage.
        config: what nights are trained with beside the champion's configuration, and their limits.
        progress: told.
    """
    from onesearch.progress import SilentProgress

    told = progress or SilentProgress()
    began = time.monotonic()
    with _folder(work) as folder:
        if cost:
            costs = night_costs(folder, store, FIRST_CONFIG, config or NIGHT_CONFIG, searches, seed, told)
            return costs | {"took_s": round(time.monotonic() - began, 1)}
        base = store_or_demo(store, folder, told, DemoSize.small)
        shoppers = SimulatedShoppers.open(base)
        answer: dict[str, Any] = {"simulated": True, "seed": seed}
        if nights:
            loop = LearningShop(
                base, folder, searches, explore, seed, config or NIGHT_CONFIG, told, history_days
            )
            loop.first(release)
            answer |= loop.learn(nights, judged)
        answer |= planted(shoppers, base.items(), planted_searches, good, seed, told)
    return answer | {"seconds": round(time.monotonic() - began, 1)}


def planted(
    shoppers: SimulatedShoppers, items: pl.DataFrame, searches: int, good: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Planted bad days of every kind, and good ones, through the data checks."""
    made = Planted.of(shoppers, items, searches, 10_000 * (seed + 1), DataLimits())
    refused_good: list[list[str]] = []
    with progress.task("planted nights", total=good + len(KINDS)) as task:
        for number in range(good):
            checks = made.check(made.day(made.number, 10_000 * (seed + 1) + 5_000 + number))
            if refusals(checks):
                refused_good.append([f"{check.name}: {check.reason}" for check in refusals(checks)])
            task.advance()
        rows: list[dict[str, Any]] = []
        for kind in KINDS:
            rows += planted_rows(made, 10_000 * (seed + 1) + 7_000, [kind])
            task.advance()
    return {
        "bad_nights": len(rows),
        "bad_refused": sum(row["right_reason"] for row in rows),
        "good_nights": good,
        "good_refused": len(refused_good),
        "good_refused_for": refused_good,
        "rows": rows,
    }


class LearningShop:
    """A shop that serves by day and learns by night.

    Attributes:
        base: its store. log, releases: folders, as ``onesearch nightly`` takes them.
    """

    def __init__(
        self,
        whole: Store,
        folder: Path,
        searches: int,
        explore: float,
        seed: int,
        config: Path,
        progress: Progress,
        history_days: int = HISTORY_DAYS,
        first_config: Path = FIRST_CONFIG,
    ) -> None:
        self.base = _begun(whole, folder / "store", history_days)
        self.shoppers, self.progress = SimulatedShoppers.open(self.base), progress
        self.searches, self.explore, self.seed = searches, explore, seed
        self.log, self.releases, self.days = folder / "log", folder / "releases", folder / "days"
        text = config.read_text(encoding="utf-8")
        accepted: tuple[date, ...] = tuple(map(day_of, range(WARM_DAYS)))
        self.overrides = text
        settings = parse_config(text, str(config))
        nightly = settings.section("nightly", NightlySettings)
        self.config = replace(
            settings,
            others={"nightly": nightly.model_copy(update={"accept_days": accepted})},
        )
        self.registry = Registry(self.releases)
        self._first_config = first_config

    def first(self, release: Path | None) -> None:
        """The first champion: one that is given, or one trained on the store's own log."""
        if self.registry.champion() is not None:
            return
        if release is not None:
            found = Release.open(release)
            if found.name != FIRST:
                self.progress.say(f"the first champion is a copy of '{found.name}'")
            shutil.copytree(release, self.releases / found.name)
            self.registry.promote(found.name)
            return
        settings = parse_config(self._first_config.read_text(encoding="utf-8"), str(self._first_config))
        train(self.base, self.releases, FIRST, settings, self.progress)
        self.registry.promote(FIRST)

    def learn(self, nights: int, judged: int) -> dict[str, Any]:
        """Days and nights in turn, then every champion judged on the same searches of the day after."""
        served: list[ServedDay] = []
        ended: list[Outcome] = []
        champions = [str(self.registry.champion())]
        for number in range(WARM_DAYS):
            self.day(number)
        for number in range(WARM_DAYS, WARM_DAYS + nights):
            served.append(self.day(number))
            ended.append(
                run_night(
                    self.base.path, self.log, self.releases, self.config, day_of(number), self.progress,
                    self.overrides,
                )
            )  # fmt: skip
            champions.append(str(self.registry.champion()))
        return self._judge(champions, nights, judged) | {
            "nights": [
                {
                    "night": outcome.night.isoformat(),
                    "served_by": before,
                    "orders_per_search": day.figures["orders_per_search"],
                    "ctr": day.figures["ctr"],
                    "promoted": outcome.about["promoted"],
                    "reasons": outcome.about["verdict"]["reasons"],
                    "quality": (outcome.about["measured"] or {}).get("measured", {}).get("quality"),
                    "seconds": round(sum(outcome.about["seconds"].values()), 1),
                }
                for before, day, outcome in zip(champions, served, ended, strict=False)
            ],
            "champions": champions,
            "searches_a_day": self.searches,
            "history_searches": self.base.interactions()
            .filter(pl.col("scene") == "search")
            .select(pl.col("request_id").n_unique())
            .collect()
            .item(),
            "explore": self.explore,
        }

    def day(self, number: int) -> ServedDay:
        """A day that the champion of the morning serves; its events go to the log. Done once."""
        kept = self.days / f"{number:03d}.json"
        if kept.is_file():
            return ServedDay(pl.DataFrame(), json.loads(kept.read_text(encoding="utf-8")))
        pipeline = Pipeline.of_release(Release.open(self._champion(), verify=False))
        requests = self.shoppers.requests(self.searches, self.seed, number)
        day = serve_day(
            self.shoppers, pipeline, requests, self._states(), self.seed, self.explore, self.progress
        )
        append_to_log(self.log, day.events)
        self.days.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".draft")
        draft.write_text(json.dumps(day.figures), encoding="utf-8")
        draft.replace(kept)
        return day

    def _judge(self, champions: list[str], nights: int, judged: int) -> dict[str, Any]:
        """Every champion on the same searches of the day after: by the shoppers' chances, and by acts."""
        requests = self.shoppers.requests(judged, self.seed + 1, WARM_DAYS + nights)
        states = self._states()
        lists: dict[str, list[list[str]]] = {}
        for name in dict.fromkeys(champions):
            pipeline = Pipeline.of_release(Release.open(self.registry.path(name), verify=False))
            lists[name] = answers(pipeline, requests, states, self.progress)
        expected = {name: expected_orders(self.shoppers, requests, found) for name, found in lists.items()}
        oracle = expected_orders(self.shoppers, requests, self.shoppers.oracle(requests))
        who = requests.needs.who
        lift = lift_of(expected[champions[-1]], expected[champions[0]], who)
        acted = {
            name: self.shoppers.act(requests, lists[name], self.seed + 1)
            for name in (champions[0], champions[-1])
        }
        luck = lift_of(acted[champions[-1]].orders, acted[champions[0]].orders, who)
        return {
            "orders_per_search": [round(float(expected[name].mean()), 5) for name in champions],
            "lift_percent": lift.value,
            "low": lift.low,
            "high": lift.high,
            "oracle": round(float(oracle.mean()), 5),
            "acted": {
                "first": acted[champions[0]].figures(),
                "last": acted[champions[-1]].figures(),
                "lift_percent": luck.value,
                "low": luck.low,
                "high": luck.high,
            },
            "judged": judged,
        }

    def _champion(self) -> Path:
        return self.registry.path(str(self.registry.champion()))

    def _states(self) -> EventLog:
        """What is known of shoppers by all that has happened so far."""
        parts = [self.base.interactions()]
        if (self.log / "_delta_log").is_dir():
            parts.append(read_log(self.log, log_version(self.log), START))
        return EventLog.of_events(pl.concat(parts))


def _begun(base: Store, path: Path, days: int) -> Store:
    """The store with the newest days of its log alone."""
    if not (path / "store.json").is_file():
        since = datetime.combine(day_of(-days), time_of_day(), UTC)
        events = base.interactions().filter(pl.col("ts") >= since)
        write_night_store(path, base, events, {"history_days": days})
    return Store.open(path)


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="onesearch-nights-") as scratch:
        yield Path(scratch)
