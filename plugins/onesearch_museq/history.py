"""Long sequences as a few vectors: clicks, orders, and what of both is relevant to the query (DESIGN 7).

The relevance search unit (RSU) are the clicks and orders of items whose first code is among the m first-level
codes nearest to the query's. Of each of the three sequences, and of each of the first levels ℓ ≤ 3, the mean
of the items' centroids ``1/n Σ c_ℓ(s_i)`` is one vector: F = 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

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

    def over(self, sids: np.ndarray) -> Histories:
        """The same for the items i32[N, L] of another generation of the catalogue."""
        other = copy(self)
        other._sids = sids
        return other

    @property
    def names(self) -> list[str]:
        """What each of the F vectors is of, for people."""
        return [f"{name} level {level + 1}" for name in SEQUENCES for level in range(DEPTH)]

    def of(self, behaviours: Sequence[Behaviour], query_sids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """History f32[B, F, D] and mask bool[B, F] of B shoppers and the SIDs of their queries i32[B, L].

        All levels of the clicks, of the orders, of what is relevant. A sequence without events, and a level
        that the codebooks do not have, has zeros and false. A row does not depend on the rows beside it, to
        the last bit.
        """
        history = np.zeros((len(behaviours), len(SEQUENCES), DEPTH, self._dim), np.float32)
        mask = np.zeros(history.shape[:3], bool)
        for row, behaviour in enumerate(behaviours):
            n_clicks, n_events = len(behaviour.clicks), len(behaviour.clicks) + len(behaviour.orders)
            if not n_events:
                continue
            events = np.concatenate([behaviour.clicks, behaviour.orders])
            codes = np.ascontiguousarray(self._sids[events, : len(self._books)].T)
            relevant = np.zeros(len(self._books[0]), bool)
            relevant[self.neighbours[query_sids[row, 0]]] = True
            parts = (codes[:, :n_clicks], codes[:, n_clicks:], codes[:, relevant[codes[0]]])
            for kind, part in enumerate(parts):
                if count := part.shape[1]:
                    # As a product, which takes BLAS half the time of a mean over the first axis.
                    share = np.full(count, 1 / count, np.float32)
                    for level, book in enumerate(self._books):
                        history[row, kind, level] = share @ book[part[level]]
                    mask[row, kind, : len(self._books)] = True
        flat = (len(behaviours), len(SEQUENCES) * DEPTH)
        return history.reshape(*flat, self._dim), mask.reshape(flat)


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
