"""What a shopper likes of an item that is not what was asked for: its brand, colour, style …, and its price.

Of the items that a shopper clicked or ordered, n have a value of some attribute type (navy, of n_type with
any colour), where in the catalogue the share s of the items with a colour are navy. An item with the values V
has the affinity, a log-odds that starts at 0 and grows with what is known::

    Σ_{v ∈ V} log( (n_v + α·s_v) / (n_type(v) + α) / s_v )

It is taken over all that the shopper did, and over the ten things most like the query. The price level of an
item is its log price less the mean of its category, a shopper's the mean of their items' levels, and the fit
of a price minus the squared distance of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from onesearch.errors import ArtifactError
from onesearch.shoppers.state import ShopperState, item_keys

SAYS_WHAT = ("Entity", "Specifications", "Price", "Model", "Anchor", "Marketing")
"""Attribute types that say what an item is, or praise it: no taste is about them."""
ALPHA, ALPHA_HERE = 20.0, 10.0
HERE = 10
"""So many of a shopper's items, those most like the query, say what is liked of things like that."""
NAMES = ("taste", "taste_here", "price_fit")


@dataclass(frozen=True)
class Tastes:
    """The values of a catalogue's items.

    Attributes:
        keys: u64[N], item keys. level: f32[N], price levels; 0 without a price.
        first, values: i64[N + 1] and i32[n], the different values of each item.
        kind: i32[V], the attribute type of each value. share: f32[V], s_v.
    """

    keys: np.ndarray
    level: np.ndarray
    first: np.ndarray
    values: np.ndarray
    kind: np.ndarray
    share: np.ndarray

    @classmethod
    def build(cls, items: pl.DataFrame) -> Tastes:
        """Of a catalogue's rows: item_id, and price, category, attributes where there are any."""
        numbered = items.with_row_index("item")
        values = _values(numbered)
        each = values.select("item", "type", "value").unique(maintain_order=True)
        kinds = each["type"].unique(maintain_order=True)
        names = each.group_by("type", "value", maintain_order=True).len().with_row_index("number")
        totals = each.group_by("type").agg(total=pl.col("item").n_unique())
        names = names.join(totals, on="type", how="left", maintain_order="left")
        place = {kind: at for at, kind in enumerate(kinds.to_list())}
        rows = each.join(names, on=["type", "value"], how="left", maintain_order="left")
        counts = np.bincount(rows["item"].to_numpy(), minlength=len(items))
        return cls(
            keys=item_keys(items["item_id"].to_list()),
            level=_levels(items),
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            values=rows["number"].to_numpy().astype(np.int32),
            kind=np.array([place[kind] for kind in names["type"].to_list()], np.int32),
            share=(names["len"] / names["total"]).to_numpy().astype(np.float32),
        )

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], order

    def features(
        self, state: ShopperState, query_vec: np.ndarray, items: np.ndarray, vectors: np.ndarray
    ) -> np.ndarray:
        """f32[K, 3] in the order of :data:`NAMES`, for items i32[K] and a query f32[D]; vectors f16[N, D]."""
        made = np.zeros((len(items), len(NAMES)), np.float32)
        liked = self.numbers(np.concatenate([state.clicks.items, state.orders.items]))
        if not len(liked):
            return made
        here = liked
        if len(liked) > HERE:
            alike = vectors[liked].astype(np.float32) @ query_vec.astype(np.float32)
            here = liked[np.argsort(-alike, kind="stable")[:HERE]]
        made[:, 0] = self._affinity(liked, items, ALPHA)
        made[:, 1] = self._affinity(here, items, ALPHA_HERE)
        made[:, 2] = -np.square(self.level[items] - self.level[liked].mean())
        return made

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """Item numbers i64[n] of the keys u64[m] that the catalogue (still) has, in their order."""
        known, order = self._sorted
        if not len(known):
            return np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return order[at[known[at] == keys]]

    def _affinity(self, liked: np.ndarray, items: np.ndarray, alpha: float) -> np.ndarray:
        """f32[K]."""
        if not len(self.kind):
            return np.zeros(len(items), np.float32)
        seen = np.bincount(self.values[_spread(self.first, liked)[0]], minlength=len(self.kind))
        of_kind = np.bincount(self.kind, weights=seen)
        odds = (seen + alpha * self.share) / (of_kind[self.kind] + alpha) / self.share
        at, row = _spread(self.first, items)
        affinity = np.bincount(row, weights=np.log(odds)[self.values[at]], minlength=len(items))
        return affinity.astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {f"tastes.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Tastes:
        """Read what :meth:`arrays` gave. Raises ArtifactError or KeyError where they do not fit."""
        made = cls(**{name: arrays[f"tastes.{name}"] for name in cls.__dataclass_fields__})
        if len(made.first) != len(made.keys) + 1 or len(made.kind) != len(made.share):
            raise ArtifactError("the values of the items do not fit the items")
        return made


def _values(numbered: pl.DataFrame) -> pl.DataFrame:
    """item, type, value (lower case) of the attributes that a taste may be about; brands without any."""
    if "attributes" in numbered.columns:
        rows = numbered.select("item", pl.col("attributes").alias("entry")).explode("entry")
        rows = rows.filter(pl.col("entry").is_not_null()).unnest("entry")
        rows = rows.filter(~pl.col("type").is_in(list(SAYS_WHAT)) & pl.col("value").is_not_null())
    elif "brand" in numbered.columns:
        rows = numbered.select("item", type=pl.lit("Brand"), value="brand").drop_nulls()
    else:
        rows = pl.DataFrame(schema={"item": pl.UInt32, "type": pl.String, "value": pl.String})
    return rows.with_columns(pl.col("value").str.to_lowercase())


def _levels(items: pl.DataFrame) -> np.ndarray:
    if "price" not in items.columns:
        return np.zeros(len(items), np.float32)
    kind = pl.col("category").list.last() if "category" in items.columns else pl.lit("")
    log_price = pl.when(pl.col("price") > 0).then(pl.col("price").log())
    priced = items.select(kind=kind.fill_null(""), log_price=log_price)
    level = pl.col("log_price") - pl.col("log_price").mean().over("kind")
    return priced.select(level=level.fill_null(0.0).cast(pl.Float32))["level"].to_numpy()


def _spread(first: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of some rows stand, i64[n], and which of the rows each is of, i64[n]."""
    counts = first[rows + 1] - first[rows]
    row = np.repeat(np.arange(len(rows)), counts)
    return np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + first[rows][row], row
