"""Long sequences as a few vectors: clicks, orders, and what of both is relevant to the query (DESIGN 7).

The relevance search unit (RSU) are the clicks and orders of items whose first code is among the m first-level
codes nearest to the query's. Of each of the three sequences, and of each of the first levels ℓ ≤ 3, the mean
of the items' centroids ``1/n Σ c_ℓ(s_i)`` is one vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onesearch.codebooks import Codebooks

from onesearch_museq.behaviour import Behaviour
from onesearch_museq.user_id import DEPTH

SEQUENCES = ("clicks", "orders", "relevant")
_CHUNK = 512


class Histories:
    """Sums behaviour up, for the codebooks and items of one release."""

    def __init__(self, codebooks: Codebooks, sids: np.ndarray, rsu_codes: int) -> None:
        """``sids`` i32[N, L] of the catalogue's items."""
        self._books = codebooks.levels[:DEPTH]
        self._dim = codebooks.dim
        self._sids = sids
        # Where codes are few, a fixed number of them would make everything relevant.
        first = codebooks.levels[0]
        self.neighbours = nearest_codes(first, min(rsu_codes, max(1, len(first) // 4)))

    @property
    def names(self) -> list[str]:
        """What each of the F vectors is of, for people."""
        return [f"{name} level {level + 1}" for name in SEQUENCES for level in range(len(self._books))]

    def of(self, behaviours: Sequence[Behaviour], query_sids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """History f32[B, F, D] and mask bool[B, F] of B shoppers and the SIDs of their queries i32[B, L].

        F = 3·min(3, L): all levels of the clicks, of the orders, of what is relevant. A sequence without
        events has zeros and false. A row does not depend on the rows beside it, to the last bit.
        """
        depth = len(self._books)
        history = np.zeros((len(behaviours), len(SEQUENCES), depth, self._dim), np.float32)
        mask = np.zeros(history.shape[:3], bool)
        for row, behaviour in enumerate(behaviours):
            n_clicks, n_events = len(behaviour.clicks), len(behaviour.clicks) + len(behaviour.orders)
            if not n_events:
                continue
            events = np.concatenate([behaviour.clicks, behaviour.orders])
            codes = np.ascontiguousarray(self._sids[events, :depth].T)
            relevant = np.zeros(len(self._books[0]), bool)
            relevant[self.neighbours[query_sids[row, 0]]] = True
            is_relevant = relevant[codes[0]]
            counts = np.array([n_clicks, n_events - n_clicks, np.count_nonzero(is_relevant)])
            mask[row] = (counts > 0)[:, None]
            share = (1 / np.maximum(counts, 1)).astype(np.float32)[:, None]
            for level, (book, all_codes) in enumerate(zip(self._books, codes, strict=True)):
                parts = (all_codes[:n_clicks], all_codes[n_clicks:], all_codes[is_relevant])
                times = np.stack([np.bincount(part, minlength=len(book)) for part in parts])
                # Behaviour keeps to few codes: only their centroids are read.
                used = np.flatnonzero(times[0] + times[1])
                history[row, :, level] = (times[:, used].astype(np.float32) * share) @ book[used]
        flat = len(SEQUENCES) * depth
        return history.reshape(len(behaviours), flat, self._dim), mask.reshape(len(behaviours), flat)


def nearest_codes(book: np.ndarray, count: int) -> np.ndarray:
    """i32[K, count]: for each centroid of a codebook f32[K, D] the nearest ones, always with itself."""
    half = 0.5 * np.square(book).sum(axis=1)
    found = np.zeros((len(book), count), np.int32)
    for start in range(0, len(book), _CHUNK):
        rows = book[start : start + _CHUNK]
        scores = half - rows @ book.T
        scores[np.arange(len(rows)), start + np.arange(len(rows))] = -np.inf
        found[start : start + _CHUNK] = np.argpartition(scores, count - 1, axis=1)[:, :count]
    return found
