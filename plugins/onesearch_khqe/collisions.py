"""Collision-aware assignment: items that share their residual codes get different last codes, at the least
distortion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from onesearch_khqe.codebooks import Codebooks

DENSE = 48
"""Buckets up to this size are solved as a dense assignment, larger ones as a sparse matching."""


@dataclass(frozen=True)
class Assigned:
    """SIDs after assignment.

    Attributes:
        sids: i32[N, L].
        moved: how many items have another SID than the nearest.
        cost: by how much the mean squared distance rose, over all N items.
    """

    sids: np.ndarray
    moved: int
    cost: float


def assign_last_codes(
    codebooks: Codebooks,
    sids: np.ndarray,
    residuals: np.ndarray,
    taken: np.ndarray | None = None,
) -> Assigned:
    """Make SIDs unique by choosing the last codes jointly.

    Items fall into buckets by the codes that stay: all residual layers, or, without OPQ, all but the last
    one. In a bucket where two items collide, or one collides with a taken SID, every item gets a free
    combination of last codes, such that the sum of squared distances is the least possible. That needs only
    the n nearest free combinations of each of a bucket's n items, since the others can hold at most n − 1. If
    a bucket has more items than combinations, each combination is given out as evenly as possible.

    Args:
        codebooks: the fitted codebooks.
        sids: nearest codes i32[N, L]. residuals: f32[N, D] after all residual layers, from
            :meth:`Codebooks.encode_with_residuals`.
        taken: i32[M, L], SIDs that others already have (their codes stay).
    """
    out = np.array(sids, dtype=np.int32)
    levels = codebooks.levels
    fixed = len(codebooks.layers) if codebooks.parts else len(levels) - 1
    others = np.zeros((0, len(levels)), np.int32) if taken is None else np.asarray(taken, np.int32)
    prefix = _keys(np.concatenate([out, others])[:, :fixed], levels[:fixed])
    suffix = _keys(np.concatenate([out, others])[:, fixed:], levels[fixed:])
    whole = prefix * int(np.prod(levels[fixed:])) + suffix
    _, inverse, counts = np.unique(whole, return_inverse=True, return_counts=True)
    colliding = np.unique(prefix[: len(out)][counts[inverse[: len(out)]] > 1])
    order = np.argsort(prefix, kind="stable")
    starts = np.searchsorted(prefix[order], colliding)
    ends = np.searchsorted(prefix[order], colliding, side="right")
    extra = 0.0
    for start, end in zip(starts, ends, strict=True):
        members = order[start:end]
        own, held = members[members < len(out)], members[members >= len(out)]
        tables = _distances(codebooks, residuals[own], out[own], fixed)
        chosen, cost = solve_bucket(tables, suffix[held])
        before = sum(
            table[np.arange(len(own)), out[own, fixed + at]].sum() for at, table in enumerate(tables)
        )
        extra += cost - float(before)
        for at in range(len(levels) - 1, fixed - 1, -1):
            chosen, out[own, at] = np.divmod(chosen, levels[at])
    moved = int((out != sids).any(1).sum())
    return Assigned(out, moved, extra / max(1, len(out)))


def solve_bucket(tables: Sequence[np.ndarray], taken: np.ndarray) -> tuple[np.ndarray, float]:
    """Different combinations of last codes for the n items of one bucket, at the least sum of distances.

    Args:
        tables: one or two arrays f32[n, K]: squared distance of each item to each code of a last level.
        taken: combinations (numbered row-major) that are not free.

    Returns:
        The combination of each item, i64[n], and the sum of their distances.
    """
    items = len(tables[0])
    combinations = int(np.prod([table.shape[1] for table in tables]))
    taken = np.unique(taken)
    if items > combinations - len(taken):
        return _evenly(tables, combinations, taken)
    costs, numbers = _nearest_free(tables, items, taken)
    columns, inverse = np.unique(numbers, return_inverse=True)
    inverse = inverse.reshape(numbers.shape)
    if items <= DENSE:
        dense = np.full((items, len(columns)), np.inf)
        np.put_along_axis(dense, inverse, costs, axis=1)
        rows, picked = linear_sum_assignment(dense)
        return columns[picked], float(dense[rows, picked].sum())
    # The sparse solver takes an explicit 0 for "no edge": all costs are raised by 1.
    indptr = np.arange(items + 1) * costs.shape[1]
    graph = csr_array((costs.ravel() + 1.0, inverse.ravel(), indptr), shape=(items, len(columns)))
    rows, picked = min_weight_full_bipartite_matching(graph)
    return columns[picked], float(graph[rows, picked].sum() - items)


def _nearest_free(
    tables: Sequence[np.ndarray], items: int, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ``items`` nearest free combinations of each item: costs f64[n, items] and numbers i64[n, items]."""
    wanted = items + len(taken)
    orders = [np.argsort(table, axis=1, kind="stable") for table in tables]
    ranked = [np.take_along_axis(table, order, axis=1) for table, order in zip(tables, orders, strict=True)]
    if len(tables) == 1:
        costs, numbers = ranked[0][:, :wanted].astype(np.float64), orders[0][:, :wanted]
    else:
        # Combination (i, j) of the i-th and j-th nearest codes is among the t nearest only if (i+1)(j+1) ≤ t.
        first, second = tables[0].shape[1], tables[1].shape[1]
        i = np.repeat(np.arange(first), np.minimum(second, wanted // np.arange(1, first + 1)))
        j = np.concatenate([np.arange(min(second, wanted // (row + 1))) for row in range(first)]).astype(
            np.int64
        )
        costs = ranked[0][:, i].astype(np.float64) + ranked[1][:, j]
        numbers = orders[0][:, i] * second + orders[1][:, j]
    if len(taken):
        costs = np.where(np.isin(numbers, taken), np.inf, costs)
    if costs.shape[1] > items:
        keep = np.argpartition(costs, items - 1, axis=1)[:, :items]
        costs, numbers = np.take_along_axis(costs, keep, 1), np.take_along_axis(numbers, keep, 1)
    return costs, numbers.astype(np.int64)


def _evenly(tables: Sequence[np.ndarray], combinations: int, taken: np.ndarray) -> tuple[np.ndarray, float]:
    """More items than free combinations: each combination may be given out so often as is needed, and no
    more."""
    costs = (
        tables[0]
        if len(tables) == 1
        else (tables[0][:, :, None] + tables[1][:, None, :]).reshape(len(tables[0]), -1)
    )
    times = -(-(len(costs) + len(taken)) // combinations)
    places = np.repeat(np.arange(combinations), times)
    keep = np.ones(len(places), dtype=bool)
    keep[taken * times] = False
    places = places[keep]
    rows, picked = linear_sum_assignment(costs[:, places])
    chosen = np.empty(len(costs), np.int64)
    chosen[rows] = places[picked]
    return chosen, float(costs[np.arange(len(costs)), chosen].sum())


def _distances(codebooks: Codebooks, residuals: np.ndarray, sids: np.ndarray, fixed: int) -> list[np.ndarray]:
    if codebooks.parts:
        return codebooks.part_distances(residuals)
    layer = codebooks.layers[-1]
    before = residuals + layer[sids[:, fixed]]
    gaps = np.square(before).sum(1)[:, None] + np.square(layer).sum(1) - 2 * before @ layer.T
    return [np.maximum(gaps, 0)]


def _keys(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    keys = np.zeros(len(codes), dtype=np.int64)
    for level, size in enumerate(sizes):
        keys = keys * size + codes[:, level]
    return keys
