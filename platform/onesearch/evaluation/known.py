"""What the baselines may know: the training store, split for tuning as it is for training and the reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.errors import UsageError
from onesearch.evaluation.lexical import item_texts
from onesearch.evaluation.metrics import Relevant
from onesearch.index import CatalogueIndex
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import ShopperState
from onesearch.shoppers.tastes import Tastes
from onesearch.training.drawing import DrawnSearches, draw, draw_searches, scaled_gains
from onesearch.training.pairs import item_popularity, normalise_queries, query_item_pairs
from onesearch.training.split import Split, split_logs

if TYPE_CHECKING:
    from onesearch.config import TrainingConfig
    from onesearch.data.store import Store

NEVER_FADES_DAYS = 1e6
TUNING_QUERIES = 1_000
COUNTED = ("impressions", "clicks", "orders")


@dataclass(frozen=True)
class Counters:
    """What is known of queries and items from a log, or from a part of it.

    Attributes:
        by_query: normalised query → item numbers i32, rising; weights f32 of what was clicked, ordered or
            judged good (0: only shown); and impressions, clicks and orders f32[n, 3].
        popularity: f32[N] ≥ 1, of all that was clicked and ordered. recent: the same, faded by age.
        alone: f32[N, 3], impressions, clicks and orders of each item in searches.
    """

    by_query: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    popularity: np.ndarray
    recent: np.ndarray
    alone: np.ndarray

    @classmethod
    def of(cls, pairs: pl.DataFrame, popularity: np.ndarray, recent: np.ndarray) -> Counters:
        """From pairs of :func:`onesearch.training.pairs.query_item_pairs`."""
        counted = pairs.select(pl.col(*COUNTED).cast(pl.Float32)).to_numpy().reshape(-1, len(COUNTED))
        alone = np.zeros((len(popularity), len(COUNTED)), np.float32)
        np.add.at(alone, pairs["item"].to_numpy(), counted)
        ordered = pairs.with_row_index("row").sort("query", "item")
        items, weights = ordered["item"].to_numpy(), ordered["weight"].to_numpy()
        counted = counted[ordered["row"].to_numpy()]
        sizes = ordered.group_by("query", maintain_order=True).len()
        ends = np.cumsum(sizes["len"].to_numpy())[:-1]
        parts = (np.split(column, ends) for column in (items, weights, counted))
        by_query = dict(zip(sizes["query"].to_list(), zip(*parts, strict=True), strict=False))
        return cls(by_query, popularity, recent, alone)

    def evidence(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """Items i32 and positive weights f32 known for a query as it was typed."""
        items, weights, _ = self._known(query)
        good = weights > 0
        return items[good], weights[good]

    def counts(self, query: str, items: np.ndarray) -> np.ndarray:
        """Impressions, clicks and orders f32[K, 3] of items i32[K] for a query as it was typed."""
        known, _, counted = self._known(query)
        if not len(known):
            return np.zeros((len(items), len(COUNTED)), np.float32)
        at = np.minimum(np.searchsorted(known, items), len(known) - 1)
        return np.where((known[at] == items)[:, None], counted[at], np.float32(0))

    def _known(self, query: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nothing = np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, len(COUNTED)), np.float32)
        return self.by_query.get(normalise_queries([query])[0], nothing)


@dataclass(frozen=True)
class Tuning:
    """Queries to tune on: what is relevant for them, how often each counts, and what may be known then."""

    queries: list[str]
    relevant: list[Relevant]
    times: np.ndarray
    counters: Counters


@dataclass(frozen=True)
class Lists:
    """Held-out searches to fit a ranker on: the very searches that the reward's lists are made of.

    Attributes:
        queries, states: of S searches, in order of time where they have one; what was known of each shopper
            just before.
        relevant: what this shopper chose for the query (where the log is split by query: what anybody chose).
        times: f64[S], how often each counts.
    """

    queries: list[str]
    states: list[ShopperState]
    relevant: list[Relevant]
    times: np.ndarray

    @classmethod
    def of(cls, drawn: DrawnSearches) -> Lists:
        """Those that found anything."""
        times = np.bincount(drawn.rows, minlength=len(drawn.queries)).astype(np.float64)
        chosen = drawn.gains.group_by("row", maintain_order=True).agg("item", "gain").sort("row")
        rows = chosen["row"].to_list()
        return cls(
            [drawn.queries[row] for row in rows],
            [drawn.states[row] for row in rows],
            [
                Relevant(items.to_numpy(), gains.to_numpy())
                for items, gains in zip(chosen["item"], chosen["gain"], strict=True)
            ],
            times[rows],
        )


@dataclass(frozen=True)
class Known:
    """Everything the baselines are made from.

    Attributes:
        items: the catalogue. texts: what each item says. vectors: f32[N, D], e° of the items.
        embed: query → e° f32[D].
        counters: from the whole training log. tuning: from before the held-out searches.
        draw: makes :attr:`lists`.
    """

    items: pl.DataFrame
    texts: list[str]
    vectors: np.ndarray
    embed: Callable[[str], np.ndarray]
    counters: Counters
    tuning: Tuning
    draw: Callable[[], DrawnSearches]

    @classmethod
    def of(
        cls, store: Store, index: CatalogueIndex, tokenizer: TokenizerServer, training: TrainingConfig
    ) -> Known:
        """Read a store. Raises UsageError where its catalogue is not the release's."""
        items = store.items()
        if items["item_id"].to_list() != index.items["item_id"].to_list():
            raise UsageError(f"{store.path}: its catalogue is not the one that the release was trained on")
        split = split_logs(store, training.held_out, training.relevant_grade, NEVER_FADES_DAYS)
        pairs, fade = query_item_pairs(store, training.relevant_grade), training.half_life_days
        return cls(
            items=items,
            texts=item_texts(items),
            vectors=index.vectors.astype(np.float32),
            embed=lambda query: np.asarray(tokenizer.embed([query], "query")[0], dtype=np.float32),
            counters=Counters.of(
                pairs, item_popularity(store, NEVER_FADES_DAYS), item_popularity(store, fade)
            ),
            tuning=_tuning(split, item_popularity(store, fade, before=split.cutoff), training),
            draw=lambda: draw_searches(split, store, lambda: EventLog.of_store(store), training),
        )

    @cached_property
    def lists(self) -> Lists:
        """Searches to fit a personal ranker on."""
        return Lists.of(self.draw())

    @cached_property
    def tastes(self) -> Tastes:
        """What shoppers can like of the catalogue's items."""
        return Tastes.build(self.items)


def _tuning(split: Split, recent: np.ndarray, training: TrainingConfig) -> Tuning:
    drawn, times = draw(split.held_out, min(training.reward_queries, TUNING_QUERIES), training.seed)
    gains = scaled_gains(split.held_out).group_by("query").agg("item", "gain")
    good = {
        query: Relevant(item.to_numpy(), gain.to_numpy())
        for query, item, gain in zip(gains["query"], gains["item"], gains["gain"], strict=True)
    }
    return Tuning(
        drawn,
        [good[query] for query in drawn],
        times.astype(np.float64),
        Counters.of(split.trained, split.popularity, recent),
    )
