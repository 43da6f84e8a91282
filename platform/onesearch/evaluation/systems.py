"""Runs systems on searches: the release's own pipeline, stage by stage, and the baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onesearch.contracts.generator import Guide
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import UsageError
from onesearch.evaluation.asked import Asked
from onesearch.evaluation.baselines import Dense, Hybrid, Lexical, Parts, Popular, Ranker
from onesearch.evaluation.cascade import Cascade
from onesearch.evaluation.known import Known
from onesearch.evaluation.metrics import DEPTH
from onesearch.progress import Progress
from onesearch.serving.pipeline import Pipeline

BASELINES = ("bm25", "dense", "hybrid", "popular", "cascade")
OWN = ("onesearch", "guided", "generator", "prior_only")
UNPERSONALISED = "unpersonalised"
BEFORE, BEFORE_GUIDED = "before", "before_guided"


@dataclass(frozen=True)
class Run:
    """What a system answered.

    Attributes:
        ranked: i32[Q, 350], item numbers of each query, best first; -1 past the last.
        ms: f64[Q], time of each query, asked alone.
        beams: width of the search; None for systems without beams.
        tuned: what was tuned, and on what.
        personal: whether the rows are of queries asked by shoppers; else of queries, whoever asks.
        reward: f64[Q], mean reward of the first ten, where the release's reward was asked.
    """

    ranked: np.ndarray
    ms: np.ndarray
    beams: int | None = None
    tuned: dict[str, Any] = field(default_factory=dict)
    personal: bool = False
    reward: np.ndarray | None = None


def run_pipeline(
    pipeline: Pipeline,
    queries: Sequence[str],
    progress: Progress,
    states: Sequence[ShopperState] | None = None,
    ablations: bool = True,
) -> dict[str, Run]:
    """Run the release itself: reranked, before the reward, without the prior, and without the network.

    Every query is searched alone, as a shopper's is: int8 graphs scale by batch, so company changes results.
    ``states`` are of the shoppers who ask; nobody is known without them. Not ``ablations``: neither without
    the prior nor without the network.
    """
    states = [ShopperState()] * len(queries) if states is None else states
    runs = _reranked(pipeline, queries, states, progress)
    for guide in ("generator", "prior_only") if ablations else ():
        runs[guide] = _recalled(pipeline, queries, states, guide, progress)
    return runs


def run_before(
    pipeline: Pipeline,
    queries: Sequence[str],
    states: Sequence[ShopperState],
    item_ids: Sequence[str],
    progress: Progress,
) -> dict[str, Run]:
    """Another release as served and before its reward, in the item numbers of the catalogue ``item_ids``.

    Its items that this catalogue lacks are left out.
    """
    number = {item: at for at, item in enumerate(item_ids)}
    own = pipeline.context.index.items["item_id"].to_list()
    # One more than there are items: what is behind the last stays so.
    renumbered = np.array([*(number.get(item, -1) for item in own), -1], np.int32)
    runs = _reranked(pipeline, queries, states, progress, "before")
    told = {BEFORE: runs["onesearch"], BEFORE_GUIDED: runs["guided"]}
    for name, run in told.items():
        ranked = _blank(queries)
        for row, items in enumerate(run.ranked):
            _fill(ranked, row, renumbered[items])
        told[name] = replace(run, ranked=ranked)
    return told


def run_unpersonalised(pipeline: Pipeline, queries: Sequence[str], progress: Progress) -> Run:
    """The release as served, asked by shoppers whom it does not know."""
    strangers = [ShopperState()] * len(queries)
    return replace(_reranked(pipeline, queries, strangers, progress)["onesearch"], personal=False)


def _reranked(
    pipeline: Pipeline,
    queries: Sequence[str],
    states: Sequence[ShopperState],
    progress: Progress,
    name: str = "onesearch, guided",
) -> dict[str, Run]:
    own, guided = _blank(queries), _blank(queries)
    own_ms, guided_ms, after, before = np.zeros((4, len(queries)))
    with progress.task(name, total=len(queries)) as task:
        for row, (query, state) in enumerate(zip(queries, states, strict=True)):
            began = time.perf_counter()
            retrieved = pipeline.candidates([query], [state])
            guided_ms[row] = 1e3 * (time.perf_counter() - began)
            order, totals, _ = pipeline.rank([query], [state], retrieved)
            own_ms[row] = 1e3 * (time.perf_counter() - began)
            items = retrieved.candidates.items[0]
            _fill(guided, row, items)
            _fill(own, row, items[order[0]])
            after[row], before[row] = _first_ten(totals[0, order[0]]), _first_ten(totals[0])
            task.advance()
    return {
        "onesearch": Run(own, own_ms, pipeline.beams, personal=True, reward=after),
        "guided": Run(guided, guided_ms, pipeline.beams, personal=True, reward=before),
    }


def _first_ten(totals: np.ndarray) -> float:
    """Mean reward of the first ten of an order; 0 of nothing."""
    real = totals[np.isfinite(totals)][:10]
    return float(real.mean()) if len(real) else 0.0


def _recalled(
    pipeline: Pipeline,
    queries: Sequence[str],
    states: Sequence[ShopperState],
    guide: Guide,
    progress: Progress,
) -> Run:
    ranked, ms = _blank(queries), np.zeros(len(queries))
    with progress.task(guide, total=len(queries)) as task:
        for row, (query, state) in enumerate(zip(queries, states, strict=True)):
            began = time.perf_counter()
            found = pipeline.candidates([query], [state], guide=guide).candidates
            ms[row] = 1e3 * (time.perf_counter() - began)
            _fill(ranked, row, found.items[0])
            task.advance()
    return Run(ranked, ms, pipeline.beams, personal=True)


def run_ranker(name: str, ranker: Ranker, asked: Asked, progress: Progress) -> Run:
    """A baseline: by query, or, where it looks at who asks, by query and shopper."""
    queries = asked.queries if ranker.personal else asked.texts
    states = asked.states if ranker.personal else [ShopperState()] * len(queries)
    ranked, ms = _blank(queries), np.zeros(len(queries))
    with progress.task(name, total=len(queries)) as task:
        for row, (query, state) in enumerate(zip(queries, states, strict=True)):
            began = time.perf_counter()
            found = ranker.rank(query, state)
            ms[row] = 1e3 * (time.perf_counter() - began)
            _fill(ranked, row, found)
            task.advance()
    return Run(ranked, ms, None, ranker.tuned, ranker.personal)


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


def run_baselines(names: Sequence[str], known: Known, asked: Asked, progress: Progress) -> dict[str, Run]:
    """Several baselines over one store."""
    parts = Parts(known)
    return {name: run_ranker(name, baseline(name, parts, progress), asked, progress) for name in names}


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
