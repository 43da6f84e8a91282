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
from datetime import date, timedelta
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
from onesearch.shoppers.log import EventLog
from onesearch.training.ledger import Ledger, hash_of, locked

from onesearch_streaming.nightly.challenger import train_challenger
from onesearch_streaming.nightly.checking import look_at_data
from onesearch_streaming.nightly.delta import newest_logged
from onesearch_streaming.nightly.gate import (
    Anchored,
    Measured,
    Verdict,
    check_challenger,
    decide,
    is_better,
)
from onesearch_streaming.nightly.inputs import Inputs
from onesearch_streaming.nightly.judging import code_drift, measure, shown_lists
from onesearch_streaming.nightly.pinning import (
    NIGHTS,
    WORK,
    hold,
    let_go,
    let_go_of_earlier,
)
from onesearch_streaming.nightly.report import write_report
from onesearch_streaming.nightly.tracking import record_night
from onesearch_streaming.nightly.verdict import Check
from onesearch_streaming.nightly.window import learnt_from, write_night_store

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
        inputs = Inputs(store, log, releases, config, night, catalogue, folder)
        return _Night(inputs, progress, overrides).run()


def look(
    store: Path, log: Path | None, releases: Path, config: Config, night: date, catalogue: Path | None = None
) -> dict[str, Any]:
    """What the night of a day would do; writes nothing.

    Returns:
        ``checks`` of the data, ``reasons`` why it would be refused, ``skipped`` days and why, ``pinned``,
        ``would``: one sentence.
    """
    with TemporaryDirectory() as scratch:
        inputs = Inputs(store, log, releases, config, night, catalogue, Path(scratch))
        return _Night(inputs, SilentProgress()).look()


@dataclass
class _Night:
    inputs: Inputs
    progress: Progress
    overrides: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.inputs.folder

    @property
    def night(self) -> date:
        return self.inputs.night

    @cached_property
    def _asked(self) -> str:
        """Hash of what was asked for."""
        settings = self.inputs.settings.model_dump(mode="json")
        return hash_of(self.night.isoformat(), settings, self.overrides)

    @property
    def _fed(self) -> str:
        """Hash of all that the challenger is made from."""
        return hash_of(self._asked, self.inputs.pinned, self.checked["skipped"])

    def run(self) -> Outcome:
        """All steps. What is held of the log is let go of in the end, and where the night cannot go on."""
        self.ledger = Ledger(self.folder / WORK)
        try:
            ended = self._done() or self._steps()
        except UsageError:
            let_go(self.inputs.log_path, self.inputs.releases, self.night)
            raise
        let_go(self.inputs.log_path, self.inputs.releases, self.night)
        return ended

    def _steps(self) -> Outcome:
        inputs = self.inputs
        let_go_of_earlier(inputs.log_path, inputs.releases, self.night)
        pinned = self._step("pin", self._asked, self._pin_and_hold)
        hold(inputs.log_path, inputs.releases, self.night, pinned["version"])
        inputs.hold_to(pinned, self.ledger.folder("pin", self._asked) / "out")
        before = hash_of(self._asked, pinned)
        self.checked = self._step("checks", before, lambda out: look_at_data(inputs))
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
            checks += check_challenger(found, inputs.settings.gate)
        verdict = decide(checks)
        gated = hash_of(before, verdict.as_dict())
        promoted = self._step("promote", gated, lambda out: self._promote(verdict, found))
        about = self._about(verdict, challenger, measured, promoted)
        self._step("report", gated, lambda out: self._report(about))
        return Outcome(self.night, self.folder, about)

    def look(self) -> dict[str, Any]:
        """What :func:`look` says."""
        inputs = self.inputs
        inputs.hold_to(inputs.pin(self.folder), self.folder)
        self.checked = look_at_data(inputs)
        verdict = decide([Check(**one) for one in self.checked["checks"]])
        learns, skipped = inputs.window, len(self.checked["skipped"])
        would = (
            f"would learn from {learns.start:%Y-%m-%d} to {learns.held_out:%Y-%m-%d} (days left out: "
            f"{skipped}), on from '{inputs.pinned['champion']}', and compare both on what came after"
            if verdict.promote
            else "would refuse the night before learning anything: " + "; ".join(verdict.reasons)
        )
        return {
            "night": self.night.isoformat(),
            "pinned": inputs.pinned,
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
                f"remove that folder and the release '{self.inputs.name}'"
            )
        return Outcome(self.night, self.folder, about, resumed=True)

    # -- the steps -------------------------------------------------------------------------------------------

    def _pin_and_hold(self, out: Path) -> dict[str, Any]:
        """Before the record that the step is done: who finds that record finds the version held."""
        pinned = self.inputs.pin(out)
        hold(self.inputs.log_path, self.inputs.releases, self.night, pinned["version"])
        return pinned

    def _snapshot(self, out: Path) -> dict[str, Any]:
        inputs = self.inputs
        attribution = timedelta(hours=inputs.settings.attribution_hours)
        events = learnt_from(inputs.good_events(self.checked["skipped"]), inputs.window, attribution)
        about = {
            "night": self.night.isoformat(),
            "until": inputs.window.held_out.isoformat(),
            **inputs.pinned,
        }
        made = write_night_store(
            out / "store", inputs.base, events, about, inputs.items if inputs.told else None
        )
        count = made.count("interactions")
        if not count:
            raise UsageError(
                f"the window of {self.night} holds no good day before {inputs.window.held_out:%Y-%m-%d}: "
                "there is nothing to learn from"
            )
        return {"events": count, "items": made.count("items"), "fingerprint": made.fingerprint()}

    def _train(self, out: Path) -> dict[str, Any]:
        inputs = self.inputs
        store = Store.open(self.ledger.folder("snapshot", self._fed) / "out" / "store")
        trained = train_challenger(
            store, inputs.releases, inputs.name, inputs.champion, self.overrides, self.progress
        )
        manifest = trained.release.manifest
        return {
            "name": inputs.name,
            "content": manifest.content_hash(),
            "stages": [
                {"stage": report.stage, "seconds": report.seconds, "figures": report.figures}
                for report in trained.stages
            ],
        }

    def _measure(self, out: Path) -> dict[str, Any]:
        inputs = self.inputs
        gate, seed = inputs.settings.gate, inputs.champion.config.training.seed
        events = inputs.good_events(self.checked["skipped"])
        measured, each = measure(
            inputs.champion,
            inputs.challenger(),
            shown_lists(events, inputs.window.held_out, gate.searches, seed),
            EventLog.of_events(events),
            inputs.base.relevance().collect(),
            code_drift(inputs.champion, events, inputs.window.held_out),
            gate,
            self.progress,
            seed,
            inputs.anchor(),
        )
        return {"measured": asdict(measured), "each": each.to_dict(as_series=False)}

    def _promote(self, verdict: Verdict, measured: Measured | None) -> dict[str, Any]:
        """Point to the challenger where it passes. Doing it twice is doing it once.

        A person who promotes what was refused begins anew: such a release is its own anchor.
        """
        inputs = self.inputs
        if verdict.promote and measured is not None:
            inputs.registry.set_anchor(
                inputs.name, inputs.name if is_better(measured) else inputs.pinned["anchor"]
            )
        if not verdict.promote or not inputs.settings.promote:
            return {"promoted": False, "champion": inputs.registry.champion()}
        now = inputs.registry.champion()
        if now not in (inputs.pinned["champion"], inputs.name):
            self.progress.say(
                f"'{now}' became the champion meanwhile: '{inputs.name}' is not promoted over it"
            )
            return {"promoted": False, "champion": now, "overtaken": True}
        inputs.registry.promote(inputs.name)
        return {"promoted": True, "champion": inputs.name}

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
            "simulated": self.inputs.base.simulated,
            "pinned": self.inputs.pinned,
            "window": {
                "start": self.inputs.window.start.isoformat(),
                "held_out": self.inputs.window.held_out.isoformat(),
                "end": self.inputs.window.end.isoformat(),
            },
            "data": {key: value for key, value in self.checked.items() if key != "checks"},
            "challenger": challenger,
            "measured": measured,
            "verdict": verdict.as_dict(),
            **promoted,
            "seconds": dict(self.seconds),
        }

    def _report(self, about: dict[str, Any]) -> dict[str, Any]:
        write_report(self.folder, about, self.inputs.settings)
        challenger = self.inputs.challenger() if about["challenger"] else None
        record_night(self.inputs.releases, challenger, about, self.inputs.config, self.progress)
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
