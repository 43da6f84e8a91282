"""Counters by query and item, and by item, for look-ups at serving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.errors import ArtifactError
from onesearch.training.counters import COUNTS

from onesearch_pars.documents import pack_texts, unpack_texts


@dataclass(frozen=True)
class Counts:
    """Impressions, clicks and orders.

    Attributes:
        queries: normalised query → row.
        starts: i64[Q + 1]. items: i32[E], rising within a query. pairs: f32[E, 3].
        alone: f32[N, 3], of each item.
    """

    queries: dict[str, int]
    starts: np.ndarray
    items: np.ndarray
    pairs: np.ndarray
    alone: np.ndarray

    @classmethod
    def build(cls, pairs: pl.DataFrame, alone: np.ndarray) -> Counts:
        """From query, item, impressions, clicks, orders, and f32[N, 3]."""
        known = pairs.sort("query", "item")
        sizes = known.group_by("query", maintain_order=True).len()
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes["len"].to_numpy(), out=starts[1:])
        counted = known.select(pl.col(*COUNTS).cast(pl.Float32)).to_numpy().reshape(-1, len(COUNTS))
        return cls(
            {query: row for row, query in enumerate(sizes["query"].to_list())},
            starts,
            known["item"].to_numpy().astype(np.int32),
            np.ascontiguousarray(counted),
            np.ascontiguousarray(alone, dtype=np.float32),
        )

    @classmethod
    def none(cls, items: int) -> Counts:
        """Of a log that says nothing of a catalogue of so many items."""
        empty = np.zeros(0, np.int32)
        width = len(COUNTS)
        return cls(
            {},
            np.zeros(1, np.int64),
            empty,
            np.zeros((0, width), np.float32),
            np.zeros((items, width), np.float32),
        )

    def of(self, query: str, items: np.ndarray) -> np.ndarray:
        """Counters f32[K, 3] of items i32[K] for a normalised query; 0 where nothing is known."""
        row = self.queries.get(query)
        if row is None:
            return np.zeros((len(items), len(COUNTS)), np.float32)
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        known = self.items[part]
        at = np.minimum(np.searchsorted(known, items), len(known) - 1)
        return np.where((known[at] == items)[:, None], self.pairs[part][at], np.float32(0))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {
            "counts.queries": pack_texts(self.queries),
            "counts.starts": self.starts,
            "counts.items": self.items,
            "counts.pairs": self.pairs,
            "counts.alone": self.alone,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Counts:
        """Read what :meth:`arrays` gave. Raises ArtifactError where the arrays do not fit each other."""
        queries = {query: row for row, query in enumerate(unpack_texts(arrays["counts.queries"]))}
        starts, items, pairs, alone = (
            arrays[f"counts.{name}"] for name in ("starts", "items", "pairs", "alone")
        )
        if len(starts) != len(queries) + 1 or not len(items) == len(pairs) == int(starts[-1]):
            raise ArtifactError("the index of counts does not fit together")
        return cls(queries, starts, items, pairs, alone)
