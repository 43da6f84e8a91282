"""What the baselines may know: the training store, split for tuning as it is for training and the reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.errors import UsageError
from onesearch.evaluation.lexical import item_texts
from onesearch.evaluation.metrics import Relevant
from onesearch.index import CatalogueIndex
from onesearch.training.drawing import draw, scaled_gains
from onesearch.training.pairs import item_popularity, normalise_queries, query_item_pairs
from onesearch.training.split import split_logs

if TYPE_CHECKING:
    from onesearch.config import TrainingConfig
    from onesearch.data.store import Store

NEVER_FADES_DAYS = 1e6
TUNING_QUERIES = 1_000


@dataclass(frozen=True)
class Counters:
    """What is known of queries and items from a log, or from a part of it.

    Attributes:
        by_query: normalised query → item numbers i32 and weights f32 of what was clicked, ordered or judged
            good.
        popularity: f32[N] ≥ 1.
    """

    by_query: dict[str, tuple[np.ndarray, np.ndarray]]
    popularity: np.ndarray

    @classmethod
    def of(cls, pairs: pl.DataFrame, popularity: np.ndarray) -> Counters:
        """From pairs of :func:`onesearch.training.pairs.query_item_pairs`."""
        good = pairs.filter(pl.col("weight") > 0).group_by("query", maintain_order=True).agg("item", "weight")
        rows = zip(good["query"], good["item"], good["weight"], strict=True)
        return cls(
            {query: (items.to_numpy(), weights.to_numpy()) for query, items, weights in rows}, popularity
        )

    def evidence(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """Items i32 and weights f32 known for a query as it was typed."""
        nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return self.by_query.get(normalise_queries([query])[0], nothing)


@dataclass(frozen=True)
class Tuning:
    """Searches to tune on: queries, what is relevant, how often each counts, and what may be known then."""

    queries: list[str]
    relevant: list[Relevant]
    times: np.ndarray
    counters: Counters


@dataclass(frozen=True)
class Known:
    """Everything the baselines are made from.

    Attributes:
        texts: what each item says. vectors: f32[N, D], e° of the items. embed: query → e° f32[D].
        prices: f32[N], NaN where unknown.
        counters: from the whole training log. tuning: from before the held-out searches.
    """

    texts: list[str]
    vectors: np.ndarray
    embed: Callable[[str], np.ndarray]
    prices: np.ndarray
    counters: Counters
    tuning: Tuning

    @classmethod
    def of(
        cls, store: Store, index: CatalogueIndex, tokenizer: TokenizerServer, training: TrainingConfig
    ) -> Known:
        """Read a store. Raises UsageError where its catalogue is not the release's."""
        items = store.items()
        if items["item_id"].to_list() != index.items["item_id"].to_list():
            raise UsageError(f"{store.path}: its catalogue is not the one that the release was trained on")
        split = split_logs(store, training.held_out, training.relevant_grade, NEVER_FADES_DAYS)
        drawn, times = draw(split.held_out, min(training.reward_queries, TUNING_QUERIES), training.seed)
        gains = scaled_gains(split.held_out).group_by("query").agg("item", "gain")
        good = {
            query: Relevant(item.to_numpy(), gain.to_numpy())
            for query, item, gain in zip(gains["query"], gains["item"], gains["gain"], strict=True)
        }
        pairs = query_item_pairs(store, training.relevant_grade)
        return cls(
            texts=item_texts(items),
            vectors=index.vectors.astype(np.float32),
            embed=lambda query: np.asarray(tokenizer.embed([query], "query")[0], dtype=np.float32),
            prices=items["price"].cast(pl.Float32).fill_null(np.nan).to_numpy(),
            counters=Counters.of(pairs, item_popularity(store, NEVER_FADES_DAYS)),
            tuning=Tuning(
                drawn,
                [good[query] for query in drawn],
                times.astype(np.float64),
                Counters.of(split.trained, split.popularity),
            ),
        )
