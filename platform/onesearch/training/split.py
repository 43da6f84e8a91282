"""What is held out: learnt from by nobody, and what early stopping, weights and the reward are judged by.

*By time*, where shoppers search for the same things again: the newest slice of the log is held out, and what
came before it is learnt from. That is the task that is served: tomorrow's searches, most of them seen before.

*By query*, where they do not, or where there are only judgements: a share of the queries is held out with all
that is known of them. That is the task that is served, too: searches that nobody has made yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from onesearch.training.pairs import (
    CLICK_WEIGHT,
    ORDER_WEIGHT,
    item_popularity,
    normalised,
    query_item_pairs,
    split_queries,
)

if TYPE_CHECKING:
    from onesearch.data.store import Store

SLICE_EVENTS = 20_000
SLICE_SHARE = 0.2
"""The slice goes back day by day until it has so many clicks and orders, or this share of all of them."""
SEEN_SHARE = 0.3
"""Share of the slice's clicks and orders whose query must have been searched before, for a split by time."""
HELD_OUT_LIMIT = 2_000
"""Queries held out at most: enough to stop early and to fit a reward by, in logs of any size."""


@dataclass(frozen=True)
class Split:
    """The pairs of a store, in two parts that know nothing of each other.

    Attributes:
        kind: how they were split. cutoff: where, if by time.
        trained: what learners learn from, and what the reward may know as evidence while it is fitted; its
            columns are those of :data:`onesearch.training.pairs.PAIR_SCHEMA`.
        held_out: query, item, weight > 0, searches (how many clicks and orders there were).
        popularity: f32[N], of the trained part alone where it was split by time.
    """

    kind: Literal["time", "query"]
    trained: pl.DataFrame
    held_out: pl.DataFrame
    popularity: np.ndarray
    cutoff: datetime | None = None

    def positives(self) -> pl.DataFrame:
        """query, item, weight > 0, held_out of both parts."""
        trained = self.trained.filter(pl.col("weight") > 0)
        parts = [(trained, False), (self.held_out, True)]
        return pl.concat(
            [part.select("query", "item", "weight", pl.lit(out).alias("held_out")) for part, out in parts]
        )


def split_logs(store: Store, share: float, relevant_grade: float, half_life_days: float) -> Split:
    """Split a store's pairs.

    Args:
        store: its interactions and judgements are read.
        share: share of the queries that a split by query holds out, up to :data:`HELD_OUT_LIMIT` of them.
        relevant_grade, half_life_days: as for :func:`onesearch.training.pairs.query_item_pairs`.
    """
    cutoff = slice_start(store)
    if cutoff is None:
        return _by_query(store, share, relevant_grade, half_life_days)
    newest = _slice(store, cutoff)
    trained = _before_slice(store, cutoff, newest["query"], relevant_grade, half_life_days)
    return Split("time", trained, newest, item_popularity(store, half_life_days, before=cutoff), cutoff)


def tokenizer_pairs(store: Store, relevant_grade: float) -> pl.DataFrame:
    """What a tokenizer may learn from, all events alike: columns of
    :data:`onesearch.training.pairs.PAIR_SCHEMA`.

    Of logs split by time, what came before the slice: embeddings that had seen it would make the slice's
    answers look near to their queries, and everything that is judged by it would trust similarity too much.
    Of others everything: a split by query is a hash of the query's text, by which tokenizers hold out too.
    """
    cutoff = slice_start(store)
    if cutoff is None:
        return query_item_pairs(store, relevant_grade)
    return _before_slice(store, cutoff, _slice(store, cutoff)["query"], relevant_grade, None)


def _before_slice(
    store: Store, cutoff: datetime, asked: pl.Series, relevant_grade: float, half_life_days: float | None
) -> pl.DataFrame:
    """The pairs known before the slice; ``asked`` are the slice's queries."""
    pairs = query_item_pairs(store, relevant_grade, before=cutoff, half_life_days=half_life_days)
    # Judgements carry no time: those of the slice's queries would tell the answers.
    told = pl.when(pl.col("grade") >= relevant_grade).then("grade").otherwise(0.0)
    hidden = pl.col("query").is_in(asked.unique().implode())
    return pairs.with_columns(
        weight=pl.when(hidden).then(pl.col("weight") - told).otherwise("weight"),
        grade=pl.when(hidden).then(None).otherwise("grade"),
    ).filter(pl.col("last_ts").is_not_null() | pl.col("grade").is_not_null())


def slice_start(store: Store) -> datetime | None:
    """Where the newest slice of the log starts; None where it is not to be split by time."""
    events = positive_events(store)
    days = (
        events.group_by(day=pl.col("ts").dt.truncate("1d"))
        .agg(events=pl.len())
        .sort("day", descending=True)
        .collect(engine="streaming")
    )
    if len(days) < 2:
        return None
    enough = min(SLICE_EVENTS, SLICE_SHARE * int(days["events"].sum()))
    last = int(np.searchsorted(days["events"].cum_sum().to_numpy(), enough))
    cutoff: datetime = days["day"][min(last, len(days) - 2)]
    before = events.filter(pl.col("ts") < cutoff).select("query").unique()
    newest = events.filter(pl.col("ts") >= cutoff)
    seen, every = pl.collect_all(
        [newest.join(before, on="query", how="semi").select(pl.len()), newest.select(pl.len())]
    )
    return cutoff if seen.item() >= SEEN_SHARE * every.item() else None


def _by_query(store: Store, share: float, relevant_grade: float, half_life_days: float) -> Split:
    pairs = query_item_pairs(store, relevant_grade, half_life_days=half_life_days)
    positive = pairs.filter(pl.col("weight") > 0)["query"].n_unique()
    share = min(share, HELD_OUT_LIMIT / max(1, positive))
    hidden = pl.Series(split_queries(pairs["query"], share), dtype=pl.Boolean)
    held_out = pairs.filter(hidden & (pairs["weight"] > 0)).select(
        "query", "item", "weight", searches=pl.col("clicks") + pl.col("orders")
    )
    return Split("query", pairs.filter(~hidden), held_out, item_popularity(store, half_life_days))


def _slice(store: Store, cutoff: datetime) -> pl.DataFrame:
    """What was clicked and ordered from a moment on, as ``Split.held_out``."""
    numbers = store.items().select("item_id").with_row_index("item").lazy()
    return (
        positive_events(store)
        .filter(pl.col("ts") >= cutoff)
        .join(numbers, on="item_id", how="inner")
        .group_by("query", pl.col("item").cast(pl.Int32))
        .agg(weight=pl.col("worth").sum().cast(pl.Float32), searches=pl.len().cast(pl.UInt32))
        .collect(engine="streaming")
        .sort("query", "item")
    )


def positive_events(store: Store) -> pl.LazyFrame:
    """Clicks and orders of searches: ts, query (normalised), item_id, worth."""
    action = pl.col("action").cast(pl.String)
    return (
        store.interactions()
        .filter((pl.col("scene") == "search") & pl.col("query").is_not_null() & (action != "impression"))
        .select(
            "ts",
            normalised(),
            "item_id",
            worth=pl.when(action == "order").then(ORDER_WEIGHT).otherwise(CLICK_WEIGHT),
        )
        .filter(pl.col("query") != "")
    )
