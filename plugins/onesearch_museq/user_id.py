"""A user id made of behaviour: two SIDs, 2·L tokens, that say what a shopper clicks (DESIGN 7).

The vector of an item is the sum of its first three centroids, ``v(s) = c1 + c2 + c3``. A sequence, oldest
first, has the vector ``v̄ = Σ λ_i v_i`` with ``λ_i = exp(√i) / Σ_j exp(√j)``, which is normalised and
quantised.

Since ``λ'_i = (1 − λ_new)·λ_i`` when a click is appended, ``v̄' − v̄ = λ_new·(v_new − v̄)``: before it is
normalised, v̄ moves by at most ``λ_new·(‖v_new‖ + ‖v̄‖)``, where λ_new falls like ``1/(2√n)`` with the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from onesearch.codebooks import Codebooks
from onesearch.shoppers.state import RING_SIZE

DEPTH = 3
"""Levels whose centroids make an item's vector; those below are nearly noise."""


@lru_cache(maxsize=RING_SIZE + 1)
def recency_weights(count: int) -> np.ndarray:
    """λ f32[count], oldest first; rising, and summing to 1. Not to be written to."""
    roots = np.sqrt(np.arange(1, count + 1))
    grown = np.exp(roots - roots[-1:])
    weights = (grown / grown.sum()).astype(np.float32)
    weights.flags.writeable = False
    return weights


def mean_vector(sids: np.ndarray, codebooks: Codebooks) -> np.ndarray:
    """v̄ f32[D] of a sequence of SIDs i32[n, L], oldest first, not normalised; of an empty one 0."""
    if not len(sids):
        return np.zeros(codebooks.dim, np.float32)
    return recency_weights(len(sids)) @ codebooks.vectors(sids, depth=DEPTH)


def behaviour_codes(
    sequences: Sequence[tuple[np.ndarray, np.ndarray]], codebooks: Codebooks, two_nearest: bool = False
) -> np.ndarray:
    """User ids i32[B, 2, L] of B shoppers.

    Args:
        sequences: for each shopper the SIDs of the recent sequence i32[n, L] and of the long one i32[m, L],
            oldest first; one that is empty has the id of the vector 0.
        codebooks: to quantise with.
        two_nearest: instead of both sequences' nearest codes, the nearest and the second nearest ones of
            each level of the long sequence.
    """
    if not sequences:
        return np.zeros((0, 2, len(codebooks.levels)), np.int32)
    if two_nearest:
        vectors = np.stack([mean_vector(long, codebooks) for _, long in sequences])
        return codebooks.nearest(unit(vectors), 2).swapaxes(1, 2)
    vectors = np.stack([mean_vector(sids, codebooks) for pair in sequences for sids in pair])
    return codebooks.quantise(unit(vectors)).reshape(len(sequences), 2, -1)


def hashed_codes(user_id: str, levels: Sequence[int]) -> np.ndarray:
    """A user id i32[2, L] of nothing but a hash of ``user_id``: the baseline of the ablation."""
    text = user_id.encode("utf-8", "replace")
    draws = [
        [int.from_bytes(blake2b(text, digest_size=8, salt=bytes([row, level])).digest(), "little") % size
         for level, size in enumerate(levels)]
        for row in range(2)
    ]  # fmt: skip
    return np.array(draws, np.int32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors f32[B, D] at length 1; those of length 0 stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
