"""Retrieval metrics per query, their means with bootstrap intervals, and paired differences.

For one query with the set T of relevant items and grades g, and a ranking of which the first k count:

- ``R@k = |T ∩ top k| / |T|``, ``HR@k = 1`` where the top k hold any of T, else 0
- ``MRR@k = 1 / rank`` of the first of T within the top k, else 0
- ``NDCG@k = DCG@k / ideal DCG@k`` with ``DCG@k = Σ_{rank ≤ k} g / log2(rank + 1)``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CUTOFFS = (10, 100, 350)
DEPTH = max(CUTOFFS)
RESAMPLES = 1_000
_SEED = 20


@dataclass(frozen=True)
class Relevant:
    """What is relevant for one query.

    Attributes:
        items: i32[T], item numbers, each once; below 0 where the catalogue lacks the item, which then counts
            as relevant and cannot be found.
        grades: f32[T], positive.
    """

    items: np.ndarray
    grades: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def metric_names(cutoffs: Sequence[int] = CUTOFFS) -> list[str]:
    """``R@10, HR@10, MRR@10, NDCG@10, R@100 …``."""
    return [f"{name}@{k}" for k in cutoffs for name in ("R", "HR", "MRR", "NDCG")]


def per_query(
    ranked: np.ndarray, relevant: Sequence[Relevant], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, np.ndarray]:
    """Metrics of each query, f64[Q] by name.

    Args:
        ranked: i32[Q, K], item numbers, best first, each once a row; -1 past the last.
        relevant: of each query, at least one item.
        cutoffs: ranks k at which to measure.
    """
    measured = {name: np.zeros(len(relevant)) for name in metric_names(cutoffs)}
    discount = 1 / np.log2(np.arange(2, max(cutoffs) + 2))
    for row, truth in enumerate(relevant):
        known = truth.items >= 0
        grade_of = dict(zip(truth.items[known].tolist(), truth.grades[known].tolist(), strict=True))
        grades = np.array([grade_of.get(item, 0.0) for item in ranked[row, : max(cutoffs)].tolist()])
        hits = np.flatnonzero(grades > 0)
        ideal = np.sort(truth.grades.astype(np.float64))[::-1]
        for k in cutoffs:
            inside = hits[hits < k]
            best = float((ideal[:k] * discount[: min(k, len(ideal))]).sum())
            measured[f"R@{k}"][row] = len(inside) / len(truth.items)
            measured[f"HR@{k}"][row] = float(len(inside) > 0)
            measured[f"MRR@{k}"][row] = 1 / (inside[0] + 1) if len(inside) else 0.0
            measured[f"NDCG@{k}"][row] = float((grades[inside] * discount[inside]).sum()) / best
    return measured


def bootstrap(values: np.ndarray, resamples: int = RESAMPLES) -> list[Estimate]:
    """Mean of each column of f64[Q, M] with the 2.5 % and 97.5 % quantiles of its bootstrap.

    Queries are drawn with replacement, the same draws for every column and call, so equal inputs give equal
    intervals.
    """
    rng = np.random.default_rng(_SEED)
    means = np.empty((resamples, values.shape[1]))
    for at in range(resamples):
        drawn = np.bincount(rng.integers(0, len(values), len(values)), minlength=len(values))
        means[at] = drawn @ values / len(values)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    columns = zip(values.mean(axis=0), low, high, strict=True)
    return [Estimate(float(value), float(below), float(above)) for value, below, above in columns]


def estimates(measured: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Means and intervals by metric."""
    names = list(measured)
    return dict(zip(names, bootstrap(np.stack([measured[name] for name in names], axis=1)), strict=True))


def paired(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Mean of ``ours - theirs`` over the same queries, by metric: above zero where ours is better."""
    return estimates({name: ours[name] - theirs[name] for name in ours})
