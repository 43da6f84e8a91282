"""What int8 costs in quality: ``onesearch bench int8``, on a trained release and a file of searches.

The release's network is exported in both precisions, and each search is made with either, over the same
prompt and tree. Differences are paired by search, so that what one search finds more easily than another
cancels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import Role
from onesearch.contracts.user_encoder import ShopperState
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.asked import asked_by, states_of_store
from onesearch.evaluation.metrics import RESAMPLES, Estimate, bootstrap, per_query
from onesearch.evaluation.query_files import read_searches
from onesearch.progress import Progress, SilentProgress
from onesearch.releases.release import Release
from onesearch.serving import steps
from onesearch.serving.pipeline import Pipeline

from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.graphs import Precision
from onesearch_seq2seq.learner import Seq2SeqLearner
from onesearch_seq2seq.server import Seq2SeqServer

_TOP = 10
_PRECISIONS: tuple[Precision, Precision] = ("fp32", "int8")
_METRICS = ("R@10", "HR@10", "MRR@10", "NDCG@10")


def run(
    release: Path,
    queries: Path,
    form: str,
    beams: int = 128,
    sample: int | None = None,
    seed: int = 0,
    threads: int = 1,
    store: Path | None = None,
    reward: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What int8 changes in the lists found, beside float32, paired by search.

    Args:
        release: a release's folder, whose generator is the one in the box.
        queries: a file of searches.
        form: columns of the file: homedepot, hm, parquet.
        beams: of every search.
        sample: how many searches are drawn; all, where nothing is said.
        seed: of the draw.
        threads: of a search.
        store: where the shoppers of the searches are known from; without it all are strangers.
        reward: also compare the order that the release's reward makes of what the beams reached.

    Returns:
        ``rows``: for the generator's own order and for the reward's behind it (``order``), and each
        ``metric``, the means ``fp32`` and ``int8``, the ``change`` in between with its 95 % interval ``low``
        and ``high`` (bootstrap over searches), and the same as a share of the mean of float32:
        ``relative``, ``relative_low``, ``relative_high``.
        ``overlap_10``: share of float32's first ten SIDs that int8 has among its own (with ``_low`` and
        ``_high``). ``same_10``: share of the searches with the same ten in the same order. ``searches``.
        ``different_queries``. ``illegal``: SIDs found that no item has. ``log_prob_error``: median of
        |int8 - fp32| over SIDs that both found.
    """
    progress = progress or SilentProgress()
    opened = Release.open(release)
    learner = opened.learner("generator")
    if not isinstance(learner, Seq2SeqLearner) or learner.model is None:
        raise UsageError(f"bench int8: the generator of '{opened.name}' is not the one in the box")
    searches = read_searches(queries, form, opened.index.items["item_id"].to_list(), sample, seed)
    asked = asked_by(searches, states_of_store(Store.open(store)) if store else None)
    pipeline = _pipeline(opened, Runtime(threads=threads), reward)
    with tempfile.TemporaryDirectory() as folder:
        servers = []
        for precision in _PRECISIONS:
            export(learner.model, learner.config, Path(folder) / precision, precision)
            own = Path(folder) / precision
            servers.append(Seq2SeqServer.open(own, pipeline.context, learner.config))
        found = _Found(len(asked.queries), ("generator", "reward") if reward else ("generator",))
        with progress.task("searching", len(asked.queries)) as task:
            for row, (query, state) in enumerate(zip(asked.queries, asked.states, strict=True)):
                found.ask(row, pipeline, servers, query, state, beams)
                task.advance()
    relevant = searches.relevant
    rows = []
    for order, lists in found.lists.items():
        whole, small = (per_query(ranked[asked.rows], relevant, (_TOP,)) for ranked in lists)
        for metric in _METRICS:
            rows.append({"order": order, "metric": metric, **compared(whole[metric], small[metric])})
    overlap = bootstrap(found.shared[asked.rows, None] / np.maximum(found.wanted[asked.rows, None], 1))[0]
    return {
        "rows": rows,
        **_told("overlap_10", overlap),
        "same_10": round(float(found.same[asked.rows].mean()), 4),
        "searches": len(searches),
        "different_queries": len(asked.texts),
        "illegal": found.illegal,
        "log_prob_error": round(float(np.median(found.errors)), 5) if found.errors else None,
        "beams": beams,
        "engine": servers[0].engine.name,
        "release": opened.name,
    }


def _pipeline(release: Release, runtime: Runtime, reward: bool) -> Pipeline:
    """The release's components, the reward only where it is wanted."""
    if reward:
        return Pipeline.of_release(release, runtime)
    context = release.context(runtime)
    roles: tuple[Role, ...] = ("tokenizer", "user_encoder", "generator")
    parts: dict[str, Any] = {role: release.server(role, context) for role in roles}
    return Pipeline(context, **parts)


class _Found:
    """What both precisions found for each of the different things asked."""

    def __init__(self, asked: int, orders: tuple[str, ...]) -> None:
        self.lists = {
            order: tuple(np.full((asked, _TOP), -1, np.int32) for _ in _PRECISIONS) for order in orders
        }
        self.shared, self.wanted = np.zeros(asked), np.zeros(asked)
        self.same = np.zeros(asked, bool)
        self.errors: list[float] = []
        self.illegal = 0

    def ask(
        self,
        row: int,
        pipeline: Pipeline,
        servers: list[Seq2SeqServer],
        query: str,
        state: ShopperState,
        beams: int,
    ) -> None:
        """Search with each server over one prompt."""
        vectors, sids = steps.encode(pipeline.tokenizer, [query])
        prompt = steps.prompt(pipeline.user_encoder, [state], [query], sids)
        live = pipeline.context.index.live
        results = []
        for at, server in enumerate(servers):
            result = server.search(prompt, vectors, live, beams)
            real = result.leaves[0] >= 0
            self.illegal += int((~np.isfinite(live.log_mass[-1][result.leaves[0, real]])).sum())
            candidates = live.expand(result.leaves, result.log_probs)
            own = candidates.items[0, :_TOP]
            self.lists["generator"][at][row, : len(own)] = own
            if pipeline.reward is not None:
                ranked = steps.rank(pipeline.reward, [query], vectors, [state], candidates)
                best = candidates.items[0, steps.page(ranked, candidates, 0, _TOP, 0)]
                self.lists["reward"][at][row, : len(best)] = best
            results.append((result.leaves[0, real], result.log_probs[0, real]))
        (whole, of_whole), (small, of_small) = results
        first = whole[:_TOP]
        self.wanted[row] = len(first)
        self.shared[row] = len(np.intersect1d(first, small[:_TOP]))
        self.same[row] = np.array_equal(first, small[:_TOP])
        _, left, right = np.intersect1d(whole, small, return_indices=True)
        self.errors += np.abs(of_whole[left] - of_small[right]).tolist()


def compared(whole: np.ndarray, small: np.ndarray) -> dict[str, float]:
    """Means of a metric of each search f64[S] with float32 and int8, and their paired difference, absolute
    and as a share of float32's mean, with 95 % intervals."""
    change = bootstrap((small - whole)[:, None])[0]
    share = relative_change(whole, small)
    return {
        "fp32": round(float(whole.mean()), 5),
        "int8": round(float(small.mean()), 5),
        **_told("change", change, ("change", "low", "high")),
        **_told("relative", share),
    }


def relative_change(whole: np.ndarray, small: np.ndarray, seed: int = 20) -> Estimate:
    """The difference of the means as a share of ``whole``'s, with the interval of its paired bootstrap."""
    if not whole.mean():
        return Estimate(0.0, 0.0, 0.0)
    random = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for at in range(RESAMPLES):
        drawn = random.integers(0, len(whole), len(whole))
        base = whole[drawn].mean()
        ratios[at] = (small[drawn].mean() - base) / base if base else 0.0
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(float((small.mean() - whole.mean()) / whole.mean()), float(low), float(high))


def _told(name: str, estimate: Estimate, names: tuple[str, str, str] | None = None) -> dict[str, float]:
    value, low, high = names or (name, f"{name}_low", f"{name}_high")
    return {value: round(estimate.value, 5), low: round(estimate.low, 5), high: round(estimate.high, 5)}
