"""What personalisation is learnt and judged by: who clicked or ordered what for which search, and when it was
made.

A search is a request of a shopper. Serving sees the shopper as of the moment of the request, before anything
was shown, so that is the moment at which examples ask for a shopper's state. A state as of the *click* would
know the other clicks of the page, and one as of the *order* the click on the very item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from onesearch.training.pairs import CLICK_WEIGHT, ORDER_WEIGHT, normalised

if TYPE_CHECKING:
    from onesearch.data.store import Store

SITTING_S = 1_800
"""Where a log names no requests, a shopper's events of one query belong to one search until there is a gap of
more than so many seconds."""

TARGET_SCHEMA: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "query": pl.String(),
    "item": pl.Int32(),
    "ts": pl.Datetime("us", "UTC"),
    "moment": pl.Int64(),
    "worth": pl.Float32(),
}


def search_targets(store: Store) -> pl.DataFrame:
    """Clicks and orders of searches, each item of a request once, in order of time.

    An item that was clicked and ordered in the same request counts as ordered.

    Returns:
        Columns of :data:`TARGET_SCHEMA`: user_id, query (normalised), item (number), ts of the click or
        order, moment (whole seconds since 1970) of the request: its first event, impressions included;
        worth: what an order or a click counts for in pairs.
    """
    events = (
        store.interactions()
        .filter((pl.col("scene") == "search") & pl.col("query").is_not_null())
        .select("user_id", "ts", normalised(), "item_id", pl.col("action").cast(pl.String), "request_id")
        .filter(pl.col("query") != "")
    )
    numbers = store.items().select("item_id").with_row_index("item").lazy()
    named = _of_requests(events.filter(pl.col("request_id").is_not_null()), numbers)
    unnamed = _of_requests(_sittings(events.filter(pl.col("request_id").is_null())), numbers)
    targets = pl.concat([named, unnamed]).collect(engine="streaming")
    return targets.sort("moment", "ts", "user_id", "query", "item")


def _sittings(events: pl.LazyFrame) -> pl.LazyFrame:
    """Number the sittings of each shopper and query, in place of the requests that the log does not name."""
    gap = pl.col("ts").diff().over("user_id", "query").dt.total_seconds()
    number = (gap > SITTING_S).fill_null(False).cum_sum().over("user_id", "query")
    return events.sort("user_id", "query", "ts").with_columns(request_id=number.cast(pl.String))


def _of_requests(events: pl.LazyFrame, numbers: pl.LazyFrame) -> pl.LazyFrame:
    request = ["user_id", "query", "request_id"]
    moments = events.group_by(request).agg(moment=pl.col("ts").min().dt.epoch("s"))
    ordered = pl.col("action") == "order"
    return (
        events.filter(pl.col("action") != "impression")
        .group_by(*request, "item_id")
        .agg(
            ts=pl.coalesce(pl.col("ts").filter(ordered).min(), pl.col("ts").min()),
            worth=pl.when(ordered.any()).then(ORDER_WEIGHT).otherwise(CLICK_WEIGHT),
        )
        .join(moments, on=request, how="inner")
        .join(numbers, on="item_id", how="inner")
        .select([pl.col(name).cast(dtype) for name, dtype in TARGET_SCHEMA.items()])
    )
