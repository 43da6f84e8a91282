"""Exposures: what each shopper saw of an item, and what they did about it within the attribution window.

A click or an order belongs to an exposure:

1. of the same request, shopper and item, where it names its request;
2. else to the newest one before it of the same shopper, item, scene and query;
3. else, where it names no query, to the newest one before it of the same shopper, item and scene;

each at most a window away. Orders look for a clicked exposure first. A click that finds none is an exposure
of its own (``shown`` is false), and so is such an order, which counts as clicked: what was acted on was seen.
So logs without impressions, or of orders alone, have exposures, too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from onesearch.errors import UsageError
from onesearch.training.pairs import normalised

WINDOW = timedelta(days=1)
"""How long after an exposure a click or an order still belongs to it."""

LIMIT = 5_000_000
"""Events that are joined at most, in whole days from the newest back: some 2 GB of memory."""

_BY_REQUEST = ("request_id", "user_id", "item_id")
_BY_QUERY = ("user_id", "item_id", "scene", "query")
_BY_SCENE = ("user_id", "item_id", "scene")


def exposures(
    events: pl.DataFrame | pl.LazyFrame, window: timedelta = WINDOW, until: datetime | None = None
) -> pl.DataFrame:
    """Join impressions with later clicks and orders.

    Args:
        events: rows of the store's table ``interactions``, in any order.
        window: longest time between an exposure and what belongs to it; positive.
        until: the moment up to which the log is complete; None: nothing more will come.

    Returns:
        One row an exposure, in order of time: list u32 (the request; without request ids a shopper's query
        within one window), ts, user_id, request_id, scene, query (normalised, null without one), item_id,
        position, propensity, shown bool, click_ts and order_ts (null: none), clicked, ordered bool, final
        bool (false where the window is still open, so that more may come). Repeated impressions of one item
        in one request are one exposure.
    """
    if window <= timedelta(0):
        raise UsageError(f"the attribution window has to be positive, not {window}")
    query = pl.when(pl.col("query") != "").then("query")
    rows = (
        events.lazy()
        .select(
            "ts", "user_id", "request_id", "scene", normalised(), "item_id", "position", "propensity",
            action=pl.col("action").cast(pl.String),
        )
        .with_columns(query=pl.when(pl.col("scene") == "search").then(query))
        .sort("ts", "user_id", "item_id", "position", maintain_order=True)
        .collect()
    )  # fmt: skip
    seen = _bases(rows.filter(pl.col("action") == "impression"), window, shown=True)
    clicks, orders = (rows.filter(pl.col("action") == action) for action in ("click", "order"))
    found, orphans = _attributed(seen, clicks, window)
    seen = _with_times(seen, found, "click_ts")
    alone = _bases(orphans, window, shown=False).with_columns(click_ts="ts")
    seen = _numbered(pl.concat([seen, alone]))
    found, rest = _attributed(seen.filter(pl.col("click_ts").is_not_null()), orders, window)
    more, orphans = _attributed(seen, rest, window)
    seen = _with_times(seen, pl.concat([found, more]), "order_ts")
    alone = _bases(orphans, window, shown=False).with_columns(click_ts="ts", order_ts="ts")
    seen = pl.concat([seen, alone]).with_columns(click_ts=pl.coalesce("click_ts", "order_ts"))
    open_from = None if until is None else until - window
    return (
        seen.sort("ts", "user_id", "item_id", maintain_order=True)
        .with_columns(
            list=_list(window),
            clicked=pl.col("click_ts").is_not_null(),
            ordered=pl.col("order_ts").is_not_null(),
            final=pl.lit(True) if open_from is None else pl.col("ts") <= open_from,
        )
        .select(
            "list", "ts", "user_id", "request_id", "scene", "query", "item_id", "position", "propensity",
            "shown", "click_ts", "order_ts", "clicked", "ordered", "final",
        )
    )  # fmt: skip


def newest(events: pl.LazyFrame, limit: int = LIMIT) -> pl.LazyFrame:
    """The events of the newest days that hold so many at most (of one day at least); all where they do."""
    days = (
        events.group_by(day=pl.col("ts").dt.truncate("1d"))
        .agg(events=pl.len())
        .sort("day", descending=True)
        .collect(engine="streaming")
    )
    fitting = days.filter(pl.col("events").cum_sum() <= limit)
    if len(fitting) == len(days):
        return events
    return events.filter(pl.col("ts") >= days["day"][max(0, len(fitting) - 1)])


def _bases(rows: pl.DataFrame, window: timedelta, shown: bool) -> pl.DataFrame:
    """Rows as exposures that nothing is known of yet; what repeats within a request is one."""
    once = pl.int_range(pl.len()) if shown else pl.col("ts").dt.truncate(window).cast(pl.Int64)
    # Without request ids two impressions may well be two requests; clicks of one window are taken for one.
    bases = (
        rows.with_columns(once=pl.when(pl.col("request_id").is_null()).then(once))
        .unique([*_BY_REQUEST, "scene", "query", "once"], keep="first", maintain_order=True)
        .drop("action", "once")
    )
    nothing = pl.lit(None, rows.schema["ts"])
    return _numbered(bases.with_columns(shown=pl.lit(shown), click_ts=nothing, order_ts=nothing))


def _numbered(bases: pl.DataFrame) -> pl.DataFrame:
    return bases.with_columns(exposure=pl.int_range(pl.len(), dtype=pl.UInt32))


def _attributed(
    bases: pl.DataFrame, acts: pl.DataFrame, window: timedelta
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What acts belong to: (exposure, act_ts), and the acts that belong to none."""
    found: list[pl.DataFrame] = []
    nameless = pl.col("query").is_null() & (pl.col("scene") == "search")
    # A request's clocks may differ a little, so the request itself decides there; elsewhere time has to.
    ways: list[tuple[tuple[str, ...], pl.Expr, Literal["nearest", "backward"]]] = [
        (_BY_REQUEST, pl.col("request_id").is_not_null(), "nearest"),
        (_BY_QUERY, ~nameless, "backward"),
        (_BY_SCENE, nameless, "backward"),
    ]
    for keys, can, strategy in ways:
        some = acts.filter(can)
        joined = some.sort("ts").join_asof(
            bases.select("exposure", "ts", *keys).sort("ts"),
            on="ts",
            by=list(keys),
            strategy=strategy,
            tolerance=window,
            check_sortedness=False,
        )
        found.append(joined.filter(pl.col("exposure").is_not_null()).select("exposure", act_ts="ts"))
        missed = joined.filter(pl.col("exposure").is_null()).select(acts.columns)
        acts = pl.concat([missed, acts.filter(~can)]).sort("ts", maintain_order=True)
    return pl.concat(found), acts


def _with_times(bases: pl.DataFrame, found: pl.DataFrame, column: str) -> pl.DataFrame:
    """Note the first act of each exposure."""
    first = found.group_by("exposure").agg(pl.col("act_ts").min())
    return (
        bases.join(first, on="exposure", how="left", maintain_order="left")
        .with_columns(pl.col("act_ts").alias(column))
        .drop("act_ts")
    )


def _list(window: timedelta) -> pl.Expr:
    """Which request: rows of one number were one list."""
    alone = pl.when(pl.col("request_id").is_null()).then(pl.col("ts").dt.truncate(window))
    return pl.struct("request_id", "user_id", "scene", "query", alone.alias("when")).rank("dense") - 1
