"""Fusing a text's embedding with those of its keywords."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, f32; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def fuse(
    vectors: np.ndarray, keyword_vectors: np.ndarray, entries: Sequence[Sequence[int]], share: float
) -> np.ndarray:
    """``e° = norm((1 − share)·e + share·mean_k e_k)``, f32[B, D]; with no keyword ``e° = e / ‖e‖``.

    The paper's formula is share = ½.

    Args:
        vectors: e, f32[B, D].
        keyword_vectors: [P, D], one row a keyword of the pool.
        entries: rows of ``keyword_vectors`` of each text.
        share: weight of the keywords, in [0, 1).
    """
    vectors = np.array(vectors, dtype=np.float32)
    counts = np.fromiter((len(row) for row in entries), dtype=np.int64, count=len(entries))
    if share and counts.any():
        flat = np.fromiter(
            (entry for row in entries for entry in row), dtype=np.int64, count=int(counts.sum())
        )
        having = np.flatnonzero(counts)
        ends = np.cumsum(counts)
        for some in np.array_split(having, max(1, len(having) // 4096)):
            rows = np.concatenate([flat[ends[at] - counts[at] : ends[at]] for at in some])
            starts = np.cumsum(counts[some]) - counts[some]
            sums = np.add.reduceat(keyword_vectors[rows].astype(np.float32), starts, axis=0)
            vectors[some] = (1 - share) * vectors[some] + share * sums / counts[some, None]
    return normalised(vectors)
