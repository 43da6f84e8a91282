"""Codebooks of more vectors than memory holds: a sample says where codes belong, passes settle them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from onesearch.errors import UsageError
from onesearch.progress import Progress, SilentProgress

from onesearch_khqe.codebooks import CHUNK, Codebooks
from onesearch_khqe.config import QuantiserConfig
from onesearch_khqe.quantiser import fit_codebooks

Source = Callable[[], Iterator[np.ndarray]]
"""``source()``: all vectors from the first on, in chunks f32[n, D]; the same ones each time it is called."""


def chunks_of(vectors: np.ndarray, size: int = CHUNK) -> Source:
    """A source over an array, for instance one that is mapped from a file (``np.load(…, mmap_mode="r")``)."""

    def source() -> Iterator[np.ndarray]:
        for start in range(0, len(vectors), size):
            yield np.asarray(vectors[start : start + size], dtype=np.float32)

    return source


def fit_within_memory(
    vectors: np.ndarray,
    config: QuantiserConfig,
    seed: int = 0,
    items: int | None = None,
    progress: Progress | None = None,
) -> Codebooks:
    """Fit codebooks on vectors f32[N, D]: up to ``config.fit_sample`` of them at once, more by
    :func:`fit_streaming`."""
    if len(vectors) <= config.fit_sample or config.balanced:
        return fit_codebooks(vectors, config, seed, items, progress)
    return fit_streaming(chunks_of(vectors), len(vectors), config, seed, items, progress)


def fit_streaming(
    source: Source,
    count: int,
    config: QuantiserConfig,
    seed: int = 0,
    items: int | None = None,
    progress: Progress | None = None,
) -> Codebooks:
    """Fit codebooks on ``count`` vectors that are never in memory together.

    ``config.fit_sample`` of them, evenly drawn, are fitted as :func:`~onesearch_khqe.quantiser.fit_codebooks`
    does it. Then each residual layer, and in the end the sub-spaces of OPQ, take one Lloyd step over all
    vectors: a pass that adds up, chunk by chunk, the points of each code. Memory is that of the sample, of
    one chunk and of one sum a code, whatever ``count``. The rotation stays that of the sample.

    Raises UsageError where the source gives another number of vectors than ``count``.
    """
    progress = progress or SilentProgress()
    items = count if items is None else items
    size = min(count, config.fit_sample)
    chosen = np.sort(np.random.default_rng(seed).choice(count, size, replace=False, shuffle=False))
    books = fit_codebooks(_sample(source, chosen, count), config, seed, items, progress)
    steps = len(books.layers) + bool(books.parts)
    with progress.task("Settling the codebooks", steps) as task:
        for level in range(steps):
            books = _settled(source, books, level)
            task.advance()
    return books


def _sample(source: Source, chosen: np.ndarray, count: int) -> np.ndarray:
    parts, at = [], 0
    for chunk in source():
        low, high = np.searchsorted(chosen, (at, at + len(chunk)))
        parts.append(chunk[chosen[low:high] - at])
        at += len(chunk)
    if at != count:
        raise UsageError(f"the source of vectors gives {at} of them, not {count}")
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _settled(source: Source, books: Codebooks, level: int) -> Codebooks:
    """The codebooks after one Lloyd step of a residual layer, or, behind the last one, of all sub-spaces."""
    if level < len(books.layers):
        before = Codebooks(books.layers[: level + 1], books.rotation)
        sums = _Sums(before.layers[-1])
        for chunk in source():
            sids, rest = before.encode_with_residuals(chunk)
            sums.add(sids[:, level], rest + before.layers[-1][sids[:, level]])
        return replace(books, layers=(*books.layers[:level], sums.means(), *books.layers[level + 1 :]))
    own = [_Sums(part) for part in books.parts]
    width = books.dim // len(own)
    for chunk in source():
        sids, rest = books.encode_with_residuals(chunk)
        turned = rest @ books.rotation
        for at, part in enumerate(own):
            part.add(sids[:, len(books.layers) + at], turned[:, at * width : (at + 1) * width])
    return replace(books, parts=tuple(part.means() for part in own))


class _Sums:
    """Sums of the points of each code, in float64 so that the order of millions of them does not show."""

    def __init__(self, old: np.ndarray) -> None:
        self.old, self.total = old, np.zeros(old.shape, np.float64)
        self.counts = np.zeros(len(old), np.int64)

    def add(self, codes: Sequence[int] | np.ndarray, points: np.ndarray) -> None:
        order = np.argsort(codes, kind="stable")
        found, first, counts = np.unique(np.asarray(codes)[order], return_index=True, return_counts=True)
        if len(found):
            self.total[found] += np.add.reduceat(points[order], first, axis=0)
            self.counts[found] += counts

    def means(self) -> np.ndarray:
        """f32[K, D]; a code without points stays where it was."""
        mean = self.total / np.maximum(self.counts, 1)[:, None]
        return np.where(self.counts[:, None] > 0, mean, self.old).astype(np.float32)
