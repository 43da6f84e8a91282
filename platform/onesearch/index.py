"""The catalogue as serving sees it: items, their SIDs and vectors, and the live prefix tree of searches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from onesearch.arrays import map_arrays, write_arrays
from onesearch.codebooks import Codebooks
from onesearch.errors import ArtifactError, UsageError
from onesearch.lean_vectors import CodeGuide
from onesearch.live_tree import Candidates, Items, LiveTree, fit_guide
from onesearch.shoppers.state import item_keys

__all__ = ["ITEM_COLUMNS", "Candidates", "CatalogueIndex", "Filters", "LiveTree", "NodeVectors", "passing"]

NodeVectors = Literal["lean", "exact", "codes"]
"""What guides a search at the nodes of the tree: their vectors in few bytes, or exactly, or codes alone."""

ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "in_stock")


@dataclass(frozen=True)
class Filters:
    """What a request asks items to be; empty fields ask nothing.

    Attributes:
        category: names of categories, any of which an item must carry at any depth.
        brands: brand names, any of which an item must carry (case ignored).
        min_price, max_price: inclusive bounds; an item without a price fails either.
        in_stock: only items in stock.
    """

    category: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    in_stock: bool = False

    def __bool__(self) -> bool:
        return self != Filters()


@dataclass(frozen=True)
class Changes:
    """What becomes of a catalogue: rows that are new or take the place of others, and items that go.

    Attributes:
        rows: of items, each once, with :data:`ITEM_COLUMNS`.
        sids: i32[n, L]. vectors: f16[n, D]. popularity: f32[n], positive; of the rows.
        withdrawn: ids of items that go.
        told: all that is known of those rows whose text is new (item_id, and columns of the store's items).
    """

    rows: pl.DataFrame
    sids: np.ndarray
    vectors: np.ndarray
    popularity: np.ndarray
    withdrawn: Sequence[str] = ()
    told: pl.DataFrame | None = None


@dataclass(frozen=True)
class CatalogueIndex:
    """A catalogue's items with their SIDs and vectors. The tree is built when it is first asked for.

    Item numbers hold as long as the release: new items come last, and one that is withdrawn keeps its row
    and its number, dead, in case it comes back.

    Attributes:
        items: one row an item, in item-number order, with :data:`ITEM_COLUMNS`.
        sids: i32[N, L]. vectors: f16[N, D], e° of each item. popularity: f32[N], positive.
        levels: codebook size of each SID level.
        generation: number of this catalogue generation.
        alive: bool[N], false for items that were withdrawn; None: every item is alive.
        newcomers: of the items whose text is not what the release knows: ``number`` and all that was told of
            them (columns of the store's items); None: there are none.
        guide: what stands in for vectors of the tree's nodes; None: they have vectors of their own.
    """

    items: pl.DataFrame
    sids: np.ndarray
    vectors: np.ndarray
    popularity: np.ndarray
    levels: tuple[int, ...]
    generation: int = 0
    alive: np.ndarray | None = None
    newcomers: pl.DataFrame | None = None
    guide: CodeGuide | None = None

    @classmethod
    def build(
        cls,
        items: pl.DataFrame,
        sids: np.ndarray,
        vectors: np.ndarray,
        popularity: np.ndarray,
        levels: tuple[int, ...],
        generation: int = 0,
        alive: np.ndarray | None = None,
    ) -> CatalogueIndex:
        """From SIDs, vectors and popularity, all in the order of ``items``."""
        return cls(
            items.select(ITEM_COLUMNS),
            np.asarray(sids, dtype=np.int32),
            np.asarray(vectors, dtype=np.float16),
            np.asarray(popularity, dtype=np.float32),
            tuple(levels),
            generation,
            None if alive is None else np.asarray(alive, dtype=np.bool_),
        )

    @cached_property
    def live(self) -> LiveTree:
        """The tree over all live items, with its live arrays."""
        return LiveTree.build(self._arrays, self.levels, self.generation, self.guide)

    def guided_by(self, guide: CodeGuide) -> CatalogueIndex:
        """The same catalogue without vectors of nodes."""
        return replace(self, guide=guide)

    def fit_guide(self, codebooks: Codebooks, seed: int) -> CodeGuide:
        """What could stand in for vectors of this catalogue's nodes."""
        return fit_guide(self.live.tree, self._arrays, codebooks, seed)

    @property
    def _arrays(self) -> Items:
        return Items(self.sids, self.vectors, self.popularity, self.alive)

    def __len__(self) -> int:
        """Number of item numbers, those of withdrawn items among them."""
        return len(self.items)

    @property
    def live_count(self) -> int:
        """Number of items that are alive."""
        return len(self) if self.alive is None else int(self.alive.sum())

    def number(self, item_id: str) -> int | None:
        """Item number of an id, None when the catalogue has no such item."""
        found = int(self.numbers_of(item_keys([item_id]))[0])
        return found if found >= 0 and self.items["item_id"][found] == item_id else None

    @cached_property
    def keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys u64[N] of all items, withdrawn ones too, rising, and the numbers i32[N] they are of."""
        keys = item_keys(self.items["item_id"].to_list())
        order = np.argsort(keys, kind="stable")
        return keys[order], order.astype(np.int32)

    def numbers_of(self, keys: np.ndarray, withdrawn: bool = False) -> np.ndarray:
        """Item numbers i32[n] of item keys u64[n]; -1 where the catalogue has no such item (any more).

        With ``withdrawn``, items that were withdrawn are found too.
        """
        known, order = self.keys
        if not len(known):
            return np.full(len(keys), -1, np.int32)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found = np.where(known[at] == keys, order[at], np.int32(-1))
        if self.alive is not None and not withdrawn:
            found[~self.alive[found]] = -1  # what was not found stays so, whatever the last item is
        return found

    def tree_for(self, filters: Filters) -> LiveTree:
        """The live tree narrowed to what the filters let through."""
        return self.live.narrowed(self.passing(filters), self.popularity) if filters else self.live

    def passing(self, filters: Filters) -> np.ndarray:
        """bool[N]: which live items pass the filters."""
        passed = passing(self.items, filters)
        return passed if self.alive is None else passed & self.alive

    def following(self, changes: Changes, generation: int) -> CatalogueIndex:
        """The next generation. Arrays that nothing changes in are shared with this one.

        Raises UsageError where an item's id has the key of another item, or an item is named twice.
        """
        ids = changes.rows["item_id"].to_list()
        known = self._known([*ids, *changes.withdrawn])
        put, going = known[: len(ids)], known[len(ids) :]
        going = going[going >= 0]
        new = np.flatnonzero(put < 0)
        put[new] = len(self) + np.arange(len(new), dtype=np.int32)
        total = len(self) + len(new)

        was_alive = np.zeros(total, bool)
        was_alive[: len(self)] = True if self.alive is None else self.alive
        alive = was_alive.copy()
        alive[put], alive[going] = True, False
        sids = _with_rows(self.sids, put, changes.sids, total)
        vectors = _with_rows(self.vectors, put, changes.vectors, total)
        popularity = _with_rows(self.popularity, put, changes.popularity, total)

        old = put[put < len(self)]
        moved = was_alive != alive
        for before, after in ((self.sids, sids), (self.vectors, vectors)):
            if before is not after:
                moved[old] |= (before[old] != after[old]).any(axis=1)
        weighed = np.zeros(total, bool)
        weighed[old] = (self.popularity[old] != popularity[old]) & alive[old] & ~moved[old]
        numbers = np.flatnonzero(moved)
        before = numbers[was_alive[numbers]]
        roots = np.unique(np.concatenate([self.sids[before, 0], sids[numbers[alive[numbers]], 0]]))
        following = CatalogueIndex(
            _with_items(self.items, put, changes.rows.select(ITEM_COLUMNS), len(new)),
            sids,
            vectors,
            popularity,
            self.levels,
            generation,
            self._same_alive(alive),
            self._newcomers(changes.told, dict(zip(ids, put.tolist(), strict=True))),
            self.guide,
        )
        arrays = following._arrays
        live = self.live.following(arrays, numbers, roots, np.flatnonzero(weighed), generation)
        # Both are ready: what the cached properties would make from scratch.
        following.__dict__["live"] = live
        following.__dict__["keys"] = self._keys_with([ids[row] for row in new.tolist()])
        return following

    def _known(self, ids: Sequence[str]) -> np.ndarray:
        """Numbers i32[n] of items, withdrawn ones too; -1 for new ones."""
        if len(set(ids)) < len(ids):
            raise UsageError("catalogue changes: an item is named twice")
        found = self.numbers_of(item_keys(list(ids)), withdrawn=True)
        own = self.items["item_id"][np.maximum(found, 0)].to_list() if len(self) else []
        for item_id, number, theirs in zip(ids, found.tolist(), own, strict=False):
            if number >= 0 and theirs != item_id:
                raise UsageError(f"item {item_id[:80]!r} has the key of item {theirs[:80]!r}: rename one")
        return found

    def _same_alive(self, alive: np.ndarray) -> np.ndarray | None:
        if self.alive is not None and np.array_equal(alive, self.alive):
            return self.alive
        return None if alive.all() else alive

    def _keys_with(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if not ids:
            return self.keys
        known, order = self.keys
        keys = item_keys(list(ids))
        rising = np.argsort(keys, kind="stable")
        at = np.searchsorted(known, keys[rising])
        numbers = (len(known) + rising).astype(np.int32)
        return np.insert(known, at, keys[rising]), np.insert(order, at, numbers)

    def _newcomers(self, told: pl.DataFrame | None, numbers: dict[str, int]) -> pl.DataFrame | None:
        if told is None or not len(told):
            return self.newcomers
        own = [numbers[item_id] for item_id in told["item_id"].to_list()]
        rows = told.with_columns(number=pl.Series(own, dtype=pl.Int32))
        if self.newcomers is None:
            return rows
        return pl.concat([self.newcomers.filter(~pl.col("number").is_in(own)), rows], how="diagonal")

    def save(self, folder: Path) -> None:
        """Write ``items.parquet``, ``arrays.safetensors`` and ``index.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.items.write_parquet(folder / "items.parquet")
        arrays = {"sids": self.sids, "vectors": self.vectors, "popularity": self.popularity}
        write_arrays(folder / "arrays.safetensors", arrays)
        about = {"levels": list(self.levels), "generation": self.generation}
        (folder / "index.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, node_vectors: NodeVectors = "exact") -> CatalogueIndex:
        """Open what :meth:`save` wrote; ``node_vectors`` says what guides searches.

        Raises ArtifactError naming what does not fit.

        The arrays stay in the file, which the processes of a server thereby share.
        """
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            arrays = map_arrays(folder / "arrays.safetensors")
            items = pl.read_parquet(folder / "items.parquet")
            index = cls.build(
                items,
                arrays["sids"],
                arrays["vectors"],
                arrays["popularity"],
                tuple(about["levels"]),
                int(about["generation"]),
            )
            if node_vectors == "exact":
                return index
            return index.guided_by(CodeGuide.load(folder, remainders=node_vectors == "lean"))
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{folder}: not a catalogue index ({error})") from error


def passing(items: pl.DataFrame, filters: Filters) -> np.ndarray:
    """bool[N]: which items (with :data:`ITEM_COLUMNS`) pass the filters."""
    if (
        filters.min_price is not None
        and filters.max_price is not None
        and filters.min_price > filters.max_price
    ):
        raise UsageError(f"filters: min_price {filters.min_price} is above max_price {filters.max_price}")
    condition = pl.lit(True)
    if filters.category:
        condition &= pl.col("category").list.set_intersection(list(filters.category)).list.len() > 0
    if filters.brands:
        condition &= pl.col("brand").str.to_lowercase().is_in([brand.lower() for brand in filters.brands])
    if filters.min_price is not None:
        condition &= pl.col("price") >= filters.min_price
    if filters.max_price is not None:
        condition &= pl.col("price") <= filters.max_price
    if filters.in_stock:
        condition &= pl.col("in_stock")
    passed = items.select(passed=condition.fill_null(False))["passed"]
    return np.broadcast_to(passed.to_numpy(), (len(items),)).copy()


def _with_rows(array: np.ndarray, numbers: np.ndarray, rows: np.ndarray, total: int) -> np.ndarray:
    """The array with rows put in place, ``total`` long; itself where they are there already."""
    rows = np.asarray(rows, array.dtype)
    if total == len(array) and np.array_equal(array[numbers], rows):
        return array
    made = np.empty((total, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    made[numbers] = rows
    return made


def _with_items(items: pl.DataFrame, numbers: np.ndarray, rows: pl.DataFrame, new: int) -> pl.DataFrame:
    """The rows with some put in place; the last ``new`` numbers are new."""
    source = np.arange(len(items) + new)
    source[numbers] = len(items) + np.arange(len(rows))
    return pl.concat([items, rows.cast(items.schema)])[source] if len(rows) else items
