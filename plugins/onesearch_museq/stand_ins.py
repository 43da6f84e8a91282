"""The items most clicked for a query, which stand in for a shopper whose behaviour is unknown.

Queries and items are named by 64-bit hashes: a release may be served with a newer catalogue, whose item
numbers are others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from onesearch.errors import ArtifactError
from onesearch.shoppers.state import NO_ITEM, item_keys
from onesearch.training.pairs import normalise_queries, query_item_pairs
from safetensors.numpy import load_file, save_file

from onesearch_museq.artifact import STAND_INS

if TYPE_CHECKING:
    from onesearch.data.store import Store

# Above every grade: training's stand-ins are what was clicked and ordered, so judgements say nothing here.
_NO_GRADE = 2.0


@dataclass(frozen=True)
class StandIns:
    """A table from queries to items.

    Attributes:
        queries: u64[Q], hashes of normalised query texts, rising.
        items: u64[Q, n], item keys, most clicked first; NO_ITEM fills up.
    """

    queries: np.ndarray
    items: np.ndarray

    @classmethod
    def fit(cls, store: Store, count: int, half_life_days: float) -> StandIns:
        """The ``count`` heaviest items of each query of the whole log, by the weight of
        :func:`onesearch.training.pairs.query_item_pairs` (clicks, orders twice, halved by every half-life of
        age); the first item of the catalogue wins a tie.
        """
        best = (
            query_item_pairs(store, _NO_GRADE, half_life_days=half_life_days)
            .filter(pl.col("weight") > 0)
            .sort("query", "weight", "item", descending=[False, True, False])
            .with_columns(place=pl.int_range(pl.len()).over("query"))
            .filter(pl.col("place") < count)
        )
        texts = best["query"].unique(maintain_order=True)
        row_of = {text: row for row, text in enumerate(texts)}
        rows = np.array([row_of[text] for text in best["query"]], np.int64)
        items = np.full((len(texts), count), NO_ITEM, np.uint64)
        keys = item_keys(store.items()["item_id"].to_list())
        items[rows, best["place"].to_numpy()] = keys[best["item"].to_numpy()]
        queries = item_keys(texts.to_list())
        order = np.argsort(queries)
        return cls(queries[order], items[order])

    def of(self, queries: list[str]) -> list[np.ndarray]:
        """Item keys u64[≤ n] of query texts, most clicked first; none for a query nobody clicked for."""
        if not len(self.queries):
            return [np.zeros(0, np.uint64) for _ in queries]
        keys = item_keys(normalise_queries(queries))
        at = np.minimum(np.searchsorted(self.queries, keys), len(self.queries) - 1)
        found = np.where((self.queries[at] == keys)[:, None], self.items[at], np.uint64(NO_ITEM))
        return [row[row != NO_ITEM] for row in found]

    def save(self, folder: Path) -> None:
        """Write ``stand_ins.safetensors``, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{STAND_INS}.tmp"
        save_file({"queries": self.queries, "items": self.items}, draft)
        draft.replace(folder / STAND_INS)

    @classmethod
    def load(cls, folder: Path) -> StandIns:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file where it does not fit."""
        path = folder / STAND_INS
        try:
            arrays = load_file(path)
            queries, items = arrays["queries"], arrays["items"]
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{path}: not a table of stand-ins ({error})") from error
        if queries.dtype != np.uint64 or items.dtype != np.uint64 or items.shape[:1] != queries.shape:
            raise ArtifactError(f"{path}: not a table of stand-ins (arrays of other shapes or types)")
        return cls(queries, items)
