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
from onesearch.evaluation.known import Known
from onesearch.evaluation.metrics import Estimate, estimates, paired, per_query
from onesearch.evaluation.searches import Searches, read_searches
from onesearch.evaluation.systems import Run, run_baselines, run_pipeline
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
class Evaluation:
    """Everything that was measured.

    Attributes:
        release, queries: what was evaluated on what. store: where the baselines learnt, None without any.
        searches: number of searches; different: of different queries among them.
        missing, skipped: see :class:`onesearch.evaluation.searches.Searches`.
        runs: of each system. measured: its metrics. comparisons: of systems with each other.
        notes: what a reader should know.
    """

    release: str
    queries: str
    store: str | None
    searches: int
    different: int
    missing: int
    skipped: int
    runs: dict[str, Run]
    measured: dict[str, dict[str, Estimate]]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """``systems``: name → metrics with ``_low`` and ``_high``, ``beams``, ``p50_ms``; and the rest."""
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
            "queries": self.queries,
            "store": self.store,
            "searches": self.searches,
            "different_queries": self.different,
            "missing_items": self.missing,
            "skipped_queries": self.skipped,
            "systems": systems,
            "paired": {f"{c.ours} - {c.theirs}": _flat(c.differences) for c in self.comparisons},
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
) -> Evaluation:
    """Search, measure and compare.

    Args:
        queries, form: see :func:`onesearch.evaluation.searches.read_searches`.
        against: baselines. store: what they learn from; None: the release's training store.
        sample, seed: draw so many searches.

    Raises:
        UsageError: the query file or store is missing or does not fit.
    """
    searches = read_searches(queries, form, release.index.items["item_id"].to_list(), sample, seed)
    opened = _store_of(release, store) if against else None
    pipeline = Pipeline.of_release(release, runtime or Runtime(threads=release.config.serving.threads))
    different = list(dict.fromkeys(searches.queries))
    runs = run_pipeline(pipeline, different, progress)
    notes: list[str] = []
    if opened is not None:
        if opened.fingerprint() != release.manifest.store:
            notes.append(f"{opened.path} is not, or no longer, the store that the release was trained on")
        if opened.simulated:
            notes.append("the store is simulated: these figures are of made-up shoppers")
        with progress.task("reading the store"):
            known = Known.of(opened, pipeline.context.index, pipeline.tokenizer, release.config.training)
        runs |= run_baselines(against, known, different, progress)
    if searches.missing:
        notes.append(f"{searches.missing} relevant items are not in the catalogue; they count as misses")
    return summarise(release.name, queries, opened, searches, different, runs, notes)


def summarise(
    release: str,
    queries: Path,
    store: Store | None,
    searches: Searches,
    different: Sequence[str],
    runs: dict[str, Run],
    notes: Sequence[str],
) -> Evaluation:
    """Metrics and comparisons of runs over the different queries; a search counts as often as it was made."""
    row_of = {query: row for row, query in enumerate(different)}
    rows = np.array([row_of[query] for query in searches.queries])
    each = {name: per_query(run.ranked[rows], searches.relevant) for name, run in runs.items()}
    pairs = [("onesearch", name) for name in runs if name != "onesearch"] + [("guided", "prior_only")]
    return Evaluation(
        release=release,
        queries=str(queries),
        store=None if store is None else str(store.path),
        searches=len(searches),
        different=len(different),
        missing=searches.missing,
        skipped=searches.skipped,
        runs=runs,
        measured={name: estimates(measured) for name, measured in each.items()},
        comparisons=tuple(Comparison(a, b, paired(each[a], each[b])) for a, b in pairs),
        notes=tuple(notes),
    )


def _store_of(release: Release, given: Path | None) -> Store:
    path = given if given is not None else Path(release.manifest.store_path)
    if given is None and not (release.manifest.store_path and path.is_dir()):
        raise UsageError(
            f"the baselines need the store that release '{release.name}' was trained on"
            f" ({release.manifest.store_path or 'not recorded'}): name it with --store, or give --against ''"
        )
    return Store.open(path)


def _flat(measured: dict[str, Estimate]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, estimate in measured.items():
        flat[name] = round(estimate.value, 5)
        flat[f"{name}_low"] = round(estimate.low, 5)
        flat[f"{name}_high"] = round(estimate.high, 5)
    return flat
