"""How often things were seen, clicked and ordered: of a query and an item together, and of an item alone.

Every exposure is an impression (what was clicked was seen, logged or not), so that impressions ≥ clicks ≥
orders always holds. One shopper counts at most :data:`USER_CAP` times in each counter of one query and item
(or of one item), whatever they do: a robot that clicks ten thousand times is worth three clicks.
"""

from __future__ import annotations

import polars as pl

from onesearch.training.pairs import CLICK_WEIGHT, ORDER_WEIGHT

USER_CAP = 3
"""What one shopper can add to one counter."""
COUNTS = ("impressions", "clicks", "orders")
PAIR, ITEM = ("query", "item_id"), ("item_id",)


def counters(exposures: pl.DataFrame, by: tuple[str, ...] = PAIR, user_cap: int = USER_CAP) -> pl.DataFrame:
    """Counters of all there is in a log.

    Args:
        exposures: what :func:`onesearch.training.attribution.exposures` made.
        by: :data:`PAIR` (searches alone) or :data:`ITEM` (both scenes).
        user_cap: what one shopper can add to one counter.

    Returns:
        ``by``, impressions, clicks, orders u32, sorted by ``by``; only what was exposed at all.
    """
    own = (
        exposures.filter(_counted(by))
        .group_by(*by, "user_id")
        .agg(impressions=pl.len(), clicks=pl.col("clicked").sum(), orders=pl.col("ordered").sum())
    )
    capped = own.with_columns(pl.col(*COUNTS).clip(upper_bound=user_cap))
    return capped.group_by(*by).agg(pl.col(*COUNTS).sum().cast(pl.UInt32)).sort(*by)


def counters_before(
    exposures: pl.DataFrame, asked: pl.DataFrame, by: tuple[str, ...] = PAIR, user_cap: int = USER_CAP
) -> pl.DataFrame:
    """The same counters as they stood just before some moments.

    An impression counts from its own time on, a click and an order from when they happened: nothing of the
    moment itself or later is known.

    Args:
        exposures, by, user_cap: as for :func:`counters`.
        asked: ``by`` and ts, in any order.

    Returns:
        impressions, clicks, orders u32, in the order of ``asked``; 0 where nothing was known.
    """
    known = exposures.filter(_counted(by))
    acts = [
        known.filter(pl.col(ts).is_not_null()).select(
            *by,
            "user_id",
            pl.col(ts).alias("ts"),
            *(pl.lit(int(name == at), pl.UInt32).alias(name) for name in COUNTS),
        )
        for at, ts in zip(COUNTS, ("ts", "click_ts", "order_ts"), strict=True)
    ]
    own = [*by, "user_id"]
    rising = (
        pl.concat(acts)
        .sort("ts", maintain_order=True)
        .with_columns(
            pl.when(pl.col(name).cum_sum().over(own) <= user_cap).then(name).otherwise(0) for name in COUNTS
        )
        .with_columns(pl.col(*COUNTS).cum_sum().over(list(by)))
    )
    rows = asked.select(*by, "ts").with_row_index("row").sort("ts")
    joined = rows.join_asof(
        rising.drop("user_id"),
        on="ts",
        by=list(by),
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    return joined.sort("row").select(pl.col(*COUNTS).fill_null(0).cast(pl.UInt32))


def _counted(by: tuple[str, ...]) -> pl.Expr:
    return (pl.col("scene") == "search") & pl.col("query").is_not_null() if "query" in by else pl.lit(True)


def popularity_before(
    exposures: pl.DataFrame, asked: pl.DataFrame, half_life_days: float = 14.0
) -> pl.DataFrame:
    """Popularity of items as it stood just before some moments.

    ``1 + Σ worth · 2^(-age / half-life)`` of the clicks and orders before the moment, with the age counted
    from it: what :func:`onesearch.training.pairs.item_popularity` says of a log that ends there.

    Args:
        exposures: what :func:`onesearch.training.attribution.exposures` made.
        asked: item_id and ts, in any order.
        half_life_days: positive.

    Returns:
        popularity f32 ≥ 1, in the order of ``asked``.
    """
    acts = pl.concat(
        exposures.filter(pl.col(ts).is_not_null()).select(
            "item_id", pl.col(ts).alias("ts"), worth=pl.lit(worth)
        )
        for ts, worth in (("click_ts", CLICK_WEIGHT), ("order_ts", ORDER_WEIGHT))
    )
    first = pl.lit(acts["ts"].min(), acts.schema["ts"])

    def half_lives(ts: pl.Expr) -> pl.Expr:
        return (ts - first).dt.total_seconds() / (86_400 * half_life_days)

    # Sums grow as worth · 2^(time / half-life), so that what a moment asks for is a sum times one factor.
    rising = acts.sort("ts", maintain_order=True).select(
        "item_id", "ts", sum=(pl.col("worth") * 2 ** half_lives(pl.col("ts"))).cum_sum().over("item_id")
    )
    rows = asked.select("item_id", "ts").with_row_index("row").sort("ts")
    joined = rows.join_asof(
        rising, on="ts", by="item_id", strategy="backward", allow_exact_matches=False, check_sortedness=False
    ).sort("row")
    faded = pl.col("sum") * 2 ** -half_lives(pl.col("ts"))
    return joined.select(popularity=(1 + faded.fill_null(0.0)).cast(pl.Float32))
