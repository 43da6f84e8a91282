"""What the codes of a SID mean: keywords typical of the items that carry them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onesearch_khqe.pool import KeywordPool

WORDS = 3


def meanings_of(
    sids: np.ndarray, levels: Sequence[int], entries: Sequence[Sequence[int]], pool: KeywordPool
) -> list[list[str]]:
    """For every level and code up to three keywords, most typical first, joined by commas.

    A keyword's weight for a code is ``n·log(n·N / (n_code·n_keyword))``: how often they meet, times by how
    much more often than by chance. A keyword must meet the code twice, unless the code has a single item.
    """
    counts = np.fromiter((len(row) for row in entries), np.int64, len(entries))
    flat = np.fromiter((entry for row in entries for entry in row), np.int64, int(counts.sum()))
    owner = np.repeat(np.arange(len(entries)), counts)
    total = np.bincount(flat, minlength=len(pool)).astype(np.float64)
    out: list[list[str]] = []
    for level, size in enumerate(levels):
        texts = [""] * size
        used = np.bincount(sids[:, level], minlength=size)
        pairs, meets = np.unique(
            sids[owner, level].astype(np.int64) * max(1, len(pool)) + flat, return_counts=True
        )
        codes, words = np.divmod(pairs, max(1, len(pool)))
        lift = meets * np.log(meets * max(1, len(sids)) / (used[codes] * total[words]))
        keep = (lift > 0) & ((meets > 1) | (used[codes] == 1))
        codes, words, lift = codes[keep], words[keep], lift[keep]
        order = np.lexsort((words, -lift, codes))
        codes, words = codes[order], words[order]
        starts = np.searchsorted(codes, np.arange(size))
        ends = np.searchsorted(codes, np.arange(size), side="right")
        for code in np.flatnonzero(ends > starts).tolist():
            first = words[starts[code] : min(ends[code], starts[code] + WORDS)]
            texts[code] = ", ".join(dict.fromkeys(pool.texts[word] for word in first))
        out.append(texts)
    return out
