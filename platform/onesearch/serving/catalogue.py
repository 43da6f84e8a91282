"""The catalogue as the resolver and the gateway need it: item rows by number, without vectors or tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from safetensors import safe_open

from onesearch.errors import ArtifactError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex, Filters, passing


class ItemRow(NamedTuple):
    """What a shopper sees of an item, and its SID."""

    item_id: str
    title: str
    category: tuple[str, ...]
    brand: str
    price: float | None
    in_stock: bool
    sid: tuple[int, ...]


@dataclass(frozen=True)
class ItemTable:
    """Rows of all items of one catalogue generation, by item number.

    Attributes:
        items: with the columns of :data:`onesearch.index.ITEM_COLUMNS`.
        sids: i32[N, L]. popularity: f32[N].
        generation: the catalogue generation that the numbers belong to.
        alive: bool[N], false for items that were withdrawn; None: every item is there.
    """

    items: pl.DataFrame
    sids: np.ndarray
    popularity: np.ndarray
    generation: int
    alive: np.ndarray | None = None
    _number: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, index: CatalogueIndex) -> ItemTable:
        """The rows of an index that is loaded anyway."""
        return cls(index.items, index.sids, index.popularity, index.generation, index.alive)

    @classmethod
    def load(cls, folder: Path) -> ItemTable:
        """Read only the rows, SIDs and popularity of a saved index. Raises ArtifactError naming the file."""
        path = folder
        try:
            path = folder / "index.json"
            generation = int(json.loads(path.read_text(encoding="utf-8"))["generation"])
            path = folder / "items.parquet"
            items = pl.read_parquet(path).select(ITEM_COLUMNS)
            path = folder / "arrays.safetensors"
            with safe_open(path, framework="np") as arrays:
                sids, popularity = arrays.get_tensor("sids"), arrays.get_tensor("popularity")
            path, alive = folder / "state.safetensors", None
            if path.exists():  # of a generation
                with safe_open(path, framework="np") as state:
                    alive = state.get_tensor("alive") if "alive" in state.keys() else None  # noqa: SIM118
        except Exception as error:  # safetensors and polars raise types of their own
            raise ArtifactError(f"{path}: cannot be read ({error})") from error
        return cls(items, sids, popularity, generation, alive)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def live_count(self) -> int:
        """Number of items that are not withdrawn."""
        return len(self) if self.alive is None else int(self.alive.sum())

    def passing(self, filters: Filters) -> np.ndarray | None:
        """bool[N]: which items are there and pass the filters; None: all."""
        if not filters:
            return self.alive
        passed = passing(self.items, filters)
        return passed if self.alive is None else passed & self.alive

    def rows(self, numbers: Sequence[int] | np.ndarray) -> list[ItemRow]:
        """Rows of some item numbers, in that order."""
        wanted = np.asarray(numbers, dtype=np.int64)
        if not len(wanted):
            return []
        columns = self.items[wanted].to_dict(as_series=False)
        return [
            ItemRow(item_id, title, tuple(category or ()), brand or "", price, stock is not False, sid)
            for item_id, title, category, brand, price, stock, sid in zip(
                *(columns[name] for name in ITEM_COLUMNS), map(tuple, self.sids[wanted].tolist()), strict=True
            )
        ]

    def number(self, item_id: str) -> int | None:
        """Item number of an id, None when the catalogue has no such item."""
        if not self._number:
            self._number.update(
                (item_id, number) for number, item_id in enumerate(self.items["item_id"].to_list())
            )
        found = self._number.get(item_id)
        return None if found is None or (self.alive is not None and not self.alive[found]) else found
