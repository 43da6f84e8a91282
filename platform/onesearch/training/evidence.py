"""Which searches the reward is fitted on, what is known to be good there, and what it may know meanwhile.

The lists are of queries that no learner saw. How logs are split depends on what they are like:

*by time*, where shoppers search for the same things again: the newest slice of the log says what is good, and
only what came before it is evidence. So the reward learns what evidence is worth without seeing the answers.

*by query*, where they do not, or where there are only judgements: what is known of the held-out queries
says what is good, and what is known of the others is evidence.
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
"""Share of the slice's searches whose query must have been searched before for a split by time."""
FEWEST_LISTS = 50
"""A split by time that leaves fewer held-out queries than this gives way to the split by query."""


@dataclass(frozen=True)
class ListPlan:
    """What the reward's lists are made from.

    Attributes:
        queries: different held-out queries.
        times: i32[Q], how many of the drawn searches were for each: its list counts so often.
        gains: columns query, item, gain in (0, 1]; nothing else is known to be good.
        evidence: pairs that the reward may know while its weights are fitted.
        popularity: f32[N], of the same period as the evidence.
        split: how the logs were split. cutoff: where, if by time.
    """

    queries: list[str]
    times: np.ndarray
    gains: pl.DataFrame
    evidence: pl.DataFrame
    popularity: np.ndarray
    split: Literal["time", "query"]
    cutoff: datetime | None = None


def plan_lists(
    store: Store,
    pairs: pl.DataFrame,
    share: float,
    count: int,
    relevant_grade: float,
    half_life_days: float,
    seed: int,
) -> ListPlan:
    """Choose searches of held-out queries and split the logs around them.

    Args:
        store: its interactions are read again for a split by time.
        pairs: of :func:`onesearch.training.pairs.query_item_pairs`, over the whole log.
        share: share of the queries that is held out.
        count: lists at most.
        relevant_grade, half_life_days: as for the pairs and popularities of the whole log.
        seed: of the draw.
    """
    cutoff = slice_start(store)
    if cutoff is not None:
        plan = _by_time(store, cutoff, share, count, relevant_grade, half_life_days, seed)
        if plan is not None:
            return plan
    return _by_query(pairs, item_popularity(store, half_life_days), share, count, seed)


def slice_start(store: Store) -> datetime | None:
    """Where the newest slice of the log starts; None where it is not to be split by time."""
    events = _positive_events(store)
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
    seen, all_new = pl.collect_all(
        [newest.join(before, on="query", how="semi").select(pl.len()), newest.select(pl.len())]
    )
    return cutoff if seen.item() >= SEEN_SHARE * all_new.item() else None


def _positive_events(store: Store) -> pl.LazyFrame:
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


def _by_time(
    store: Store,
    cutoff: datetime,
    share: float,
    count: int,
    relevant_grade: float,
    half_life_days: float,
    seed: int,
) -> ListPlan | None:
    numbers = store.items().select("item_id").with_row_index("item").lazy()
    newest = (
        _positive_events(store)
        .filter(pl.col("ts") >= cutoff)
        .join(numbers, on="item_id", how="inner")
        .group_by("query", "item")
        .agg(gain=pl.col("worth").sum(), searches=pl.len())
        .collect(engine="streaming")
        .sort("query", "item")
    )
    newest = newest.filter(pl.Series(split_queries(newest["query"], share), dtype=pl.Boolean))
    if newest["query"].n_unique() < FEWEST_LISTS:
        return None
    queries, times = _draw(newest.group_by("query").agg(pl.col("searches").sum()).sort("query"), count, seed)
    evidence = query_item_pairs(store, relevant_grade, before=cutoff, half_life_days=half_life_days)
    # Judgements carry no time: those of held-out queries would tell the answers.
    hidden = pl.Series(split_queries(evidence["query"], share), dtype=pl.Boolean)
    told = pl.when(pl.col("grade") >= relevant_grade).then("grade").otherwise(0.0)
    evidence = evidence.with_columns(
        weight=pl.when(hidden).then(pl.col("weight") - told).otherwise("weight"),
        grade=pl.when(hidden).then(None).otherwise("grade"),
    ).filter(pl.col("last_ts").is_not_null() | pl.col("grade").is_not_null())
    popularity = item_popularity(store, half_life_days, before=cutoff)
    return ListPlan(queries, times, _gains(newest, queries), evidence, popularity, "time", cutoff)


def _by_query(pairs: pl.DataFrame, popularity: np.ndarray, share: float, count: int, seed: int) -> ListPlan:
    hidden = pl.Series(split_queries(pairs["query"], share), dtype=pl.Boolean)
    known = pairs.filter(hidden).select(
        "query", "item", gain=pl.max_horizontal(pl.col("grade").fill_null(0.0), "weight")
    )
    good = known.filter(pl.col("gain") > 0)
    positive = pairs.filter(hidden & (pairs["weight"] > 0))["query"].unique().sort()
    searches = pl.DataFrame({"query": positive}).with_columns(searches=pl.lit(1, pl.UInt32))
    queries, times = _draw(searches, count, seed)
    return ListPlan(queries, times, _gains(good, queries), pairs.filter(~hidden), popularity, "query")


def _draw(searches: pl.DataFrame, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Draw at most ``count`` searches without repetition: their queries, and how often each was drawn."""
    rows = np.repeat(np.arange(len(searches)), searches["searches"].to_numpy().astype(np.int64))
    if len(rows) > count:
        rows = np.random.default_rng([seed, 0x11]).choice(rows, count, replace=False)
    drawn, times = np.unique(rows, return_counts=True)
    return searches["query"].gather(drawn).to_list(), times.astype(np.int32)


def _gains(known: pl.DataFrame, queries: list[str]) -> pl.DataFrame:
    """Gains of the drawn queries, the best of a query at most 1."""
    wanted = known.join(pl.DataFrame({"query": queries}, schema={"query": pl.String}), on="query", how="semi")
    scaled = pl.col("gain") / pl.max_horizontal(pl.lit(1.0), pl.col("gain").max().over("query"))
    return wanted.select("query", pl.col("item").cast(pl.Int32), gain=scaled.cast(pl.Float32)).sort(
        "query", "item"
    )
