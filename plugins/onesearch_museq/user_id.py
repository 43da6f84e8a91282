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
    total = np.zeros(codebooks.dim, np.float32)
    weights = recency_weights(len(sids))
    for book, codes in zip(codebooks.levels[:DEPTH], sids.T, strict=False):
        # A sequence keeps to few codes: only their centroids are read, and each once.
        share = np.bincount(codes, weights, len(book))
        used = np.flatnonzero(share)
        total += share[used].astype(np.float32) @ book[used]
    return total


def behaviour_codes(
    recent: np.ndarray, long: np.ndarray, codebooks: Codebooks, two_nearest: bool = False
) -> np.ndarray:
    """A user id i32[2, L]: the codes of the recent sequence, then those of the long one.

    One shopper at a time: a product of few rows takes BLAS longer than as many products of one, and so codes
    do not depend on the rest of a batch, to the last bit, in training as in serving.

    Args:
        recent, long: SIDs i32[n, L] and i32[m, L], oldest first; the vector of an empty sequence is 0.
        codebooks: to quantise with.
        two_nearest: instead of both sequences' nearest codes, the nearest and the second nearest ones of
            each level of the long sequence.
    """
    if two_nearest:
        return codebooks.nearest(_direction(long, codebooks), 2)[0].T
    far = codebooks.quantise(_direction(long, codebooks))
    near = far if np.array_equal(recent, long) else codebooks.quantise(_direction(recent, codebooks))
    return np.concatenate([near, far])


def hashed_codes(user_id: str, levels: Sequence[int]) -> np.ndarray:
    """A user id i32[2, L] of nothing but a hash of ``user_id``: the baseline of the ablation."""
    text = user_id.encode("utf-8", "replace")
    draws = [
        [int.from_bytes(blake2b(text, digest_size=8, salt=bytes([row, level])).digest(), "little") % size
         for level, size in enumerate(levels)]
        for row in range(2)
    ]  # fmt: skip
    return np.array(draws, np.int32)


def _direction(sids: np.ndarray, codebooks: Codebooks) -> np.ndarray:
    """v̄ at length 1, f32[1, D]; 0 stays 0."""
    vector = mean_vector(sids, codebooks)
    norm = np.linalg.norm(vector)
    return (vector / norm if norm > 0 else vector)[None]
