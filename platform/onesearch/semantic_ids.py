"""Semantic IDs: their text form, and the prefix tree of the legal ones as flat arrays.

A semantic ID (SID) is a tuple of codes, one a level, printed ``<a_382><b_104><c_29><d_5><e_12>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onesearch.errors import UsageError

_TOKEN = re.compile(r"<([a-z])_(\d+)>")
MAX_LEVELS = 26


def format_sid(codes: Sequence[int]) -> str:
    """Print a SID: (382, 104) → ``<a_382><b_104>``."""
    if len(codes) > MAX_LEVELS:
        raise UsageError(f"a SID has at most {MAX_LEVELS} levels, not {len(codes)}")
    return "".join(f"<{chr(97 + level)}_{int(code)}>" for level, code in enumerate(codes))


def parse_sid(text: str) -> tuple[int, ...]:
    """Read what :func:`format_sid` printed. Raises UsageError where the text is not a SID."""
    codes: list[int] = []
    at = 0
    for match in _TOKEN.finditer(text):
        if match.start() != at or match[1] != chr(97 + len(codes)):
            break
        codes.append(int(match[2]))
        at = match.end()
    if not codes or at != len(text):
        raise UsageError(f"not a semantic ID: {text[:80]!r}; one looks like <a_382><b_104><c_29><d_5><e_12>")
    return tuple(codes)


def sid_keys(sids: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """SIDs i32[N, L] as one number each that sorts as they do: i64, or object where 64 bits are too few."""
    wide = float(np.prod([float(size) for size in levels])) >= 2.0**62
    keys = np.zeros(len(sids), dtype=object if wide else np.int64)
    for level, size in enumerate(levels):
        keys = keys * size + sids[:, level].astype(keys.dtype)
    return keys


def code_type(size: int) -> type[np.unsignedinteger]:
    """The narrowest unsigned type that holds the codes of a level with ``size`` of them."""
    return np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32


@dataclass(frozen=True)
class PrefixTree:
    """The legal SIDs as CSR arrays, numbered breadth first.

    Depth 0 is the root, depth L holds the leaves. The nodes of a depth stand in the lexicographic order of
    their prefixes, so that the children of a node are neighbours: child ``j`` of node ``p`` at depth ℓ is
    node ``first_child[ℓ][p] + j`` of depth ℓ+1, whose code is ``code[ℓ][first_child[ℓ][p] + j]``.

    Attributes:
        levels: codebook size of each level, L numbers.
        first_child: L arrays i32[n_ℓ + 1], ℓ = 0 … L-1, n_0 = 1.
        code: L arrays [n_{ℓ+1}] of the narrowest unsigned type that holds the level's codes (u8, u16 or u32).
        leaf_first_item: i32[n_L + 1]; leaf ``f`` holds the items ``leaf_items[first[f]:first[f + 1]]``.
        leaf_items: i32[N], item numbers, the most popular of a leaf first.
    """

    levels: tuple[int, ...]
    first_child: tuple[np.ndarray, ...]
    code: tuple[np.ndarray, ...]
    leaf_first_item: np.ndarray
    leaf_items: np.ndarray

    @classmethod
    def build(
        cls,
        sids: np.ndarray,
        levels: Sequence[int],
        popularity: np.ndarray | None = None,
        items: np.ndarray | None = None,
    ) -> PrefixTree:
        """Build from SIDs i32[N, L]; numbers default to 0 … N-1; ``popularity`` f32[N] orders equals."""
        sids = np.asarray(sids, dtype=np.int32)
        if sids.ndim != 2 or sids.shape[1] != len(levels):
            raise UsageError(f"SIDs of shape {sids.shape} do not fit {len(levels)} levels")
        count = len(sids)
        if count and (sids.min() < 0 or (sids >= np.asarray(levels)).any()):
            row, level = np.argwhere((sids < 0) | (sids >= np.asarray(levels)))[0]
            raise UsageError(
                f"SID of row {row} has code {sids[row, level]} at level {level}, which has {levels[level]}"
            )
        numbers = np.arange(count, dtype=np.int32) if items is None else np.asarray(items, dtype=np.int32)
        weight = (
            np.zeros(count, dtype=np.float32) if popularity is None else np.asarray(popularity, np.float32)
        )
        keys = sid_keys(sids, levels)
        columns = tuple(sids.T[::-1]) if keys.dtype == object else (keys,)
        order = np.lexsort((numbers, -weight, *columns))
        return cls.of_sorted(sids[order], levels, numbers[order])

    @classmethod
    def of_sorted(cls, ranked: np.ndarray, levels: Sequence[int], items: np.ndarray) -> PrefixTree:
        """From legal SIDs i32[N, L] that are in order already, and the item numbers i32[N] that have them."""
        count, depth = ranked.shape
        first_child: list[np.ndarray] = []
        code: list[np.ndarray] = []
        new = np.zeros(count, dtype=bool)
        new[:1] = True
        parent_starts = np.zeros(min(count, 1), dtype=np.int64)
        for level in range(depth):
            new[1:] |= ranked[1:, level] != ranked[:-1, level]
            starts = np.flatnonzero(new)
            edges = np.searchsorted(starts, parent_starts)
            first = np.append(edges, len(starts)) if count else np.zeros(2)
            first_child.append(first.astype(np.int32))
            code.append(ranked[starts, level].astype(code_type(levels[level])))
            parent_starts = starts
        leaf_first_item = np.append(parent_starts, count).astype(np.int32)
        return cls(tuple(levels), tuple(first_child), tuple(code), leaf_first_item, items)

    @property
    def depth(self) -> int:
        """Number of levels L."""
        return len(self.levels)

    @property
    def node_counts(self) -> tuple[int, ...]:
        """Number of nodes at depth 1 … L."""
        return tuple(len(codes) for codes in self.code)

    @property
    def leaf_count(self) -> int:
        """Number of different SIDs."""
        return len(self.code[-1])

    def leaf_sids(self) -> np.ndarray:
        """The SIDs of all leaves, i32[n_L, L], in leaf order."""
        sids = np.empty((self.leaf_count, self.depth), dtype=np.int32)
        nodes = np.arange(self.leaf_count)
        for level in range(self.depth - 1, -1, -1):
            sids[:, level] = self.code[level][nodes]
            nodes = np.searchsorted(self.first_child[level], nodes, side="right") - 1
        return sids

    def leaf_ancestors(self, level: int) -> np.ndarray:
        """For each leaf the number of its ancestor at depth ``level + 1``, i32[n_L]."""
        nodes = np.arange(self.leaf_count)
        for above in range(self.depth - 1, level, -1):
            nodes = np.searchsorted(self.first_child[above], nodes, side="right") - 1
        return nodes.astype(np.int32)

    def find(self, prefix: Sequence[int]) -> int:
        """Node number at depth ``len(prefix)``, or -1 where no legal SID starts so."""
        node = 0
        for level, wanted in enumerate(prefix):
            low, high = self.first_child[level][node : node + 2]
            at = int(np.searchsorted(self.code[level][low:high], wanted)) + int(low)
            if at >= high or self.code[level][at] != wanted:
                return -1
            node = at
        return node

    def find_leaves(self, sids: np.ndarray) -> np.ndarray:
        """Leaf number of each SID i32[B, L], -1 for an illegal one; i32[B]."""
        if not self.leaf_count:
            return np.full(len(sids), -1, dtype=np.int32)
        own = sid_keys(self.leaf_sids(), self.levels)
        wanted = sid_keys(np.asarray(sids, dtype=np.int32), self.levels)
        at = np.minimum(np.searchsorted(own, wanted), len(own) - 1)
        return np.where(own[at] == wanted, at, -1).astype(np.int32)

    def node_sums(self, leaf_values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sums over the leaves below each node: leaf_values [n_L, …] → L arrays [n_{ℓ+1}, …]."""
        sums = [leaf_values]
        for level in range(self.depth - 1, 0, -1):
            sums.append(np.add.reduceat(sums[-1], self.first_child[level][:-1], axis=0))
        return tuple(reversed(sums))
