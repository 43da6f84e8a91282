"""The six levels of PARS and the calibrated reward of a query and an item (DESIGN 9).

===== ===== =============================================================== ========
level   λ   what it is
===== ===== =============================================================== ========
  1    2.0  ordered in a search                                             positive
  2    1.5  ordered in the recommend scene, of the search's category        positive
  3    1.0  clicked in a search                                             positive
  4    0.5  shown in a search and not clicked                               negative
  5    0.2  of the search's category, not shown                             negative
  6    0.0  any item, not shown                                             negative
===== ===== =============================================================== ========

With ``pos``, ``clk`` and ``order`` the counters of query and item::

    Cnt_T  = log((pos + 10)(clk + 10)(order + 10))
    Ctr    = log(clk + 10) / Cnt_T
    Cvr    = log(order + 10) / log(clk + 10)
    r(q,i) = 2λ · Ctr · Cvr / (Ctr + Cvr)

All logarithms are of 10 at least, so that nothing divides by zero: a pair nobody saw has Ctr = ⅓, Cvr = 1 and
r = λ/2. As in the paper it thereby scores above one that was shown often and never clicked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from onesearch.errors import UsageError
from onesearch.training.counters import COUNTS, PAIR, USER_CAP, counters

LAMBDAS = (2.0, 1.5, 1.0, 0.5, 0.2, 0.0)
"""λ of levels 1 … 6."""
LAST_POSITIVE = 3
"""Levels up to this one are positives, the others negatives."""
CATEGORY_DEPTH = 2
"""How much of an item's category path makes a category here: leaves may hold too few items to draw from."""
RECOMMEND_WINDOW = timedelta(days=7)
"""How long after a search an order in the recommend scene still speaks for it."""
USER_LISTS = 100
"""Searches of one shopper that are learnt from, the newest; and :data:`USER_CAP` of them for one query."""
_SMOOTHING = 10.0
_TRIES = 4
"""Items drawn for each negative that is wanted; those that will not do are dropped."""


@dataclass(frozen=True)
class Calibrated:
    """Calibrated rates of a query and an item.

    Attributes:
        ctr: f64, in (0, 1); at most ½ where impressions ≥ clicks ≥ orders.
        cvr: f64, positive; at most 1 where clicks ≥ orders.
    """

    ctr: np.ndarray
    cvr: np.ndarray

    def reward(self, level: np.ndarray) -> np.ndarray:
        """r(q, i) f64 of levels 1 … 6, the harmonic mean of both rates times λ."""
        lambdas = np.array(LAMBDAS)[np.asarray(level, dtype=np.int64) - 1]
        return 2 * lambdas * self.ctr * self.cvr / (self.ctr + self.cvr)


def calibrated(impressions: np.ndarray, clicks: np.ndarray, orders: np.ndarray) -> Calibrated:
    """Calibrated rates of counters, elementwise. Raises UsageError where a counter is no count."""
    logs = []
    for name, values in zip(COUNTS, (impressions, clicks, orders), strict=True):
        counts = np.asarray(values, dtype=np.float64)
        if not (np.isfinite(counts).all() and (counts >= 0).all()):
            raise UsageError(f"counters of {name} have to be zero or more")
        logs.append(np.log(counts + _SMOOTHING))
    shown, clicked, ordered = logs
    return Calibrated(clicked / (shown + clicked + ordered), ordered / clicked)


def levels(
    exposures: pl.DataFrame,
    items: pl.DataFrame,
    negatives: tuple[int, int] = (4, 2),
    recommend_window: timedelta = RECOMMEND_WINDOW,
    depth: int = CATEGORY_DEPTH,
    seed: int = 0,
) -> pl.DataFrame:
    """Every search with something to learn from it: its items, their levels and their calibrated rewards.

    Levels 1, 3 and 4 are a search's exposures whose window is closed. Level 2 is an order in the recommend
    scene: it belongs to the shopper's newest search of the item's category within a window before it. Levels
    5 and 6 are drawn by :func:`sampled`. Searches without a positive, or without a query, are left out. An
    item that stands in a search twice has the best of its levels.

    A search's category is that of most of the items clicked for its query by anybody, else of most of those
    shown.

    No shopper, and no robot, has more than :data:`USER_LISTS` searches in it.

    Args:
        exposures: what :func:`onesearch.training.attribution.exposures` made.
        items: the catalogue (item_id, category), in item-number order; exposures of other items are dropped.
        negatives: how many items of levels 5 and 6 to draw a search.
        recommend_window: how long after a search an order in the recommend scene counts for it.
        depth: how many names of a category path make a category.
        seed: of the draws.

    Returns:
        list u32, user_id, ts (of the search's first exposure), query, item i32 (number), level u8, position,
        propensity, reward f64; sorted by list, level, item.
    """
    path = pl.col("category").list.head(depth)
    numbered = (
        items.select("item_id", category=pl.when(path.list.len() > 0).then(path.list.join(" > ")))
        .with_row_index("item")
        .with_columns(pl.col("item").cast(pl.Int32))
    )
    known = exposures.filter("final").join(numbered, on="item_id", how="inner", maintain_order="left")
    searches = known.filter((pl.col("scene") == "search") & pl.col("query").is_not_null())
    category = _categories(searches)
    lists = (
        searches.group_by("list", "user_id", "query")
        .agg(pl.col("ts").min())
        .join(category, on="query", how="left")
    )
    level = pl.when("ordered").then(1).when("clicked").then(3).otherwise(4).cast(pl.UInt8)
    own = searches.select("list", "item", "position", "propensity", level=level)
    later = _recommended(known, lists, recommend_window)
    own = pl.concat([own, later]).sort("list", "level", "item", "position", nulls_last=True)
    own = own.unique(["list", "item"], keep="first", maintain_order=True)
    positive = own.filter(pl.col("level") <= LAST_POSITIVE)
    lists = fair(lists.join(positive.select("list").unique(), on="list", how="semi")).sort("list")
    own = own.join(lists.select("list"), on="list", how="semi")
    liked = positive.join(lists.select("list", "query"), on="list").select("query", "item").unique()
    drawn = sampled(lists.select("list", "query", "category"), own, liked, numbered, negatives, seed)
    whole = pl.concat([own, drawn]).join(lists.drop("category"), on="list")
    counts = counters(searches, PAIR).join(numbered.select("item_id", "item"), on="item_id")
    whole = whole.join(
        counts.select("query", "item", *COUNTS), on=["query", "item"], how="left"
    ).with_columns(pl.col(*COUNTS).fill_null(0))
    rates = calibrated(*(whole[name].to_numpy() for name in COUNTS))
    return (
        whole.with_columns(reward=pl.Series(rates.reward(whole["level"].to_numpy())))
        .select("list", "user_id", "ts", "query", "item", "level", "position", "propensity", "reward")
        .sort("list", "level", "item")
    )


def sampled(
    lists: pl.DataFrame,
    taken: pl.DataFrame,
    liked: pl.DataFrame,
    items: pl.DataFrame,
    negatives: tuple[int, int],
    seed: int,
) -> pl.DataFrame:
    """Draw items of levels 5 and 6.

    The rule: for each search, in order, so many different items uniformly from the items of its category
    (level 5), then from the whole catalogue (level 6), that the search neither showed nor already has, and
    that nobody clicked or ordered for its query. Where too few are found in four draws an item, there are
    fewer. A search without a category has none of level 5.

    Args:
        lists: list, query, category (null: unknown). taken: list, item. liked: query, item.
        items: item i32, category, in item-number order.
        negatives: items of levels 5 and 6 wanted a search. seed: of numpy's PCG64.

    Returns:
        list, item, position and propensity (null), level u8.
    """
    random = np.random.default_rng([seed, 0x56])
    places = items.sort("category", "item", nulls_last=True)
    shelf = places["item"].to_numpy()
    ends = places.group_by("category").agg(size=pl.len()).sort("category", nulls_last=True)
    ends = ends.with_columns(start=pl.col("size").cum_sum() - pl.col("size"))
    at = lists.join(ends, on="category", how="left", maintain_order="left")
    found = [taken.select("list", "item").clear().with_columns(pl.lit(0, pl.UInt8).alias("level"))]
    for level, count in zip((5, 6), negatives, strict=True):
        start = at["start"].fill_null(0).to_numpy() if level == 5 else np.zeros(len(at), np.int64)
        size = at["size"].fill_null(0).to_numpy() if level == 5 else np.full(len(at), len(shelf))
        draws = start[:, None] + (random.random((len(at), _TRIES * count)) * size[:, None]).astype(np.int64)
        rows = np.flatnonzero(size > 0)
        drawn = pl.DataFrame(
            {
                "list": at["list"].gather(np.repeat(rows, draws.shape[1])),
                "query": at["query"].gather(np.repeat(rows, draws.shape[1])),
                "item": shelf[draws[rows].ravel()] if len(shelf) else np.zeros(0, np.int32),
            }
        ).with_columns(pl.col("item").cast(pl.Int32))
        found.append(
            drawn.unique(["list", "item"], keep="first", maintain_order=True)
            .join(
                pl.concat([taken.select("list", "item"), found[-1].select("list", "item")]),
                on=["list", "item"],
                how="anti",
            )
            .join(liked, on=["query", "item"], how="anti")
            .group_by("list", maintain_order=True)
            .head(count)
            .select("list", "item", pl.lit(level, pl.UInt8).alias("level"))
        )
    return pl.concat(found).select(
        "list",
        "item",
        pl.lit(None, pl.Int32).alias("position"),
        pl.lit(None, pl.Float32).alias("propensity"),
        "level",
    )


def fair(lists: pl.DataFrame) -> pl.DataFrame:
    """Each shopper's newest searches: :data:`USER_LISTS` in all and :data:`USER_CAP` for a query at most.

    Args:
        lists: user_id, query, ts, list.
    """
    newest = lists.sort("ts", "list", descending=True)
    for by, limit in ((["user_id", "query"], USER_CAP), (["user_id"], USER_LISTS)):
        newest = newest.filter(pl.int_range(pl.len()).over(by) < limit)
    return newest


def _categories(searches: pl.DataFrame) -> pl.DataFrame:
    """query, category: that of most of its clicked items, else of most of its shown ones."""
    counted = (
        searches.filter(pl.col("category").is_not_null())
        .group_by("query", "category")
        .agg(clicks=pl.col("clicked").sum(), shown=pl.len())
    )
    ranked = counted.sort("query", "clicks", "shown", "category", descending=[False, True, True, False])
    return ranked.unique("query", keep="first", maintain_order=True).select("query", "category")


def _recommended(known: pl.DataFrame, lists: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Level 2: list, item, position, propensity (null, as the search did not show it), level."""
    orders = known.filter((pl.col("scene") == "recommend") & pl.col("ordered"))
    orders = orders.select("user_id", "category", "item", ts="order_ts")
    searches = lists.filter(pl.col("category").is_not_null())
    joined = orders.sort("ts").join_asof(
        searches.select("list", "user_id", "category", "ts").sort("ts"),
        on="ts",
        by=["user_id", "category"],
        strategy="backward",
        tolerance=window,
        check_sortedness=False,
    )
    return joined.filter(pl.col("list").is_not_null()).select("list", "item", *_unshown(2))


def _unshown(level: int) -> list[pl.Expr]:
    """position and propensity, which only what was shown has, and the level."""
    return [
        pl.lit(None, pl.Int32).alias("position"),
        pl.lit(None, pl.Float32).alias("propensity"),
        pl.lit(level, pl.UInt8).alias("level"),
    ]
