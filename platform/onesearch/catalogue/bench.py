"""``onesearch bench catalogue``: what a change of the catalogue costs, up to files that are mapped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onesearch.catalogue.generations import Generations
from onesearch.index import CatalogueIndex, Changes, Filters
from onesearch.live_tree import Items, LiveTree
from onesearch.progress import Progress, SilentProgress

LEVELS = (4096, 1024, 512, 256, 256)


def run(
    items: Sequence[int] = (54_667, 100_000),
    dim: int = 256,
    repeats: int = 3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time generations of synthetic catalogues: prices, new items, withdrawals.

    Args:
        items: sizes of the catalogues.
        dim: dimension of the vectors.
        repeats: generations timed of each kind; the median is told.

    Returns:
        ``rows``: items, what (one price, one item, 100 items, one gone), tree_ms (the next index, in memory),
        write_ms, open_ms (mapped by another process), total_ms of these, scratch_ms (the same tree built
        from scratch), filter_ms (narrowing to a filter that no search has used).
        ``same``: whether every tree was the one built from scratch, bit by bit.
    """
    progress = progress or SilentProgress()
    rows: list[dict[str, Any]] = []
    same = True
    for count in items:
        index = _synthetic(count, dim)
        _ = index.live, index.keys
        with tempfile.TemporaryDirectory() as folder, progress.task(f"{count:,} items", 4) as task:
            generations = Generations(Path(folder))
            here = (generations.write(index, 0).folder, index)
            for what, change in _kinds(index).items():
                timed = []
                for _ in range(repeats):
                    seconds, here, equal = _once(here, change(here[1]), generations)
                    timed.append(seconds)
                    same &= equal
                medians = np.median(np.array(timed), axis=0) * 1000
                names = ("tree_ms", "write_ms", "open_ms", "scratch_ms", "filter_ms")
                row = dict(zip(names, medians.round(1).tolist(), strict=True))
                total = round(float(medians[:3].sum()), 1)
                rows.append({"items": count, "what": what, "total_ms": total, **row})
                task.advance(1, what)
    return {"rows": rows, "same": same, "dim": dim}


def _once(
    here: tuple[Path, CatalogueIndex], changes: Changes, generations: Generations
) -> tuple[list[float], tuple[Path, CatalogueIndex], bool]:
    marks = [time.perf_counter()]
    index = here[1].following(changes, here[1].generation + 1)
    marks.append(time.perf_counter())
    made = generations.write(index, 0, here)
    generations.prune()
    marks.append(time.perf_counter())
    opened = made.load()
    marks.append(time.perf_counter())
    items = Items(index.sids, index.vectors, index.popularity, index.alive)
    scratch = LiveTree.build(items, index.levels, index.generation)
    marks.append(time.perf_counter())
    opened.tree_for(Filters(max_price=float(index.generation)))
    marks.append(time.perf_counter())
    pairs = [
        *zip(scratch.vectors, opened.live.vectors, strict=True),
        *zip(scratch.log_mass, opened.live.log_mass, strict=True),
        *zip(scratch.tree.code, opened.live.tree.code, strict=True),
        (scratch.tree.leaf_items, opened.live.tree.leaf_items),
    ]
    equal = all(np.array_equal(one, other) for one, other in pairs)
    return np.diff(marks).tolist(), (made.folder, index), equal


def _synthetic(count: int, dim: int) -> CatalogueIndex:
    """Skewed first codes, thin below, as residual codes are; vectors at random."""
    random = np.random.default_rng(0)
    skew = np.array([1.5, 2.0, 2.0, 1.2, 1.0])
    sids = (random.random((count, len(LEVELS))) ** skew * LEVELS).astype(np.int32)
    vectors = np.empty((count, dim), np.float16)
    for start in range(0, count, 100_000):
        part = vectors[start : start + 100_000]
        part[:] = random.standard_normal(part.shape, np.float32) / np.sqrt(dim)
    names = pl.Series("item_id", np.arange(count)).cast(pl.String)
    table = pl.DataFrame({"item_id": names, "title": "a thing of number " + names}).with_columns(
        category=pl.lit(["things"]), brand=pl.lit("maker"), price=pl.lit(1e6), in_stock=pl.lit(True)
    )
    popularity = random.pareto(1.5, count).astype(np.float32) + 1
    return CatalogueIndex.build(table, sids, vectors, popularity, LEVELS)


def _kinds(index: CatalogueIndex) -> dict[str, Callable[[CatalogueIndex], Changes]]:
    random = np.random.default_rng(1)

    def priced(now: CatalogueIndex) -> Changes:
        row = now.items[3:4].with_columns(price=pl.lit(float(now.generation)))
        return Changes(row, now.sids[3:4], now.vectors[3:4], now.popularity[3:4])

    def grown(now: CatalogueIndex, new: int) -> Changes:
        ids = pl.Series("item_id", [f"new {now.generation} {at}" for at in range(new)])
        rows = now.items[:new].with_columns(item_id=ids)
        at = random.integers(0, len(index), new)
        return Changes(rows, now.sids[at], now.vectors[at], now.popularity[at])

    def shrunk(now: CatalogueIndex) -> Changes:
        gone = [str(int(random.integers(0, len(index))))]
        return Changes(now.items[:0], now.sids[:0], now.vectors[:0], now.popularity[:0], gone)

    return {
        "one price": priced,
        "one item": lambda now: grown(now, 1),
        "100 items": lambda now: grown(now, 100),
        "one gone": shrunk,
    }
