"""The catalogue as serving sees it: items, their SIDs and vectors, and the live prefix tree of searches."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from onesearch.errors import ArtifactError, UsageError
from onesearch.semantic_ids import PrefixTree
from onesearch.shoppers.state import item_keys

_DTYPES = {"I32": np.int32, "F16": np.float16, "F32": np.float32}
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
class Candidates:
    """What the beams reached for B requests.

    Attributes:
        items: i32[B, K], item numbers of the catalogue, best log-probability first; -1 is padding.
        log_probs: f32[B, K], the generator's; items that share a SID share it.
    """

    items: np.ndarray
    log_probs: np.ndarray


@dataclass(frozen=True)
class LiveTree:
    """One generation of the tree with its live arrays: what a search walks.

    Attributes:
        tree: the legal SIDs.
        log_mass: L arrays f32[n_{ℓ+1}], log of the popularity below each node; -inf where nothing is live.
        vectors: L arrays f16[n_{ℓ+1}, D], mean e° of the items below each node: what guides the beams.
        generation: number of the catalogue generation; answers carry it.
        item_alive: bool[N] narrowed by filters, None when every item is alive.
    """

    tree: PrefixTree
    log_mass: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]
    generation: int = 0
    item_alive: np.ndarray | None = None

    def narrowed(self, item_alive: np.ndarray, item_mass: np.ndarray) -> LiveTree:
        """The same tree with only the items of the mask bool[N] alive; dead branches get log-mass -inf."""
        mass = np.where(item_alive, item_mass, 0.0)
        return replace(self, log_mass=_log_mass(self.tree, mass), item_alive=item_alive)

    def expand(self, leaves: np.ndarray, log_probs: np.ndarray, limit: int | None = None) -> Candidates:
        """Leaves i32[B, K] → their live items, a SID's most popular first; at most ``limit`` a request."""
        first, items = self.tree.leaf_first_item, self.tree.leaf_items
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for row, scores in zip(leaves, log_probs, strict=True):
            found = row >= 0
            starts, ends = first[row[found]], first[row[found] + 1]
            counts = ends - starts
            at = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            numbers, probs = items[at], np.repeat(scores[found], counts)
            if self.item_alive is not None:
                alive = self.item_alive[numbers]
                numbers, probs = numbers[alive], probs[alive]
            rows.append((numbers[:limit], probs[:limit]))
        width = max([1, *(len(numbers) for numbers, _ in rows)])
        out = np.full((len(rows), width), -1, dtype=np.int32)
        scores_out = np.full((len(rows), width), -np.inf, dtype=np.float32)
        for at_row, (numbers, probs) in enumerate(rows):
            out[at_row, : len(numbers)] = numbers
            scores_out[at_row, : len(probs)] = probs
        return Candidates(out, scores_out)


@dataclass(frozen=True)
class CatalogueIndex:
    """A catalogue's items with their SIDs and vectors. The tree is built when it is first asked for.

    Attributes:
        items: one row an item, in item-number order, with :data:`ITEM_COLUMNS`.
        sids: i32[N, L]. vectors: f16[N, D], e° of each item. popularity: f32[N], positive.
        levels: codebook size of each SID level.
        generation: number of this catalogue generation.
    """

    items: pl.DataFrame
    sids: np.ndarray
    vectors: np.ndarray
    popularity: np.ndarray
    levels: tuple[int, ...]
    generation: int = 0

    @classmethod
    def build(
        cls,
        items: pl.DataFrame,
        sids: np.ndarray,
        vectors: np.ndarray,
        popularity: np.ndarray,
        levels: tuple[int, ...],
        generation: int = 0,
    ) -> CatalogueIndex:
        """From SIDs, vectors and popularity, all in the order of ``items``."""
        return cls(
            items.select(ITEM_COLUMNS),
            np.asarray(sids, dtype=np.int32),
            np.asarray(vectors, dtype=np.float16),
            np.asarray(popularity, dtype=np.float32),
            tuple(levels),
            generation,
        )

    @cached_property
    def live(self) -> LiveTree:
        """The tree over all items, with its live arrays."""
        tree = PrefixTree.build(self.sids, self.levels, self.popularity)
        masses, vectors = _log_mass(tree, self.popularity), _node_vectors(tree, self.vectors)
        return LiveTree(tree, masses, vectors, self.generation)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.items["item_id"].to_list())}

    def __len__(self) -> int:
        return len(self.items)

    def number(self, item_id: str) -> int | None:
        """Item number of an id, None when the catalogue has no such item."""
        return self._numbers.get(item_id)

    @cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        keys = item_keys(self.items["item_id"].to_list())
        order = np.argsort(keys)
        return keys[order], order.astype(np.int32)

    def numbers_of(self, keys: np.ndarray) -> np.ndarray:
        """Item numbers i32[n] of item keys u64[n]; -1 where the catalogue has no such item (any more)."""
        known, order = self._keys
        if not len(known):
            return np.full(len(keys), -1, np.int32)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, order[at], np.int32(-1))

    def tree_for(self, filters: Filters) -> LiveTree:
        """The live tree narrowed to what the filters let through."""
        return self.live.narrowed(self.passing(filters), self.popularity) if filters else self.live

    def passing(self, filters: Filters) -> np.ndarray:
        """bool[N]: which items pass the filters."""
        return passing(self.items, filters)

    def save(self, folder: Path) -> None:
        """Write ``items.parquet``, ``arrays.safetensors`` and ``index.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.items.write_parquet(folder / "items.parquet")
        arrays = {"sids": self.sids, "vectors": self.vectors, "popularity": self.popularity}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            folder / "arrays.safetensors",
        )
        about = {"levels": list(self.levels), "generation": self.generation}
        (folder / "index.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> CatalogueIndex:
        """Open what :meth:`save` wrote. Raises ArtifactError naming what does not fit.

        The arrays stay in the file, which the processes of a server thereby share.
        """
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            arrays = _map_arrays(folder / "arrays.safetensors")
            items = pl.read_parquet(folder / "items.parquet")
            return cls.build(
                items,
                arrays["sids"],
                arrays["vectors"],
                arrays["popularity"],
                tuple(about["levels"]),
                int(about["generation"]),
            )
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


def _map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped into memory; the library itself would copy them."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else size + 1
        if length > size:
            raise ValueError(f"{path.name} is cut short")
        header = json.loads(file.read(length))
    arrays = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            if 8 + length + end > size:
                raise ValueError(f"{path.name} is cut short")
            # A mapping cannot be empty.
            raw = np.memmap(path, np.uint8, "r", 8 + length + start, end - start) if end > start else b""
            arrays[name] = np.frombuffer(raw, _DTYPES[about["dtype"]]).reshape(about["shape"])
    return arrays


def _log_mass(tree: PrefixTree, item_mass: np.ndarray) -> tuple[np.ndarray, ...]:
    if not tree.leaf_count:
        return tuple(np.zeros(0, np.float32) for _ in tree.levels)
    leaf_mass = np.add.reduceat(item_mass[tree.leaf_items].astype(np.float64), tree.leaf_first_item[:-1])
    with np.errstate(divide="ignore"):
        return tuple(np.log(mass).astype(np.float32) for mass in tree.node_sums(leaf_mass))


def _node_vectors(tree: PrefixTree, vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    if not tree.leaf_count:
        return tuple(np.zeros((0, vectors.shape[1]), np.float16) for _ in tree.levels)
    counts = np.diff(tree.leaf_first_item).astype(np.float32)
    leaf_sums = np.add.reduceat(
        vectors[tree.leaf_items].astype(np.float32), tree.leaf_first_item[:-1], axis=0
    )
    sums, numbers = tree.node_sums(leaf_sums), tree.node_sums(counts)
    return tuple(
        (total / number[:, None]).astype(np.float16) for total, number in zip(sums, numbers, strict=True)
    )
