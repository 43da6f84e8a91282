"""Figures of SIDs and embeddings: codebook use, identifiability, collisions, recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def independent_rate(sids: np.ndarray, levels: int | None = None) -> float:
    """ICR: share of items whose SID (its first ``levels`` codes) no other item has."""
    if not len(sids):
        return 1.0
    _, counts = np.unique(sids[:, :levels], axis=0, return_counts=True)
    return float((counts == 1).sum() / len(sids))


def distinct_share(sids: np.ndarray) -> float:
    """Number of different SIDs per item."""
    return len(np.unique(sids, axis=0)) / max(1, len(sids))


def codebook_use(sids: np.ndarray, levels: Sequence[int]) -> dict[str, float]:
    """CUR: different prefixes in use per possible one: level 1; levels 1 and 2; the three residual levels
    (``total``).

    With fewer than three levels the entries that there are.
    """
    out: dict[str, float] = {}
    for name, depth in (("L1", 1), ("L1xL2", 2), ("total", 3)):
        if depth <= len(levels):
            used = len(np.unique(sids[:, :depth], axis=0))
            out[name] = used / float(np.prod([float(size) for size in levels[:depth]]))
    return out


def collision_sizes(sids: np.ndarray) -> dict[str, int]:
    """How many SIDs are shared by so many items: ``{"1": …, "2": …}`` by size."""
    _, counts = np.unique(sids, axis=0, return_counts=True)
    sizes, numbers = np.unique(counts, return_counts=True)
    return {str(size): int(number) for size, number in zip(sizes, numbers, strict=True)}


def recall_of(
    queries: np.ndarray, items: np.ndarray, positives: Sequence[np.ndarray], cutoffs: Sequence[int]
) -> dict[str, float]:
    """``R@k`` and ``MRR@10`` of ranking ``items`` f32[N, D] by dot product with ``queries`` f32[Q, D].

    R@k is the mean share of a query's positives among the first k; ties go to the lower item number.
    """
    ranks = positive_ranks(queries, items, positives)
    out = {f"R@{k}": float(np.mean([(row < k).mean() for row in ranks])) for k in cutoffs}
    first = np.array([row.min() for row in ranks])
    out["MRR@10"] = float(np.where(first < 10, 1.0 / (first + 1), 0.0).mean())
    return out


def positive_ranks(
    queries: np.ndarray, items: np.ndarray, positives: Sequence[np.ndarray], chunk: int = 256
) -> list[np.ndarray]:
    """Rank (0 is the first) of each positive of each query among all items."""
    ranks: list[np.ndarray] = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ items.T
        for row, wanted in zip(scores, positives[start : start + chunk], strict=True):
            ahead = [(row > row[item]).sum() + (row[:item] == row[item]).sum() for item in wanted]
            ranks.append(np.array(ahead))
    return ranks


def spread(values: np.ndarray, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (2.5 %, 97.5 %) of the mean of values [Q]."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(samples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
