"""What width a search needs: ``onesearch bench widths``, on a trained release and its held-out queries.

Every query is searched with each width, with each adaptive search, and with very many beams to compare with.
All take turns at every query, so that a machine that drifts drifts for all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import SearchResult, ShopperState
from onesearch.errors import UsageError
from onesearch.evaluation.metrics import per_query
from onesearch.evaluation.query_files import read_searches
from onesearch.progress import Progress, SilentProgress
from onesearch.releases.release import Release
from onesearch.serving import steps
from onesearch.serving.pipeline import Pipeline

from onesearch_seq2seq.native.engine import NativeEngine
from onesearch_seq2seq.server import Seq2SeqServer

_WARM_UP = 5
_TOP = 10  # what the measures of quality look at


@dataclass
class _Way:
    """One way to search: its beams, and how many results it is to prove (0: it takes all beams)."""

    beams: int
    certify: int = 0
    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    proven: dict[int, list[bool]] = field(default_factory=dict)
    same: dict[int, list[bool]] = field(default_factory=dict)
    ranked: list[np.ndarray] = field(default_factory=list)
    pool: list[int] = field(default_factory=list)


def run(
    release: Path,
    queries: Path,
    form: str,
    widths: Sequence[int] = (16, 32, 64, 128, 256, 512),
    certify: Sequence[int] = (10, 50, 350),
    most: int = 4096,
    sample: int = 300,
    seed: int = 0,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Which searches are proven exact, and what that takes, on a trained release.

    Args:
        release: a release's folder, whose generator is the one in the box.
        queries: a file of held-out searches.
        form: columns of the file: homedepot, hm, parquet.
        widths: fixed widths to search with.
        certify: how many of the best each adaptive search is to prove.
        most: beams of the search that all are compared with, and the budget of the adaptive ones.
        sample: how many searches are drawn.
        seed: of the draw.
        threads: of the search.

    Returns:
        ``rows``: ``way`` (``128 beams``, ``certify 10``); ``width``, the beams taken in the mean; ``ms``,
        mean time of the generator, and ``cpu_ms``, that of all threads; ``over_128``, mean time over that of
        128 beams, and ``cpu_over_128``; ``decoded``, prefixes that went through the decoder in the mean (the
        native search tells); for each k of ``certify`` ``exact_k``, the share of the queries whose first k
        are proven, and ``same_k``, that of those whose first k are those of ``most`` beams; ``pool``,
        candidates handed to the reward in the mean; ``R@10`` and ``NDCG@10`` after the reward.
    """
    progress = progress or SilentProgress()
    opened = Release.open(release)
    pipeline = Pipeline.of_release(opened, Runtime(threads=threads))
    if not isinstance(pipeline.generator, Seq2SeqServer):
        raise UsageError(f"bench widths: the generator of '{opened.name}' is not the one in the box")
    found = read_searches(queries, form, opened.index.items["item_id"].to_list(), sample, seed)
    ways = [*(_Way(beams) for beams in sorted({*widths, 128})), *(_Way(most, k) for k in certify)]
    with progress.task("searching", len(found)) as task:
        for number, text in enumerate(found.queries[:_WARM_UP] + found.queries):
            _ask(pipeline, text, ways, most, certify, number >= _WARM_UP)
            task.advance(int(number >= _WARM_UP))
    base = next(way for way in ways if way.beams == 128 and not way.certify)
    relevant = found.relevant
    rows = []
    for way in ways:
        depth = max(len(row) for row in way.ranked)
        ranked = np.full((len(found), max(depth, _TOP)), -1, np.int32)
        for at, row in enumerate(way.ranked):
            ranked[at, : len(row)] = row
        quality = per_query(ranked, relevant, (_TOP,))
        rows.append(
            {
                "way": f"certify {way.certify}" if way.certify else f"{way.beams} beams",
                "width": round(float(np.mean(way.widths)), 1),
                "ms": round(float(np.mean(way.ms)), 2),
                "cpu_ms": round(float(np.mean(way.cpu_ms)), 2),
                "over_128": round(float(np.mean(way.ms) / np.mean(base.ms)), 3),
                "cpu_over_128": round(float(np.mean(way.cpu_ms) / np.mean(base.cpu_ms)), 3),
                "decoded": round(float(np.mean(way.decoded)), 1) if way.decoded else None,
                **{f"exact_{k}": _share(way.proven.get(k)) for k in certify},
                **{f"same_{k}": _share(way.same.get(k)) for k in certify},
                "pool": round(float(np.mean(way.pool)), 1),
                **{name: round(float(quality[name].mean()), 4) for name in ("R@10", "NDCG@10")},
            }
        )
    return {"rows": rows, "searches": len(found), "most": most, "engine": pipeline.generator.engine.name}


def _ask(
    pipeline: Pipeline, text: str, ways: Sequence[_Way], most: int, certify: Sequence[int], counts: bool
) -> None:
    states = [ShopperState()]
    vectors, sids = steps.encode(pipeline.tokenizer, [text])
    prompt = steps.prompt(pipeline.user_encoder, states, [text], sids)
    live, generator = pipeline.context.index.live, pipeline.generator
    wide = generator.search(prompt, vectors, live, most)
    for way in ways:
        began, before = time.perf_counter(), time.process_time()
        found = generator.search(prompt, vectors, live, way.beams, certify=way.certify)
        took, spent = time.perf_counter() - began, time.process_time() - before
        if not counts:
            continue
        way.ms.append(1000 * took)
        way.cpu_ms.append(1000 * spent)
        way.widths.append(way.beams if found.widths is None else int(found.widths[0]))
        engine = generator.engine if isinstance(generator, Seq2SeqServer) else None
        if isinstance(engine, NativeEngine) and engine.account:
            way.decoded.append(sum(engine.account.rows))
        for k in certify:
            if k <= (way.certify or way.beams):
                way.proven.setdefault(k, []).append(proven(found, k))
                same = np.array_equal(found.leaves[0, :k], wide.leaves[0, :k])
                way.same.setdefault(k, []).append(same)
        candidates = live.expand(found.leaves, found.log_probs)
        ranked = steps.rank(pipeline.reward, [text], vectors, states, candidates)
        way.ranked.append(candidates.items[0, steps.page(ranked, candidates, 0, _TOP, 0)])
        way.pool.append(int((candidates.items[0] >= 0).sum()))


def proven(found: SearchResult, k: int) -> bool:
    """Whether no wider beam could change the first ``k`` of the first query."""
    if found.dropped_mass[0] == -np.inf:
        return True
    return found.log_probs.shape[1] >= k and bool(found.log_probs[0, k - 1] >= found.dropped[0])


def _share(values: list[bool] | None) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
