"""Catalogues of any size: ``onesearch bench scale``, what a search takes as the tree grows.

The SIDs are synthetic and drawn as those of Home Depot's catalogue lie (:func:`branching_sids`); the network
has random weights, to which it is all the same what it learnt. All items have one vector while the index is
made, since vectors of ten million would fill the memory; when it is searched, first codes stand for what
their centroids say, and what is left of nodes is random bytes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.contracts import Prompt
from onesearch.figures import new_figure, write_png
from onesearch.lean_vectors import CODES, CodeGuide, widths
from onesearch.live_tree import Items, LiveTree
from onesearch.progress import Progress, SilentProgress
from onesearch.semantic_ids import sid_keys

from onesearch_seq2seq.bench_world import DIMENSION, LEVELS, TEXT, opened, random_network
from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.server import Seq2SeqServer

FIRST_SPREAD = 0.6
"""Standard deviation of the log of how many items a first code has, on Home Depot."""
EXPONENTS = (1.139, 1.730, 1.862, 0.0)
"""Below a node of depth 1 to 4 the r-th most frequent code has a share ∝ r^-a. Fitted to the number of nodes
of each depth of Home Depot's tree (4096, 41453, 49872, 52797, 54667); at the last level nothing crowds, since
SIDs that collide are told apart there."""
_CHUNK = 1_000_000


@dataclass
class _Catalogue:
    """One size: its tree, what making it took, and the times of searches in it."""

    items: Items
    live: LiveTree
    build_s: float
    insert_ms: float
    memory_mb: int
    times: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)


def run(
    items: Sequence[int] = (10_000, 100_000, 1_000_000, 10_000_000),
    size: str = "small",
    beams: int = 128,
    tokens: int = 64,
    repeats: int = 30,
    threads: int = 2,
    plot: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Grow a synthetic catalogue and search in it, one query at a time.

    Args:
        items: sizes of the catalogue.
        size: size of the network: tiny, small, base.
        beams: beams of a search.
        tokens: tokens of a prompt.
        repeats: queries timed; each goes to every size in turn.
        threads: threads of the search.
        plot: a PNG to draw the rows to.

    Returns:
        ``rows``: items; sids (different ones); nodes (of all depths); p50_ms, p99_ms and cpu_ms of a search;
        build_s (tree from SIDs); insert_ms (the tree of the next generation, with one item more);
        bytes_per_item: of structure, items, mass and remainders, their sum as total; memory_mb (peak of the
        process until this tree stood). ``constant_mb``: vectors of codes and books, whatever the number of
        items. ``ratio`` and ``cpu_ratio``: time of a search in the largest over that in the smallest.
    """
    progress = progress or SilentProgress()
    random = np.random.default_rng(5)
    books = tuple(
        (random.normal(size=(codes, DIMENSION)) * 0.7**level / DIMENSION**0.5).astype(np.float16)
        for level, codes in enumerate(LEVELS)
    )
    shapes = [(-(-DIMENSION // width), CODES, width) for width in widths(DIMENSION)]
    left = tuple((random.normal(size=shape) * 0.02).astype(np.float16) for shape in shapes)
    guide = CodeGuide(books, left)
    catalogues: list[_Catalogue] = []
    with tempfile.TemporaryDirectory() as folder, progress.task("growing", len(items) + repeats) as task:
        for count in sorted(items):
            catalogues.append(_made(count, guide))
            task.advance(1, f"{count:,} items")
        server, width = _server(size, catalogues[0].live, threads, Path(folder))
        nothing = np.zeros((1, 0, width), np.float32)
        for number in range(repeats + 2):  # the first two warm up
            ids = random.integers(10, TEXT, (1, tokens)).astype(np.int32)
            prompt = Prompt(ids, np.ones(ids.shape, bool), nothing)
            for one in catalogues:
                sid = one.items.sids[random.integers(len(one.items.sids))]
                near = sum(book[code].astype(np.float32) for book, code in zip(books, sid, strict=True))
                near = near + random.normal(size=DIMENSION) * 0.03
                vector = (near / np.linalg.norm(near)).astype(np.float32)[None]
                began, before = time.perf_counter(), time.process_time()
                server.search(prompt, vector, one.live, beams)
                if number > 1:
                    one.times.append(time.perf_counter() - began)
                    one.used.append(time.process_time() - before)
            task.advance(1, "searching")
    rows = [_row(one) for one in catalogues]
    result = {
        "rows": rows,
        "ratio": round(rows[-1]["p50_ms"] / rows[0]["p50_ms"], 3),
        "cpu_ratio": round(rows[-1]["cpu_ms"] / rows[0]["cpu_ms"], 3),
        "constant_mb": round(catalogues[0].live.bytes["vectors"] / 1e6, 2),
        "beams": beams,
        "size": size,
        "threads": threads,
        "simulated": "SIDs drawn as Home Depot's lie, random weights",
    }
    if plot is not None:
        draw(result, plot)
    return result


def branching_sids(items: int, seed: int = 0) -> np.ndarray:
    """SIDs i32[N, L] of a branching process: first codes of log-normal frequency, and below each prefix a
    power law over codes in an order of its own; of items that collide each but one draws its last codes anew,
    evenly, a few times over."""
    random = np.random.default_rng(seed)
    sids = np.empty((items, len(LEVELS)), np.int32)
    first = np.exp(random.normal(size=LEVELS[0]) * FIRST_SPREAD).cumsum()
    sids[:, 0] = np.searchsorted(first / first[-1], random.random(items), side="right")
    np.minimum(sids[:, 0], LEVELS[0] - 1, out=sids[:, 0])
    tables = [
        np.cumsum((np.arange(codes) + 1.0) ** -a) for codes, a in zip(LEVELS[1:], EXPONENTS, strict=True)
    ]
    for start in range(0, items, _CHUNK):
        own = sids[start : start + _CHUNK]
        prefix = own[:, 0].astype(np.uint64)
        for level, table in enumerate(tables, start=1):
            rank = np.searchsorted(table, random.random(len(own)) * table[-1], side="right")
            # A hash of the prefix says which code is the most frequent below it.
            mixed = (prefix + np.uint64(level)) * np.uint64(0x9E3779B97F4A7C15)
            turn = (mixed >> np.uint64(40)).astype(np.int64)
            own[:, level] = (turn + np.minimum(rank, LEVELS[level] - 1)) % LEVELS[level]
            prefix = prefix * np.uint64(LEVELS[level]) + own[:, level].astype(np.uint64)
    for _ in range(4):
        _, kept = np.unique(sid_keys(sids, LEVELS), return_index=True)
        again = np.ones(items, bool)
        again[kept] = False
        if not again.any():
            break
        for level in (-2, -1):
            sids[again, level] = random.integers(0, LEVELS[level], int(again.sum()))
    return sids


def draw(result: dict[str, Any], path: Path) -> Path:
    """Write a PNG of the rows: time of a search, bytes an item, time to build and to insert."""
    rows = result["rows"]
    counts = [row["items"] for row in rows]
    figure = new_figure(11, 3.4)
    for axis, (title, lines) in zip(
        figure.subplots(1, 3),
        {
            f"a search, {result['beams']} beams, ms": ("p50_ms", "cpu_ms"),
            "index, bytes an item": ("structure", "items", "mass", "remainders", "total"),
            "s: build the tree, put one item in": ("build_s", "insert_s"),
        }.items(),
        strict=True,
    ):
        for name in lines:
            values = [row | row["bytes_per_item"] | {"insert_s": row["insert_ms"] / 1000} for row in rows]
            axis.plot(counts, [value[name] for value in values], "o-", label=name.removesuffix("_s"))
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("items")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
        if "build" in title:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
    return write_png(figure, path)


def _made(count: int, guide: CodeGuide) -> _Catalogue:
    random = np.random.default_rng(count)
    sids = branching_sids(count + 1, count)
    popularity = random.pareto(1.5, count + 1).astype(np.float32) + 1
    vector = random.normal(size=DIMENSION).astype(np.float16)
    same = np.broadcast_to(vector, (count + 1, DIMENSION))
    items = Items(sids[:-1], same[:-1], popularity[:-1])
    began = time.perf_counter()
    live = LiveTree.build(items, LEVELS, guide=guide)
    build_s = time.perf_counter() - began
    began = time.perf_counter()
    grown = Items(np.concatenate([items.sids, sids[-1:]]), same, np.append(items.popularity, popularity[-1]))
    live.following(grown, np.array([count]), sids[-1:, 0], np.zeros(0, np.int64), 1)
    insert_ms = (time.perf_counter() - began) * 1000
    for level in live.remainders:
        level.codes[:] = random.integers(0, CODES, level.codes.shape, dtype=np.uint8)
    live = replace(live, vectors=guide.centroids)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return _Catalogue(items, live, build_s, insert_ms, memory)


def _server(size: str, live: LiveTree, threads: int, folder: Path) -> tuple[Seq2SeqServer, int]:
    model, config = random_network(size)
    export(model, config, folder / "network", "int8")
    wanted = config.model_copy(update={"engine": "native"})
    return opened(folder / "network", live, threads, wanted), model.dims.width


def _row(one: _Catalogue) -> dict[str, Any]:
    count = len(one.items.sids)
    each = {kind: size / count for kind, size in one.live.bytes.items() if kind != "vectors"}
    return {
        "items": count,
        "sids": one.live.tree.leaf_count,
        "nodes": sum(one.live.tree.node_counts),
        "p50_ms": round(float(np.median(one.times)) * 1000, 2),
        "p99_ms": round(float(np.percentile(one.times, 99)) * 1000, 2),
        "cpu_ms": round(float(np.median(one.used)) * 1000, 2),
        "build_s": round(one.build_s, 3),
        "insert_ms": round(one.insert_ms, 1),
        "bytes_per_item": {kind: round(size, 1) for kind, size in each.items()}
        | {"total": round(sum(each.values()), 1)},
        "memory_mb": one.memory_mb,
    }
