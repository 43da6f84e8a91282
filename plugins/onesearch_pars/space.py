"""The feature space of the three towers: built here, and nowhere else, for training and for serving.

Of a request there are :data:`VIEWS`, vectors in the space of the catalogue's embeddings: the query, and five
ways of summing the shopper's behaviour up. Of a candidate there are its own vector, which the towers multiply
with each view, and :data:`SCALARS`. Everything comes from a shopper's state, the catalogue, counters and
popularity, so that training, which passes those from before each search, sees just what serving does. Only
numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.contracts.user_encoder import ShopperState
from onesearch.shoppers.state import item_keys
from onesearch.shoppers.tastes import NAMES as TASTES
from onesearch.training.levels import calibrated

from onesearch_pars.features import MATCHING

VIEWS = ("query", "recent", "clicks", "orders", "relevant", "user_id")
_HISTORIES = VIEWS[1:]
SCALARS = (
    *MATCHING,
    *TASTES,
    "similar",
    *(f"cosine_{name}" for name in _HISTORIES),
    "log_popularity",
    "has_price",
    "price_z",
    "price_gap",
    "price_gap_squared",
    "category_clicks",
    "category_orders",
    "clicked_before",
    "ordered_before",
    "pair_impressions",
    "pair_clicks",
    "pair_orders",
    "pair_ctr",
    "pair_cvr",
    "item_impressions",
    "item_click_rate",
    "item_order_rate",
    "shopper_clicks",
    "shopper_orders",
)
"""Columns of :meth:`FeatureSpace.scalars`: how words and vectors match (:data:`MATCHING`); what the shopper
likes of items (:mod:`onesearch.shoppers.tastes`); whether the similarity of query and item may be believed, 0
or 1; cosines with the shopper's views; log-popularity; the price against its category (standardised) and
against what the shopper clicked and ordered; shares of the shopper's behaviour in the candidate's category;
whether they had it before; counters of query and item (logs, and the calibrated rates of DESIGN 9) and of the
item (logs, smoothed); how much is known of the shopper."""

_COSINE = MATCHING.index("cosine")
LONGEST = 300
"""Newest clicks and orders that are looked at."""
RELEVANT = 10
"""Events of the history nearest to the query that make the view ``relevant`` (the search unit of SIM)."""
CATEGORY_DEPTH = 2
"""How much of a category path makes a category here."""
_RATE_WEIGHT = 20.0
"""Impressions (or clicks) that an item's rate is smoothed by."""


@dataclass(frozen=True)
class History:
    """What a state means for one request.

    Attributes:
        views: f32[V, D], rows of :data:`VIEWS`, unit vectors or 0.
        similar: whether the similarity of query and item may be believed; else the query's view is 0.
        clicks, orders: i32[n], item numbers, oldest first.
        log_price: mean log price of them, NaN without any.
    """

    views: np.ndarray
    similar: bool
    clicks: np.ndarray
    orders: np.ndarray
    log_price: float


class FeatureSpace:
    """Features over one catalogue."""

    def __init__(
        self,
        items: pl.DataFrame,
        vectors: np.ndarray,
        keys: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """``items`` (item_id, category, price) and ``vectors`` f16[N, D], in item-number order.

        ``keys``: their keys u64[N], rising, and the numbers i32[N] these are of, where they are known.
        """
        self.table = vectors
        if keys is None:
            own = item_keys(items["item_id"].to_list())
            order = np.argsort(own).astype(np.int32)
            keys = own[order], order
        self._keys: np.ndarray = keys[0]
        self._order: np.ndarray = keys[1]
        path = pl.col("category").list.head(CATEGORY_DEPTH).list.join(" > ")
        self._category = (
            items.select(path.fill_null("").rank("dense").cast(pl.Int64) - 1)["category"]
            .to_numpy()
            .astype(np.int64)
        )
        self._categories = int(self._category.max(initial=-1)) + 1
        price = items["price"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        with np.errstate(invalid="ignore"):
            self._log_price = np.where(price >= 0, np.log1p(price), np.nan)
        self._price_z = _standardised(self._log_price, self._category, self._categories)
        known = self._log_price[np.isfinite(self._log_price)]
        self._price_spread = float(known.std()) or 1.0 if len(known) else 1.0

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """Item numbers i32[n] of the keys u64[m] that the catalogue has, in their order."""
        if not len(self._keys):
            return np.zeros(0, np.int32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._order[at[self._keys[at] == keys]]

    def history(self, query_vec: np.ndarray, state: ShopperState, similar: bool) -> History:
        """What a state means for a query of vector f32[D]; ``similar`` as for :class:`History`."""
        clicks = self.numbers(state.clicks.items[-LONGEST:])
        orders = self.numbers(state.orders.items[-LONGEST:])
        recent = self.numbers(np.array([pair.item for pair in state.recent], np.uint64))
        views = np.zeros((len(VIEWS), len(query_vec)), np.float32)
        if similar:
            views[0] = query_vec
        both = np.concatenate([clicks, orders])
        if len(both):
            seen = self.table[both].astype(np.float32)
            clicked, ordered = seen[: len(clicks)], seen[len(clicks) :]
            near = seen @ query_vec.astype(np.float32)
            nearest = seen[np.argsort(-near, kind="stable")[:RELEVANT]]
            weights = np.exp(np.sqrt(np.arange(1, len(clicks) + 1, dtype=np.float32)))
            views[2], views[3], views[4] = _unit(clicked.sum(0)), _unit(ordered.sum(0)), _unit(nearest.sum(0))
            views[5] = _unit(weights @ clicked)
        if len(recent):
            views[1] = _unit(self.table[recent].astype(np.float32).sum(0))
        prices = self._log_price[both]
        prices = prices[np.isfinite(prices)]
        return History(views, similar, clicks, orders, float(prices.mean()) if len(prices) else float("nan"))

    def scalars(
        self,
        matching: np.ndarray,
        tastes: np.ndarray,
        history: History,
        items: np.ndarray,
        vectors: np.ndarray,
        log_popularity: np.ndarray,
        pair_counts: np.ndarray,
        item_counts: np.ndarray,
    ) -> np.ndarray:
        """f32[K, S] in the order of :data:`SCALARS`.

        Args:
            matching: f32[K, M], columns of :data:`MATCHING`. tastes: f32[K, T].
            items: i32[K]. vectors: f32[K, D], of the items.
            log_popularity: f32[K]. pair_counts, item_counts: f32[K, 3].
        """
        price = self._log_price[items]
        known = np.isfinite(price)
        gap = np.nan_to_num((price - history.log_price) / self._price_spread).clip(-3, 3)
        rates = calibrated(*pair_counts.T)
        shown, clicked, ordered = item_counts.T
        category = self._category[items]
        columns = (
            log_popularity,
            known,
            np.where(known, self._price_z[items], 0.0),
            gap,
            np.minimum(gap**2, 6.0),
            self._share(history.clicks, category),
            self._share(history.orders, category),
            _times(history.clicks, items),
            _times(history.orders, items),
            *np.log1p(pair_counts).T,
            rates.ctr,
            rates.cvr,
            np.log1p(shown),
            np.log((clicked + 1.0) / (shown + _RATE_WEIGHT)),
            np.log((ordered + 1.0) / (clicked + _RATE_WEIGHT)),
            np.full(len(items), np.log1p(len(history.clicks))),
            np.full(len(items), np.log1p(len(history.orders))),
        )
        matching = np.array(matching, np.float32)
        matching[:, _COSINE] *= history.similar
        similar = np.full((len(items), 1), history.similar)
        cosines = vectors @ history.views[1:].T
        return np.concatenate(
            [
                matching,
                tastes,
                similar,
                cosines,
                np.stack([np.asarray(column, np.float32) for column in columns], axis=1),
            ],
            axis=1,
        ).astype(np.float32)

    def vectors(self, items: np.ndarray) -> np.ndarray:
        """f32[K, D] of items i32[K]."""
        return self.table[items].astype(np.float32)

    def _share(self, own: np.ndarray, category: np.ndarray) -> np.ndarray:
        """Share of the events in each candidate's category."""
        if not len(own):
            return np.zeros(len(category))
        return np.bincount(self._category[own], minlength=self._categories)[category] / len(own)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else np.zeros_like(vector)


def _times(own: np.ndarray, items: np.ndarray) -> np.ndarray:
    """log(1 + how often each of the items is among the events)."""
    if not len(own):
        return np.zeros(len(items))
    numbers, counts = np.unique(own, return_counts=True)
    at = np.minimum(np.searchsorted(numbers, items), len(numbers) - 1)
    return np.log1p(np.where(numbers[at] == items, counts[at], 0))


def _standardised(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Values less their group's mean, over the spread within groups; 0 where unknown."""
    known = np.isfinite(values)
    safe = np.where(known, values, 0.0)
    counts = np.maximum(np.bincount(group[known], minlength=groups), 1)
    means = np.bincount(group, safe * known, groups) / counts
    apart = np.where(known, safe - means[group], 0.0)
    spread = float(np.sqrt((apart**2).sum() / max(1, known.sum()))) or 1.0
    return (apart / spread).clip(-3, 3).astype(np.float32)


def log_popularity(popularity: np.ndarray) -> np.ndarray:
    """f32, as all features have it."""
    return np.log(np.maximum(popularity, 1e-6)).astype(np.float32)


def stacked(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Arrays f32[k, …] as one f32[B, width, …], 0 behind the last."""
    out = np.zeros((len(rows), width, *rows[0].shape[1:]), np.float32)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
