"""What the log says of a query and an item: how often it was clicked and ordered for that very query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.errors import ArtifactError

from onesearch_pars.documents import pack_texts, unpack_texts


@dataclass(frozen=True)
class Evidence:
    """Logged pairs by query.

    Attributes:
        queries: normalised query → row.
        starts: i64[Q + 1]. items: i32[E], rising within a query. weights: f32[E], positive.
    """

    queries: dict[str, int]
    starts: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    @classmethod
    def build(cls, pairs: pl.DataFrame) -> Evidence:
        """From pairs of :func:`onesearch.training.pairs.query_item_pairs` that have a weight."""
        known = pairs.filter(pl.col("weight") > 0).sort("query", "item")
        counts = known.group_by("query", maintain_order=True).len()
        starts = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts["len"].to_numpy(), out=starts[1:])
        return cls(
            {query: row for row, query in enumerate(counts["query"].to_list())},
            starts,
            known["item"].to_numpy().astype(np.int32),
            known["weight"].to_numpy().astype(np.float32),
        )

    def of(self, query: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of items i32[K] for a normalised query, and their shares of its total; two f32[K]."""
        row = self.queries.get(query)
        if row is None:
            nothing = np.zeros(len(items), dtype=np.float32)
            return nothing, nothing
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        known, weights = self.items[part], self.weights[part]
        at = np.minimum(np.searchsorted(known, items), len(known) - 1)
        weight = np.where(known[at] == items, weights[at], np.float32(0.0))
        return weight, weight / np.float32(weights.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {
            "evidence.queries": pack_texts(self.queries),
            "evidence.starts": self.starts,
            "evidence.items": self.items,
            "evidence.weights": self.weights,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Evidence:
        """Read what :meth:`arrays` gave. Raises ArtifactError where the arrays do not fit each other."""
        queries = {query: row for row, query in enumerate(unpack_texts(arrays["evidence.queries"]))}
        starts, items, weights = (arrays[f"evidence.{name}"] for name in ("starts", "items", "weights"))
        if len(starts) != len(queries) + 1 or not len(items) == len(weights) == int(starts[-1]):
            raise ArtifactError("the index of evidence does not fit together")
        return cls(queries, starts, items, weights)
