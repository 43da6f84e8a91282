"""What the cascade's ranker looks at: words and vectors, what kinds of things are near the query, counters,
and what is known of the shopper.

Of the shopper it is told what the rewards are told: what they like of attributes and prices
(:mod:`onesearch.shoppers.tastes`), how near an item is to what they clicked and ordered, how much of it was
of the item's category, and whether they had the item before.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from onesearch.evaluation.baselines import Parts
from onesearch.evaluation.known import Counters
from onesearch.shoppers.state import ShopperState
from onesearch.shoppers.tastes import NAMES as TASTES

QUERY_FEATURES = (
    "cosine",
    "bm25",
    "bm25_stemmed",
    "cosine_below_best",
    "bm25_below_best",
    "cosine_place",
    "bm25_place",
    "log_popularity",
    "log_recent_popularity",
    "known_weight",
    "known_share",
    "pair_impressions",
    "pair_clicks",
    "pair_orders",
    "item_impressions",
    "item_click_rate",
    "item_order_rate",
    "title_words",
    "query_words",
    "log_price",
    "kind_share",
    "category_share",
)
SHOPPER_FEATURES = (
    *TASTES,
    "cosine_clicks",
    "cosine_orders",
    "cosine_recent",
    "cosine_relevant",
    "category_clicks",
    "category_orders",
    "clicked_before",
    "ordered_before",
    "price_gap",
    "shopper_clicks",
    "shopper_orders",
)
FEATURES = (*QUERY_FEATURES, *SHOPPER_FEATURES)
LONGEST, RELEVANT = 300, 10
"""Newest clicks and orders looked at; events nearest to the query that say what matters for it."""
_CATEGORY_DEPTH = 2
_RATE_WEIGHT = 20.0
_SHARP = 20.0


class Features:
    """Features over one catalogue."""

    def __init__(self, parts: Parts) -> None:
        self._known = known = parts.known
        self._title_words = np.array([len(text.split()) for text in known.texts], dtype=np.float32)
        price = known.items["price"].cast(pl.Float32).fill_null(np.nan).to_numpy()
        self._log_price = np.log1p(np.where(price >= 0, price, np.nan))
        path = pl.col("category")
        self._kind, self._category = (
            known.items.select(number=own.list.join(" > ").fill_null("").rank("dense").cast(pl.Int64) - 1)[
                "number"
            ].to_numpy()
            for own in (path, path.list.head(_CATEGORY_DEPTH))
        )
        self._categories = int(self._category.max(initial=-1)) + 1

    def of(
        self,
        query: str,
        query_vec: np.ndarray,
        state: ShopperState,
        counters: Counters,
        items: np.ndarray,
        scores: tuple[np.ndarray, np.ndarray, np.ndarray],
        weight: np.ndarray,
    ) -> np.ndarray:
        """f32[C, F] in the order of :data:`FEATURES`.

        Args:
            items: i32[C], rising or not. scores: cosines, BM25 and BM25 of stems f32[C] each.
            weight: f32[C], what is known for the query.
        """
        cosine, words, stems = scores
        total = float(counters.evidence(query)[1].sum())
        seen, clicked, ordered = counters.alone[items].T
        columns = (
            cosine,
            words,
            stems,
            cosine.max(initial=0.0) - cosine,
            stems.max(initial=0.0) - stems,
            _places(cosine),
            _places(stems),
            np.log(counters.popularity[items]),
            np.log(counters.recent[items]),
            weight,
            weight / max(1e-6, total),
            *np.log1p(counters.counts(query, items)).T,
            np.log1p(seen),
            np.log((clicked + 1.0) / (seen + _RATE_WEIGHT)),
            np.log((ordered + 1.0) / (clicked + _RATE_WEIGHT)),
            self._title_words[items],
            np.full(len(items), len(query.split())),
            self._log_price[items],
            *_votes(cosine, (self._kind[items], self._category[items])),
            *self._shopper(query_vec, state, items),
        )
        return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)

    def _shopper(self, query_vec: np.ndarray, state: ShopperState, items: np.ndarray) -> list[np.ndarray]:
        """Columns of :data:`SHOPPER_FEATURES`."""
        tastes, vectors = self._known.tastes, self._known.vectors
        clicks = tastes.numbers(state.clicks.items[-LONGEST:])
        orders = tastes.numbers(state.orders.items[-LONGEST:])
        recent = tastes.numbers(np.array([pair.item for pair in state.recent], np.uint64))
        both = np.concatenate([clicks, orders])
        near = both[np.argsort(-(vectors[both] @ query_vec), kind="stable")[:RELEVANT]]
        price = self._log_price[both]
        known = price[np.isfinite(price)]
        usual = float(known.mean()) if len(known) else np.nan
        category = self._category[items]
        return [
            *tastes.features(state, query_vec, items, vectors).T,
            *(vectors[items] @ self._centre(own) for own in (clicks, orders, recent, near)),
            *(self._share(own, category) for own in (clicks, orders)),
            *(np.log1p((items[:, None] == own).sum(axis=1)) for own in (clicks, orders)),
            self._log_price[items] - usual,
            np.full(len(items), np.log1p(len(clicks))),
            np.full(len(items), np.log1p(len(orders))),
        ]

    def _centre(self, own: np.ndarray) -> np.ndarray:
        """The direction of some items, f32[D]; 0 without any."""
        total = self._known.vectors[own].sum(axis=0)
        length = float(np.linalg.norm(total))
        return total / length if length > 0 else total

    def _share(self, own: np.ndarray, category: np.ndarray) -> np.ndarray:
        if not len(own):
            return np.zeros(len(category))
        return np.bincount(self._category[own], minlength=self._categories)[category] / len(own)


def _votes(cosine: np.ndarray, groups: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Shares of the candidates' votes, softmax of their similarity, for each one's kind and category."""
    votes = np.exp(_SHARP * (cosine - cosine.max(initial=-1.0)))
    votes /= max(1e-9, float(votes.sum()))
    return [np.bincount(own, votes)[own] if len(own) else votes for own in groups]


def _places(scores: np.ndarray) -> np.ndarray:
    """Rank of each score among the scores, 0 the highest; f32."""
    places = np.empty(len(scores), dtype=np.float32)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places
