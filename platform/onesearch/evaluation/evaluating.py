"""A release on held-out searches, beside baselines: the whole of ``onesearch evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.asked import States, asked_by, states_of_store, states_of_url
from onesearch.evaluation.guard_rails import GuardRails, reward_hacking
from onesearch.evaluation.known import Known
from onesearch.evaluation.metrics import Estimate, estimates, paired, per_query
from onesearch.evaluation.propensity import CLIP, fade, weighted
from onesearch.evaluation.query_files import read_searches
from onesearch.evaluation.searches import Searches
from onesearch.evaluation.systems import (
    BEFORE_GUIDED,
    UNPERSONALISED,
    Run,
    run_baselines,
    run_before,
    run_pipeline,
    run_unpersonalised,
)
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline


@dataclass(frozen=True)
class Comparison:
    """Mean differences, ``ours`` minus ``theirs``, over the same searches."""

    ours: str
    theirs: str
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class OfShoppersWithHistory:
    """The searches whose shopper is known from before.

    Attributes:
        searches: how many there are; where there are none, nothing is measured.
        measured, comparisons: as of an :class:`Evaluation`, on these searches.
    """

    searches: int
    measured: dict[str, dict[str, Estimate]]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured.

    Attributes:
        release, queries: what was evaluated on what. before: the release it is compared with, if any.
        store: where the baselines learnt, None without any.
        states: where shoppers are known from, None where nobody is.
        searches: number of searches; different: of different queries among them.
        missing, skipped: see :class:`onesearch.evaluation.searches.Searches`.
        runs: of each system. measured: its metrics. comparisons: of systems with each other.
        history: the same on searches of known shoppers.
        guard_rails: of each system, see :meth:`onesearch.evaluation.guard_rails.GuardRails.figures`.
        hacking: see :func:`onesearch.evaluation.guard_rails.reward_hacking`.
        propensity: what a log with propensities says of each system
            (:mod:`onesearch.evaluation.propensity`); empty for other files.
        notes: what a reader should know.
    """

    release: str
    before: str | None
    queries: str
    store: str | None
    states: str | None
    searches: int
    different: int
    missing: int
    skipped: int
    runs: dict[str, Run]
    measured: dict[str, dict[str, Estimate]]
    comparisons: tuple[Comparison, ...]
    history: OfShoppersWithHistory
    guard_rails: dict[str, dict[str, float]]
    hacking: dict[str, Any]
    propensity: dict[str, Any]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """``systems``: name → metrics with ``_low`` and ``_high``, ``beams``, ``p50_ms``; and the rest.

        ``history`` holds ``searches``, ``systems`` and ``paired`` of the searches of known shoppers.
        """
        systems: dict[str, Any] = {}
        for name, run in self.runs.items():
            p50, p99 = np.percentile(run.ms, [50, 99])
            systems[name] = _flat(self.measured[name]) | {
                "beams": run.beams,
                "p50_ms": round(float(p50), 3),
                "p99_ms": round(float(p99), 3),
            }
        return {
            "release": self.release,
            "before": self.before,
            "queries": self.queries,
            "store": self.store,
            "states": self.states,
            "searches": self.searches,
            "different_queries": self.different,
            "missing_items": self.missing,
            "skipped_queries": self.skipped,
            "systems": systems,
            "paired": _paired(self.comparisons),
            "history": {
                "searches": self.history.searches,
                "systems": {name: _flat(measured) for name, measured in self.history.measured.items()},
                "paired": _paired(self.history.comparisons),
            },
            "guard_rails": self.guard_rails,
            "reward_hacking": self.hacking,
            "propensity": self.propensity,
            "tuned": {name: run.tuned for name, run in self.runs.items() if run.tuned},
            "notes": list(self.notes),
        }


def evaluate(
    release: Release,
    queries: Path,
    form: str,
    against: Sequence[str],
    store: Path | None,
    sample: int | None,
    seed: int,
    progress: Progress,
    runtime: Runtime | None = None,
    states: str | None = None,
    beams: int | None = None,
    certify: int | None = None,
    before: Release | None = None,
    ablations: bool = True,
) -> Evaluation:
    """Search, measure and compare.

    Searches that name a shopper are made with what is known of them, and, if that is anything, once more by
    a stranger (system ``unpersonalised``). Shoppers are known from the store's log up to the search, if the
    query file says when it was, or from a store of states.

    Args:
        queries, form: see :func:`onesearch.evaluation.searches.read_searches`.
        against: baselines. store: what they, and the shoppers' states, come from; None: the release's
            training store.
        sample, seed: draw so many searches.
        states: URL of a store of states (:func:`onesearch.shoppers.opening.open_states`) that rules over the
            log.
        beams, certify: in place of the releases' own (``[serving]``).
        before: another release, asked the same: as served (system ``before``) and before its reward
            (``before_guided``).
        ablations: whether to run the network alone, the prior alone, and what strangers get, too.

    Raises:
        UsageError: the query file or a store is missing or does not fit.
    """
    searches = read_searches(queries, form, release.index.items["item_id"].to_list(), sample, seed)
    opened = _store_of(release, store) if against or store is not None else None
    notes: list[str] = []
    with progress.task("reading what is known of shoppers"):
        source, look_up = _shoppers(release, searches, opened, states, notes)
        asked = asked_by(searches, look_up)
    runtime = runtime or Runtime(threads=release.config.serving.threads)
    pipeline = _pipeline(release, runtime, beams, certify)
    runs = run_pipeline(pipeline, asked.queries, progress, asked.states, ablations)
    if before is not None:
        other = _pipeline(before, runtime, beams, certify)
        ids = release.index.items["item_id"].to_list()
        runs |= run_before(other, asked.queries, asked.states, ids, progress)
    if ablations and asked.known.any():
        runs[UNPERSONALISED] = run_unpersonalised(pipeline, asked.texts, progress)
    if opened is not None:
        if opened.fingerprint() != release.manifest.store:
            notes.append(f"{opened.path} is not, or no longer, the store that the release was trained on")
        if opened.simulated:
            notes.append("the store is simulated: these figures are of made-up shoppers")
    if opened is not None and against:
        with progress.task("reading the store"):
            known = Known.of(opened, pipeline.context.index, pipeline.tokenizer, release.config.training)
        runs |= run_baselines(against, known, asked, progress)
    if searches.missing:
        notes.append(f"{searches.missing} relevant items are not in the catalogue; they count as misses")
    rows = {name: asked.rows if run.personal else asked.text_rows for name, run in runs.items()}
    judged = np.flatnonzero([len(truth.items) > 0 for truth in searches.relevant])
    if not len(judged):
        raise UsageError(f"{queries}: nothing was clicked or ordered in any of its searches")
    relevant = [searches.relevant[row] for row in judged]
    each = {name: per_query(run.ranked[rows[name][judged]], relevant) for name, run in runs.items()}
    measured, comparisons = _summary(each)
    rails = GuardRails(release.index)
    hacking = _hacking(runs, asked.rows[judged], each)
    if hacking.get("hacked"):
        notes.append("the reward went up and the held-out quality down: it is being pleased, not the shopper")
    with_history = np.flatnonzero(asked.known[judged])
    of_known = {
        name: {metric: values[with_history] for metric, values in one.items()} for name, one in each.items()
    }
    return Evaluation(
        release=release.name,
        before=None if before is None else before.name,
        queries=str(queries),
        store=None if opened is None or not against else str(opened.path),
        states=source,
        searches=len(judged),
        different=len(asked.texts),
        missing=searches.missing,
        skipped=searches.skipped,
        runs=runs,
        measured=measured,
        comparisons=comparisons,
        history=OfShoppersWithHistory(
            len(with_history), *(_summary(of_known) if len(with_history) else ({}, ()))
        ),
        guard_rails={name: rails.figures(run.ranked, rows[name]) for name, run in runs.items()},
        hacking=hacking,
        propensity=_weighed(searches, runs, rows),
        notes=tuple(notes),
    )


def _pipeline(release: Release, runtime: Runtime, beams: int | None, certify: int | None) -> Pipeline:
    pipeline = Pipeline.of_release(release, runtime)
    pipeline.beams = pipeline.beams if beams is None else beams
    pipeline.certify = pipeline.certify if certify is None else certify
    return pipeline


def _hacking(
    runs: dict[str, Run], rows: np.ndarray, each: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    after, before = runs["onesearch"].reward, runs["guided"].reward
    if after is None or before is None:
        return {}
    return reward_hacking(after[rows], before[rows], each["onesearch"], each["guided"])


def _weighed(searches: Searches, runs: dict[str, Run], rows: dict[str, np.ndarray]) -> dict[str, Any]:
    if searches.logged is None:
        return {}
    eta, clicks = fade(searches.logged)
    systems = {name: weighted(searches.logged, run.ranked[rows[name]], eta) for name, run in runs.items()}
    return {
        "searches": len(searches),
        "fade": eta,
        "explored_clicks": clicks,
        "clip": CLIP,
        "systems": systems,
    }


def _summary(
    each: dict[str, dict[str, np.ndarray]],
) -> tuple[dict[str, dict[str, Estimate]], tuple[Comparison, ...]]:
    """Means of each system, and its differences from the release, from metrics of each search."""
    pairs = [("onesearch", name) for name in each if name != "onesearch"]
    pairs += [pair for pair in (("guided", "prior_only"), ("guided", BEFORE_GUIDED)) if pair[1] in each]
    measured = {name: estimates(values) for name, values in each.items()}
    return measured, tuple(Comparison(a, b, paired(each[a], each[b])) for a, b in pairs)


def _shoppers(
    release: Release, searches: Searches, store: Store | None, url: str | None, notes: list[str]
) -> tuple[str | None, States | None]:
    """Where shoppers are known from, and how to look them up; a note where they should be and are not."""
    if not any(searches.user_ids):
        return None, None
    if url is not None:
        return states_of_url(url)
    trained_on = Path(release.manifest.store_path)
    if store is None and not (release.manifest.store_path and trained_on.is_dir()):
        notes.append(
            "shoppers are searched for as strangers: the store that the release was trained on"
            f" ({release.manifest.store_path or 'not recorded'}) is not there; name it with --store, or a"
            " store of states with --states"
        )
        return None, None
    store = store or Store.open(trained_on)
    return str(store.path), states_of_store(store)


def _store_of(release: Release, given: Path | None) -> Store:
    path = given if given is not None else Path(release.manifest.store_path)
    if given is None and not (release.manifest.store_path and path.is_dir()):
        raise UsageError(
            f"the baselines need the store that release '{release.name}' was trained on"
            f" ({release.manifest.store_path or 'not recorded'}): name it with --store, or give --against ''"
        )
    return Store.open(path)


def _paired(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    return {f"{one.ours} - {one.theirs}": _flat(one.differences) for one in comparisons}


def _flat(measured: dict[str, Estimate]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, estimate in measured.items():
        flat[name] = round(estimate.value, 5)
        flat[f"{name}_low"] = round(estimate.low, 5)
        flat[f"{name}_high"] = round(estimate.high, 5)
    return flat
