"""Which held-out searches the reward learns from, and how good each item was for them.

Where the log is split by time, a search is a request of a shopper, with the state and the stand-ins of that
moment; good is what this shopper clicked or ordered for this query in the held-out slice. Where it is split
by query, a search is one that nobody has made yet: no shopper, no stand-ins, and good is what anybody chose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from onesearch.shoppers.state import ShopperState
from onesearch.training.personal import states_before
from onesearch.training.split import Split
from onesearch.training.standins import NOTHING, stand_ins
from onesearch.training.targets import search_targets

if TYPE_CHECKING:
    from onesearch.config import TrainingConfig
    from onesearch.data.store import Store
    from onesearch.shoppers.log import EventLog


@dataclass(frozen=True)
class DrawnSearches:
    """Searches to make lists of.

    Attributes:
        queries, states, stand_ins: of S searches, as :meth:`onesearch.serving.pipeline.Pipeline.candidates`
            takes them.
        rows: i32[R], the search of each list; one that was made often has as many lists.
        gains: row (u32, a search), item, gain in (0, 1].
    """

    queries: list[str]
    states: list[ShopperState]
    stand_ins: list[np.ndarray]
    rows: np.ndarray
    gains: pl.DataFrame


def draw_searches(
    split: Split, store: Store, log: Callable[[], EventLog], training: TrainingConfig
) -> DrawnSearches:
    """At most ``training.reward_queries`` held-out searches, none twice; ``log`` is of the same store."""
    if split.cutoff is None:
        return _of_anybody(split, training)
    targets = search_targets(store).filter(pl.col("ts") >= split.cutoff)
    requests = targets.select("user_id", "query", "moment").unique().sort("moment", "user_id", "query")
    if len(requests) > training.reward_queries:
        rng = np.random.default_rng([training.seed, 0x11])
        chosen = np.sort(rng.choice(len(requests), training.reward_queries, replace=False))
        requests = requests[chosen]
    queries, moments = requests["query"].to_list(), requests["moment"].to_numpy()
    chose = targets.group_by("user_id", "query", "item").agg(weight=pl.col("worth").sum())
    scaled = scaled_gains(chose, ["user_id", "query"])
    return DrawnSearches(
        queries,
        states_before(log(), requests["user_id"].to_list(), moments),
        stand_ins(store, queries, moments, training.half_life_days),
        np.arange(len(requests), dtype=np.int32),
        _by_row(scaled, requests.with_row_index("row"), ["user_id", "query"]),
    )


def _of_anybody(split: Split, training: TrainingConfig) -> DrawnSearches:
    queries, times = draw(split.held_out, training.reward_queries, training.seed)
    asked = pl.DataFrame({"query": queries}, schema={"query": pl.String}).with_row_index("row")
    return DrawnSearches(
        queries,
        [ShopperState()] * len(queries),
        [NOTHING] * len(queries),
        np.repeat(np.arange(len(queries), dtype=np.int32), times),
        _by_row(scaled_gains(split.held_out), asked, ["query"]),
    )


def draw(held_out: pl.DataFrame, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Draw at most ``count`` held-out searches, none twice: their queries, and how often each was drawn.

    A query that was only judged counts as searched once.
    """
    asked = held_out.group_by("query").agg(pl.col("searches").sum().clip(lower_bound=1)).sort("query")
    rows = np.repeat(np.arange(len(asked)), asked["searches"].to_numpy().astype(np.int64))
    if len(rows) > count:
        rows = np.random.default_rng([seed, 0x11]).choice(rows, count, replace=False)
    drawn, times = np.unique(rows, return_counts=True)
    return asked["query"].gather(drawn).to_list(), times.astype(np.int32)


def scaled_gains(chosen: pl.DataFrame, of: list[str] | None = None) -> pl.DataFrame:
    """Each pair's gain in (0, 1]: its weight over the greatest of its query, or over 1 where that is more.

    Args:
        chosen: query, item, weight. of: the columns that name a search; the query alone without them.
    """
    of = of or ["query"]
    greatest = pl.max_horizontal(pl.lit(1.0), pl.col("weight").max().over(of))
    return chosen.select(*of, "item", gain=(pl.col("weight") / greatest).cast(pl.Float32))


def gains_of(gains: pl.DataFrame, items: np.ndarray) -> np.ndarray:
    """The gain of each candidate i32[S, K] of each search, f32[S, K]; 0 where nothing is known.

    ``gains`` holds row (a search), item and gain.
    """
    known = gains.sort("row", "item")
    if not len(known):
        return np.zeros(items.shape, np.float32)
    width = int(max(items.max(initial=0), cast(int, known["item"].max()))) + 1
    keys = known["row"].to_numpy().astype(np.int64) * width + known["item"].to_numpy()
    wanted = np.arange(len(items), dtype=np.int64)[:, None] * width + items
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    gain = known["gain"].to_numpy()[at]
    return np.where((items >= 0) & (keys[at] == wanted), gain, np.float32(0.0)).astype(np.float32)


def _by_row(gains: pl.DataFrame, asked: pl.DataFrame, of: list[str]) -> pl.DataFrame:
    return asked.select("row", *of).join(gains, on=of, how="inner").select("row", "item", "gain")
