"""Runs systems on searches: the release's own pipeline, stage by stage, and the baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onesearch.contracts.generator import Guide
from onesearch.errors import UsageError
from onesearch.evaluation.baselines import Dense, Hybrid, Lexical, Parts, Popular, Ranker
from onesearch.evaluation.cascade import Cascade
from onesearch.evaluation.known import Known
from onesearch.evaluation.metrics import DEPTH
from onesearch.progress import Progress
from onesearch.serving.pipeline import Pipeline

BASELINES = ("bm25", "dense", "hybrid", "popular", "cascade")
OWN = ("onesearch", "guided", "generator", "prior_only")


@dataclass(frozen=True)
class Run:
    """What a system answered.

    Attributes:
        ranked: i32[Q, 350], item numbers of each query, best first; -1 past the last.
        ms: f64[Q], time of each query, asked alone.
        beams: width of the search; None for systems without beams.
        tuned: what was tuned, and on what.
    """

    ranked: np.ndarray
    ms: np.ndarray
    beams: int | None = None
    tuned: dict[str, Any] = field(default_factory=dict)


def run_pipeline(pipeline: Pipeline, queries: Sequence[str], progress: Progress) -> dict[str, Run]:
    """Run the release itself: reranked, before the reward, without the prior, and without the network.

    Every query is searched alone, as a shopper's is: int8 graphs scale by batch, so company changes results.
    """
    runs = _reranked(pipeline, queries, progress)
    for guide in ("generator", "prior_only"):
        runs[guide] = _recalled(pipeline, queries, guide, progress)
    return runs


def _reranked(pipeline: Pipeline, queries: Sequence[str], progress: Progress) -> dict[str, Run]:
    own, guided = _blank(queries), _blank(queries)
    own_ms, guided_ms = np.zeros(len(queries)), np.zeros(len(queries))
    with progress.task("onesearch, guided", total=len(queries)) as task:
        for row, query in enumerate(queries):
            began = time.perf_counter()
            retrieved = pipeline.candidates([query])
            guided_ms[row] = 1e3 * (time.perf_counter() - began)
            order, _, _ = pipeline.rank([query], None, retrieved)
            own_ms[row] = 1e3 * (time.perf_counter() - began)
            items = retrieved.candidates.items[0]
            _fill(guided, row, items)
            _fill(own, row, items[order[0]])
            task.advance()
    return {
        "onesearch": Run(own, own_ms, pipeline.beams),
        "guided": Run(guided, guided_ms, pipeline.beams),
    }


def _recalled(pipeline: Pipeline, queries: Sequence[str], guide: Guide, progress: Progress) -> Run:
    ranked, ms = _blank(queries), np.zeros(len(queries))
    with progress.task(guide, total=len(queries)) as task:
        for row, query in enumerate(queries):
            began = time.perf_counter()
            found = pipeline.candidates([query], guide=guide).candidates
            ms[row] = 1e3 * (time.perf_counter() - began)
            _fill(ranked, row, found.items[0])
            task.advance()
    return Run(ranked, ms, pipeline.beams)


def run_ranker(name: str, ranker: Ranker, queries: Sequence[str], progress: Progress) -> Run:
    """A baseline."""
    ranked, ms = _blank(queries), np.zeros(len(queries))
    with progress.task(name, total=len(queries)) as task:
        for row, query in enumerate(queries):
            began = time.perf_counter()
            found = ranker.rank(query)
            ms[row] = 1e3 * (time.perf_counter() - began)
            _fill(ranked, row, found)
            task.advance()
    return Run(ranked, ms, None, ranker.tuned)


def baseline(name: str, parts: Parts, progress: Progress) -> Ranker:
    """Make one of :data:`BASELINES`, fitted and tuned."""
    makers: dict[str, Callable[[], Ranker]] = {
        "bm25": lambda: Lexical(parts),
        "dense": lambda: Dense(parts),
        "hybrid": lambda: Hybrid(parts, progress),
        "popular": lambda: Popular(parts),
        "cascade": lambda: Cascade(parts, progress),
    }
    return makers[name]()


def run_baselines(
    names: Sequence[str], known: Known, queries: Sequence[str], progress: Progress
) -> dict[str, Run]:
    """Several baselines over one store."""
    parts = Parts(known)
    return {name: run_ranker(name, baseline(name, parts, progress), queries, progress) for name in names}


def check_names(text: str) -> tuple[str, ...]:
    """``bm25,dense`` → names. Raises UsageError naming the one that is not known."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--against {name}: known are {', '.join(BASELINES)}")
    return names


def _blank(queries: Sequence[str]) -> np.ndarray:
    return np.full((len(queries), DEPTH), -1, dtype=np.int32)


def _fill(ranked: np.ndarray, row: int, items: np.ndarray) -> None:
    real = items[items >= 0][:DEPTH]
    ranked[row, : len(real)] = real
