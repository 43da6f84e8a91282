"""Figures of each day of a log, and of a catalogue: what the data checks look at."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from onesearch.training.pairs import normalised

PLACES = 10
TOP = 50
MISORDERED_HOURS = 6.0
"""A click so much later than the impression of its request is a clock gone wrong."""


def day_figures(events: pl.LazyFrame, items: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """One row a day, in order.

    Args:
        events: rows of the table ``interactions``. items: the catalogue, for the categories of clicked items.
        now: the end of the night's last day; what is later belongs to no day.

    Returns: day; events, searches, shoppers, impressions, clicks, orders (searches' only, feeds aside);
        repeated, orphans, misordered, no_query, no_place: shares of events (of clicks and orders, of
        searches, of impressions); top_clicks: clicks of the busiest shoppers, falling; top3: share of the
        clicks with a place that are in the first three; places: impressions and clicks of the first ten
        places; hours, queries, categories: how events, searches and clicks are spread (lists of struct{key,
        count}).
    """
    day = pl.col("ts").dt.date()
    rows = (
        events.filter(pl.col("ts") < now)
        .select(
            "ts", "user_id", "request_id", normalised(), "item_id", "position",
            scene=pl.col("scene").cast(pl.String), action=pl.col("action").cast(pl.String), day=day,
        )
        .collect()
    )  # fmt: skip
    if not len(rows):
        return pl.DataFrame(schema={"day": pl.Date()})
    search = rows.filter(pl.col("scene") == "search")
    counted = _counted(search)
    made = (
        rows.group_by("day")
        .agg(events=pl.len(), shoppers=pl.col("user_id").n_unique())
        .join(counted, on="day", how="left")
        .join(_repeated(rows), on="day", how="left")
        .join(_attached(search), on="day", how="left")
        .join(_busiest(search), on="day", how="left")
        .join(_placed(search), on="day", how="left")
        .join(_spread(rows, pl.col("ts").dt.hour().cast(pl.String), "hours"), on="day", how="left")
        .join(_spread(search.filter(_IMPRESSED), pl.col("query"), "queries"), on="day", how="left")
        .join(_categories(search, items), on="day", how="left")
    )
    numbers = ["searches", "impressions", "clicks", "orders"]
    shares = ["repeated", "orphans", "misordered", "no_query", "no_place"]
    return made.with_columns(pl.col(*numbers).fill_null(0), pl.col(*shares).fill_null(0.0)).sort("day")


_IMPRESSED = pl.col("action") == "impression"
_ACTED = pl.col("action") != "impression"


def _counted(search: pl.DataFrame) -> pl.DataFrame:
    request = pl.coalesce("request_id", pl.concat_str("user_id", pl.lit("\0"), pl.col("query").fill_null("")))
    none = pl.col("query").is_null() | (pl.col("query") == "")
    return search.group_by("day").agg(
        searches=request.n_unique(),
        impressions=_IMPRESSED.sum(),
        clicks=(pl.col("action") == "click").sum(),
        orders=(pl.col("action") == "order").sum(),
        no_query=none.mean(),
        no_place=(pl.col("position").is_null() & _IMPRESSED).sum() / _IMPRESSED.sum().clip(1),
    )


def _repeated(rows: pl.DataFrame) -> pl.DataFrame:
    """Events that say what another says: the same shopper, item, action, request and place, within the
    day."""
    same = ["day", "user_id", "request_id", "query", "item_id", "action", "position"]
    known = rows.filter(pl.col("request_id").is_not_null())
    different = known.select(same).unique().group_by("day").agg(different=pl.len())
    return (
        known.group_by("day")
        .agg(named=pl.len())
        .join(different, on="day")
        .select("day", repeated=1 - pl.col("different") / pl.col("named"))
    )


def _attached(search: pl.DataFrame) -> pl.DataFrame:
    """Clicks and orders that lack their impression, or whose times contradict it."""
    named = search.filter(pl.col("request_id").is_not_null())
    key = ["request_id", "item_id"]
    seen = named.filter(_IMPRESSED).group_by(key).agg(seen=pl.col("ts").min())
    clicked = named.filter(pl.col("action") == "click").group_by(key).agg(clicked=pl.col("ts").min())
    acted = named.filter(_ACTED).join(seen, on=key, how="left").join(clicked, on=key, how="left")
    before = pl.when(pl.col("action") == "order").then(pl.max_horizontal("seen", "clicked")).otherwise("seen")
    gap = (pl.col("ts") - before).dt.total_seconds() / 3600
    wrong = ((gap < -1 / 3600) | (gap > MISORDERED_HOURS)).fill_null(False)
    return acted.group_by("day").agg(orphans=pl.col("seen").is_null().mean(), misordered=wrong.mean())


def _busiest(search: pl.DataFrame) -> pl.DataFrame:
    clicks = search.filter(pl.col("action") == "click").group_by("day", "user_id").agg(count=pl.len())
    return clicks.group_by("day").agg(top_clicks=pl.col("count").sort(descending=True).head(TOP))


def _placed(search: pl.DataFrame) -> pl.DataFrame:
    clicks = search.filter((pl.col("action") == "click") & pl.col("position").is_not_null())
    placed = search.filter(pl.col("position").is_between(0, PLACES - 1)).group_by("day", "position")
    curve = placed.agg(shown=_IMPRESSED.sum(), clicked=(pl.col("action") == "click").sum()).sort("position")
    return (
        clicks.group_by("day")
        .agg(top3=(pl.col("position") < 3).mean(), placed_clicks=pl.len())
        .join(
            curve.group_by("day").agg(places=pl.struct("position", "shown", "clicked")), on="day", how="left"
        )
    )


def _spread(rows: pl.DataFrame, key: pl.Expr, name: str) -> pl.DataFrame:
    counts = rows.with_columns(key=key.fill_null("")).group_by("day", "key").agg(count=pl.len())
    return counts.sort("key").group_by("day").agg(pl.struct("key", "count").alias(name))


def _categories(search: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    known = items.select("item_id", category=pl.col("category").list.head(2).list.join(" / "))
    clicks = search.filter(pl.col("action") == "click").join(known, on="item_id", how="left")
    return _spread(clicks, pl.col("category").fill_null("(unknown item)"), "categories")


def ahead_of(events: pl.LazyFrame, now: datetime) -> float:
    """Share of all events that are dated after ``now``."""
    answer = events.select(share=(pl.col("ts") >= now).mean()).collect().item()
    return float(answer or 0.0)


def catalogue_figures(items: pl.DataFrame, champion: pl.DataFrame) -> dict[str, float]:
    """What became of the catalogue since the champion's.

    Args:
        items: the store's table ``items``. champion: item_id and price of the champion's catalogue.

    Returns:
        items, champion_items; gone, new: shares; prices: share of the items whose price is zero, that lost it
        or whose price changed tenfold; zero, lost, tenfold: the three apart; no_title, no_category: shares.
    """
    both = items.select("item_id", "price", "title", "category").join(
        champion.select("item_id", was="price"), on="item_id", how="left"
    )
    count = max(1, len(items))
    kept = len(items.join(champion, on="item_id", how="semi"))
    zero = (pl.col("price") <= 0).fill_null(False) & ~(pl.col("was") <= 0).fill_null(False)
    lost = pl.col("price").is_null() & pl.col("was").is_not_null()
    ratio = pl.col("price") / pl.col("was")
    tenfold = ((pl.col("was") > 0) & (pl.col("price") > 0) & ((ratio >= 9.99) | (ratio <= 0.1001))).fill_null(
        False
    )
    shares = both.select(
        zero=zero.mean(), lost=lost.mean(), tenfold=tenfold.mean(), prices=(zero | lost | tenfold).mean(),
        no_title=(pl.col("title").str.strip_chars() == "").mean(),
        no_category=(pl.col("category").list.len() == 0).mean(),
    )  # fmt: skip
    return {
        "items": float(len(items)),
        "champion_items": float(len(champion)),
        "gone": 1 - kept / max(1, len(champion)),
        "new": 1 - kept / count,
        **{name: float(value or 0.0) for name, value in shares.row(0, named=True).items()},
    }
