"""New items while a catalogue is served: SIDs that nobody has, one item after another. numpy only."""

from __future__ import annotations

import numpy as np

from onesearch_khqe.codebooks import Codebooks


def free_sids(books: Codebooks, sids: np.ndarray, residuals: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """SIDs i32[N, L] of new items: the nearest that is free, by the last codes.

    As :func:`onesearch_khqe.collisions.assign_last_codes` does it, but for one item at a time, so that it
    needs no solver: for a single new item the two agree. Without a free combination the nearest is shared.

    Args:
        books: the fitted codebooks.
        sids: nearest codes i32[N, L]. residuals: f32[N, D] after all residual layers.
        taken: i32[M, L], SIDs that others have.
    """
    fixed = len(books.layers) if books.parts else len(books.levels) - 1
    out = np.array(sids, np.int32)
    if not len(out):
        return out
    near = taken[np.isin(taken[:, 0], out[:, 0])]
    held: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    wanted = {tuple(row) for row in out[:, :fixed].tolist()}
    for row in near.tolist():
        if (bucket := tuple(row[:fixed])) in wanted:
            held.setdefault(bucket, set()).add(tuple(row[fixed:]))
    for number, row in enumerate(out.tolist()):
        own = held.setdefault(tuple(row[:fixed]), set())
        if tuple(row[fixed:]) in own:
            out[number, fixed:] = _nearest_free(books, row, residuals[number : number + 1], fixed, own)
        own.add(tuple(out[number, fixed:].tolist()))
    return out


def _nearest_free(
    books: Codebooks, sid: list[int], residual: np.ndarray, fixed: int, held: set[tuple[int, ...]]
) -> tuple[int, ...]:
    if books.parts:
        first, *others = (table[0] for table in books.part_distances(residual))
        costs = first
        for table in others:
            costs = costs[..., None] + table
    else:
        layer = books.layers[-1]
        costs = np.square(residual[0] + layer[sid[fixed]] - layer).sum(axis=1)
    free = costs.copy()
    free[tuple(np.array(sorted(held)).T)] = np.inf
    if not np.isfinite(free).any():
        free = costs
    return tuple(int(code) for code in np.unravel_index(int(free.argmin()), free.shape))
