"""One night: pin → checks → snapshot → train → measure → gate → promote or refuse → report.

Everything that could differ between two runs is pinned in the first step: the version of the Delta log, which
no vacuum takes away before the night has ended, the base store's fingerprint, the changes of the live
catalogue, the champion and its content. Every step's output stands in the night's folder
under the hash of what went in (:mod:`onesearch.training.ledger`), so that a night killed anywhere and
started again goes on where it was, and ends in the same release::

    <releases>/nights/<day>/
        night.json  report.html  report.txt    how it ended; there once it has
        work/                                  the ledger; what unfinished steps need

A night that was missed is made up by the next one: its window holds the missed days, and each of them is
checked as if its night had come. Days that fail are learnt from by no night.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from onesearch.config import Config
from onesearch.data.store import Store
from onesearch.errors import OneSearchError, UsageError
from onesearch.evaluation.metrics import Estimate
from onesearch.progress import Progress, SilentProgress
from onesearch.releases.manifest import Manifest
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.shoppers.log import EventLog
from onesearch.training.ledger import Ledger, hash_of, locked

from onesearch_streaming.nightly.challenger import train_challenger
from onesearch_streaming.nightly.data_checks import Judged, check_ahead, check_catalogue, judge_days
from onesearch_streaming.nightly.days import ahead_of, catalogue_figures, day_figures
from onesearch_streaming.nightly.delta import log_version, newest_logged, read_log
from onesearch_streaming.nightly.gate import (
    Anchored,
    Measured,
    Verdict,
    check_challenger,
    decide,
    is_better,
)
from onesearch_streaming.nightly.judging import code_drift, measure, shown_lists
from onesearch_streaming.nightly.pinning import (
    NIGHTS,
    WORK,
    copied_changes,
    copy_changes,
    hold,
    let_go,
    let_go_of_earlier,
)
from onesearch_streaming.nightly.report import write_report
from onesearch_streaming.nightly.settings import NightlySettings
from onesearch_streaming.nightly.tracking import record_night
from onesearch_streaming.nightly.verdict import Check
from onesearch_streaming.nightly.window import Window, events_of, learnt_from, without_days, write_night_store
from onesearch_streaming.snapshot import changed_items

OUTCOME = "night.json"


@dataclass(frozen=True)
class Outcome:
    """How a night ended.

    Attributes:
        night: its day. folder: where its report is. about: everything, JSON-able.
        resumed: whether it had ended before.
    """

    night: date
    folder: Path
    about: dict[str, Any]
    resumed: bool = False

    @property
    def promoted(self) -> bool:
        """Whether its challenger is good enough; it then became the champion, unless the settings forbid."""
        return bool(self.about["verdict"]["promote"])


def newest_day(store: Store, log: Path | None) -> date:
    """The newest day of the Delta log, or, where that has none, of the base store's.

    Raises UsageError where nothing is logged.
    """
    newest = None if log is None else newest_logged(log)
    if newest is not None:
        return newest
    newest = store.interactions().select(pl.col("ts").max()).collect().item()
    if newest is None:
        raise UsageError(f"{store.path}: nothing is logged that a night could learn from")
    return date(newest.year, newest.month, newest.day)


def run_night(
    store: Path,
    log: Path | None,
    releases: Path,
    config: Config,
    night: date,
    progress: Progress,
    overrides: str = "",
    catalogue: Path | None = None,
) -> Outcome:
    """Run the night of a day, or go on with it, or find it done.

    Args:
        store: the base store: catalogue, shoppers, judgements, and what was logged before the Delta log.
        log: the Delta log; None: the base store's log alone.
        releases: folder of releases, with a champion.
        config: its table ``[nightly]`` counts. overrides: TOML text of tables that replace keys of the
            champion's configuration, which the challenger is trained with.
        night: its last day.
        catalogue: folder of the live catalogue: what it was told when the night begins is done to the base
            store's items. None: they are as they are.

    Raises:
        UsageError: there is no champion, no log, or the night was done with other settings.
    """
    folder = releases / NIGHTS / night.isoformat()
    with locked(folder / WORK, "at this night"):
        return _Night(store, log, releases, config, night, progress, overrides, folder, catalogue).run()


def look(
    store: Path, log: Path | None, releases: Path, config: Config, night: date, catalogue: Path | None = None
) -> dict[str, Any]:
    """What the night of a day would do; writes nothing.

    Returns:
        ``checks`` of the data, ``reasons`` why it would be refused, ``skipped`` days and why, ``pinned``,
        ``would``: one sentence.
    """
    with TemporaryDirectory() as scratch:
        return _Night(
            store, log, releases, config, night, SilentProgress(), "", Path(scratch), catalogue
        ).look()  # fmt: skip


@dataclass
class _Night:
    store_path: Path
    log_path: Path | None
    releases: Path
    config: Config
    night: date
    progress: Progress
    overrides: str
    folder: Path
    catalogue: Path | None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Outcome:
        """All steps. What is held of the log is let go of in the end, and where the night cannot go on."""
        self.ledger = Ledger(self.folder / WORK)
        try:
            ended = self._done() or self._steps()
        except UsageError:
            let_go(self.log_path, self.releases, self.night)
            raise
        let_go(self.log_path, self.releases, self.night)
        return ended

    def _steps(self) -> Outcome:
        let_go_of_earlier(self.log_path, self.releases, self.night)
        self.pinned = self._step("pin", self._asked, self._pin_and_hold)
        hold(self.log_path, self.releases, self.night, self.pinned["version"])
        self.told = copied_changes(self.ledger.folder("pin", self._asked) / "out")
        before = hash_of(self._asked, self.pinned)
        self.checked = self._step("checks", before, self._check_data)
        checks = [Check(**one) for one in self.checked["checks"]]
        measured: dict[str, Any] | None = None
        challenger: dict[str, Any] | None = None
        found: Measured | None = None
        if decide(checks).promote:
            before = self._fed
            self._step("snapshot", before, self._snapshot)
            challenger = self._step("train", before, self._train)
            measured = self._step("measure", hash_of(before, challenger["content"]), self._measure)
            found = _measured(measured["measured"])
            checks += check_challenger(found, self.settings.gate)
        verdict = decide(checks)
        gated = hash_of(before, verdict.as_dict())
        promoted = self._step("promote", gated, lambda out: self._promote(verdict, found))
        about = self._about(verdict, challenger, measured, promoted)
        self._step("report", gated, lambda out: self._report(about))
        return Outcome(self.night, self.folder, about)

    def look(self) -> dict[str, Any]:
        """What :func:`look` says."""
        self.pinned = self._pin(self.folder)
        self.told = copied_changes(self.folder)
        self.checked = self._check_data(self.folder)
        verdict = decide([Check(**one) for one in self.checked["checks"]])
        would = (
            f"would learn from {self.window.start:%Y-%m-%d} to {self.window.held_out:%Y-%m-%d} (days "
            "left out: "
            f"{len(self.checked['skipped'])}), on from '{self.pinned['champion']}', and compare both on "
            "what came "
            "after"
            if verdict.promote
            else "would refuse the night before learning anything: " + "; ".join(verdict.reasons)
        )
        return {
            "night": self.night.isoformat(),
            "pinned": self.pinned,
            "checks": [check.as_dict() for check in verdict.checks],
            "reasons": list(verdict.reasons),
            "skipped": self.checked["why_skipped"],
            "events": self.checked["events"],
            "would": would,
        }

    # -- running one step ------------------------------------------------------------------------------------

    def _step(self, name: str, inputs: str, run: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        try:
            record, known = self.ledger.run(name, inputs, lambda _, draft: run(draft))
        except OSError as error:
            raise OneSearchError(f"night {self.night}, step {name}: {error}") from error
        self.seconds[name] = record.seconds
        self.progress.say(f"{name}: {record.seconds:.1f} s{' (done before)' if known else ''}")
        return record.figures

    def _done(self) -> Outcome | None:
        path = self.folder / OUTCOME
        if not path.is_file():
            return None
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["asked"] != self._asked:
            raise UsageError(
                f"the night of {self.night} was done with other settings: see {self.folder}; to do it again, "
                f"remove that folder and the release '{self.name}'"
            )
        return Outcome(self.night, self.folder, about, resumed=True)

    # -- what steps read -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The challenger's name."""
        return f"night-{self.night.isoformat()}"

    @cached_property
    def settings(self) -> NightlySettings:
        return self.config.section("nightly", NightlySettings)

    @cached_property
    def _asked(self) -> str:
        """Hash of what was asked for."""
        return hash_of(self.night.isoformat(), self.settings.model_dump(mode="json"), self.overrides)

    @property
    def _fed(self) -> str:
        """Hash of all that the challenger is made from."""
        return hash_of(self._asked, self.pinned, self.checked["skipped"])

    @cached_property
    def window(self) -> Window:
        return Window.of(self.night, self.settings)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.releases)

    @cached_property
    def base(self) -> Store:
        store = Store.open(self.store_path)
        if store.fingerprint() != self.pinned["store"]:
            raise OneSearchError(
                f"{store.path} changed since the night of {self.night} began; remove {self.folder} to "
                "begin anew"
            )
        return store

    @cached_property
    def items(self) -> pl.DataFrame:
        """The catalogue: the base's, with what the live one was told."""
        return changed_items(self.base.items(), self.told) if self.told else self.base.items()

    @cached_property
    def champion(self) -> Release:
        return self._as_pinned("champion")

    def _anchor(self) -> Release | None:
        """The anchor, where it is another one than the champion."""
        if not self.settings.gate.anchor or self.pinned["anchor"] == self.pinned["champion"]:
            return None
        return self._as_pinned("anchor")

    def _as_pinned(self, role: str) -> Release:
        release = Release.open(
            self.registry.path(self.pinned[role]), verify=False, plugins=self.config.plugins
        )
        if release.manifest.content_hash() != self.pinned[f"{role}_content"]:
            raise OneSearchError(
                f"release '{release.name}' is another one than when the night of {self.night} began; remove "
                f"{self.folder} to begin anew"
            )
        return release

    def _challenger(self) -> Release:
        return Release.open(self.registry.path(self.name), verify=False, plugins=self.config.plugins)

    def _events(self, baseline: bool = False) -> pl.LazyFrame:
        """What happened in the window, as pinned; ``baseline``: and in the days that checks compare with."""
        since = self.window.baseline if baseline else self.window.start
        log = None
        if self.log_path is not None:
            log = read_log(self.log_path, self.pinned["version"], since)
        return events_of(self.base, log, since, self.window.end)

    def _good_events(self) -> pl.LazyFrame:
        return without_days(self._events(), [date.fromisoformat(day) for day in self.checked["skipped"]])

    # -- the steps -------------------------------------------------------------------------------------------

    def _pin(self, out: Path) -> dict[str, Any]:
        champion = self.registry.champion()
        if champion is None:
            raise UsageError(
                f"{self.releases} has no champion to learn on from: onesearch train … --promote, first"
            )
        if (self.releases / self.name).exists():
            raise UsageError(
                f"release '{self.name}' exists already, and {self.folder} knows nothing of it: remove "
                "one to do "
                f"the night of {self.night} again"
            )
        manifest = Manifest.read(self.registry.path(champion))
        anchor = self.registry.anchor(champion)
        return {
            "champion": champion,
            "champion_content": manifest.content_hash(),
            "anchor": anchor,
            "anchor_content": Manifest.read(self.registry.path(anchor)).content_hash(),
            "version": None if self.log_path is None else log_version(self.log_path),
            "store": Store.open(self.store_path).fingerprint(),
            "catalogue": copy_changes(self.catalogue, out),
        }

    def _pin_and_hold(self, out: Path) -> dict[str, Any]:
        """Before the record that the step is done: who finds that record finds the version held."""
        pinned = self._pin(out)
        hold(self.log_path, self.releases, self.night, pinned["version"])
        return pinned

    def _check_data(self, out: Path) -> dict[str, Any]:
        limits, items = self.settings.checks, self.items
        figures = day_figures(self._events(baseline=True), items, self.window.end)
        if not len(figures) or figures["day"][-1] != self.night:
            raise UsageError(f"nothing is logged on {self.night}: there is no night to be done")
        judged = judge_days(figures, self.settings)
        last = judged[-1]
        catalogue = catalogue_figures(items, self.champion.index.items.select("item_id", "price"))
        checks = list(last.checks) if self.night not in self.settings.accept_days else []
        checks += check_catalogue(catalogue, limits)
        if self.log_path is not None:
            rows = read_log(self.log_path, self.pinned["version"], self.window.start)
            # Clicks come in hours after the day, and a night made up later finds whole days after its own.
            late = self.window.end + timedelta(hours=self.settings.attribution_hours)
            now = max(late, datetime.now(UTC)) + timedelta(hours=1)
            checks.append(check_ahead(ahead_of(rows, now), limits))
        figures.write_parquet(out / "days.parquet")
        in_window = [one for one in judged if one.day >= self.window.start.date()]
        return {
            "checks": [check.as_dict() for check in checks],
            "skipped": sorted({one.day.isoformat() for one in in_window if self._skips(one)}),
            "why_skipped": {
                one.day.isoformat(): [
                    f"{check.name}: {check.reason}" for check in one.checks if check.refuses
                ]
                or ["the settings say so"]
                for one in in_window
                if self._skips(one)
            },
            "days": len(in_window),
            "compared_with": last.compared_with,
            "catalogue": catalogue,
            "events": int(figures.filter(pl.col("day") >= self.window.start.date())["events"].sum()),
            "table": _table(figures),
        }

    def _skips(self, judged: Judged) -> bool:
        if judged.day in self.settings.skip_days:
            return True
        return not judged.good and judged.day not in self.settings.accept_days

    def _snapshot(self, out: Path) -> dict[str, Any]:
        attribution = timedelta(hours=self.settings.attribution_hours)
        events = learnt_from(self._good_events(), self.window, attribution)
        about = {"night": self.night.isoformat(), "until": self.window.held_out.isoformat(), **self.pinned}
        made = write_night_store(out / "store", self.base, events, about, self.items if self.told else None)
        count = made.count("interactions")
        if not count:
            raise UsageError(
                f"the window of {self.night} holds no good day before {self.window.held_out:%Y-%m-%d}: "
                "there is "
                "nothing to learn from"
            )
        return {"events": count, "items": made.count("items"), "fingerprint": made.fingerprint()}

    def _train(self, out: Path) -> dict[str, Any]:
        store = Store.open(self.ledger.folder("snapshot", self._fed) / "out" / "store")
        trained = train_challenger(
            store, self.releases, self.name, self.champion, self.overrides, self.progress
        )
        manifest = trained.release.manifest
        return {
            "name": self.name,
            "content": manifest.content_hash(),
            "stages": [
                {"stage": report.stage, "seconds": report.seconds, "figures": report.figures}
                for report in trained.stages
            ],
        }

    def _measure(self, out: Path) -> dict[str, Any]:
        gate, seed = self.settings.gate, self.champion.config.training.seed
        events = self._good_events()
        measured, each = measure(
            self.champion,
            self._challenger(),
            shown_lists(events, self.window.held_out, gate.searches, seed),
            EventLog.of_events(events),
            self.base.relevance().collect(),
            code_drift(self.champion, events, self.window.held_out),
            gate,
            self.progress,
            seed,
            self._anchor(),
        )
        return {"measured": asdict(measured), "each": each.to_dict(as_series=False)}

    def _promote(self, verdict: Verdict, measured: Measured | None) -> dict[str, Any]:
        """Point to the challenger where it passes. Doing it twice is doing it once.

        A person who promotes what was refused begins anew: such a release is its own anchor.
        """
        if verdict.promote and measured is not None:
            self.registry.set_anchor(self.name, self.name if is_better(measured) else self.pinned["anchor"])
        if not verdict.promote or not self.settings.promote:
            return {"promoted": False, "champion": self.registry.champion()}
        now = self.registry.champion()
        if now not in (self.pinned["champion"], self.name):
            self.progress.say(f"'{now}' became the champion meanwhile: '{self.name}' is not promoted over it")
            return {"promoted": False, "champion": now, "overtaken": True}
        self.registry.promote(self.name)
        return {"promoted": True, "champion": self.name}

    def _about(
        self,
        verdict: Verdict,
        challenger: dict[str, Any] | None,
        measured: dict[str, Any] | None,
        promoted: dict[str, Any],
    ) -> dict[str, Any]:
        return {
            "night": self.night.isoformat(),
            "asked": self._asked,
            "simulated": self.base.simulated,
            "pinned": self.pinned,
            "window": {
                "start": self.window.start.isoformat(),
                "held_out": self.window.held_out.isoformat(),
                "end": self.window.end.isoformat(),
            },
            "data": {key: value for key, value in self.checked.items() if key != "checks"},
            "challenger": challenger,
            "measured": measured,
            "verdict": verdict.as_dict(),
            **promoted,
            "seconds": dict(self.seconds),
        }

    def _report(self, about: dict[str, Any]) -> dict[str, Any]:
        write_report(self.folder, about, self.settings)
        challenger = self._challenger() if about["challenger"] else None
        record_night(self.releases, challenger, about, self.config, self.progress)
        for path in (self.folder / WORK).glob("snapshot-*"):
            shutil.rmtree(path, ignore_errors=True)
        draft = self.folder / f"{OUTCOME}.draft"
        draft.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self.folder / OUTCOME)
        return {}


def _measured(figures: dict[str, Any]) -> Measured:
    """What was measured, from its JSON form."""
    made = _estimated(figures)
    for key in ("quality_of", "relevance_of", "reach", "p50_ms", "p99_ms", "bytes"):
        made[key] = tuple(made[key])
    if made["anchored"] is not None:
        made["anchored"] = Anchored(**_estimated(made["anchored"]))
    return Measured(**made)


def _estimated(figures: dict[str, Any]) -> dict[str, Any]:
    return figures | {key: Estimate(**figures[key]) for key in ("quality", "relevance")}


def _table(figures: pl.DataFrame) -> list[dict[str, Any]]:
    """The plain numbers of each day, for report and plots."""
    numbers = [
        "events", "searches", "shoppers", "impressions", "clicks", "orders", "repeated", "orphans",
        "misordered",
        "top3",
    ]  # fmt: skip
    return figures.select(pl.col("day").cast(pl.String), *numbers).to_dicts()
