"""What shoppers were shown in searches, what came of it, and what was known just before: a reward's log.

Nothing in it knows the future: states, counters and popularity are those from before the request. Embeddings
may, though: a tokenizer that was aligned on the log has seen what was clicked in it. So it is told which
searches are *fresh*, later than anything that tokenizer and generator learnt from; only there a reward may
believe how similar query and item are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from onesearch.shoppers.state import ShopperState
from onesearch.training.counters import COUNTS, ITEM, PAIR, counters, counters_before, popularity_before
from onesearch.training.pairs import normalised

Embed = Callable[[list[str]], np.ndarray]
"""Query texts → e° f32[U, D], as the tokenizer makes them."""
StatesBefore = Callable[[Sequence[str], np.ndarray], list[ShopperState]]
"""Shoppers' ids and seconds since 1970 i64[B] → their states strictly before."""

LIMIT = 300_000
"""Impressions that a reward learns from at most, the newest."""


@dataclass(frozen=True)
class Impressions:
    """R searches in order of time, and the M items that they showed, search by search.

    Attributes:
        queries: U different texts, normalised. query_vecs: f32[U, D].
        query: i32[R], rows of ``queries``. user_ids: R ids. times: i64[R], seconds since 1970.
        fresh: bool[R], searches that the embeddings know nothing of.
        states_before: see :data:`StatesBefore`; call :meth:`states`.
        request: i32[M], rising. item: i32[M]. position: i32[M], 0 the first; -1 unknown.
        propensity: f32[M], NaN where none was logged.
        clicked, ordered: bool[M]; what was ordered was clicked.
        pair_before, item_before: f32[M, 3], impressions, clicks and orders of query and item, and of the
            item, before the search. popularity: f32[M], of the item, before the search.
        pair_counts: query, item, impressions, clicks, orders of the whole log.
        item_counts: f32[N, 3], of the whole log.
        judged_query: i32[J], rows of ``queries``. judged_item: i32[J]. grade: f32[J] in [0, 1].
    """

    queries: list[str]
    query_vecs: np.ndarray
    query: np.ndarray
    user_ids: list[str]
    times: np.ndarray
    fresh: np.ndarray
    states_before: StatesBefore
    request: np.ndarray
    item: np.ndarray
    position: np.ndarray
    propensity: np.ndarray
    clicked: np.ndarray
    ordered: np.ndarray
    pair_before: np.ndarray
    item_before: np.ndarray
    popularity: np.ndarray
    pair_counts: pl.DataFrame
    item_counts: np.ndarray
    judged_query: np.ndarray
    judged_item: np.ndarray
    grade: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def states(self, start: int, end: int) -> list[ShopperState]:
        """The states before the searches start … end - 1."""
        return self.states_before(self.user_ids[start:end], self.times[start:end])


def impressions_of(
    exposures: pl.DataFrame,
    items: pl.DataFrame,
    judgements: pl.DataFrame,
    embed: Embed,
    states_before: StatesBefore,
    limit: int = LIMIT,
    half_life_days: float = 14.0,
    learnt_until: datetime | None = None,
) -> Impressions:
    """Gather a reward's log.

    Args:
        exposures: what :func:`onesearch.training.attribution.exposures` made. Learnt from are the impressions
            of searches whose window is closed; clicks without an impression only count in the counters.
        items: the catalogue, in item-number order; other items are left out.
        judgements: query, item_id, grade; may be empty.
        embed: called once, with all different queries.
        states_before: the log's, see :data:`StatesBefore`.
        limit: impressions at most: the newest searches, whole.
        half_life_days: of the popularity.
        learnt_until: tokenizer and generator learnt from nothing at or after this moment; None: from all.
    """
    numbers = items.select("item_id").with_row_index("item").with_columns(pl.col("item").cast(pl.Int32))
    shown = (
        exposures.filter((pl.col("scene") == "search") & pl.col("query").is_not_null() & pl.col("shown"))
        .filter("final")
        .join(numbers, on="item_id", how="inner")
        .with_columns(asked=pl.col("ts").min().over("list"))
        .sort("asked", "list", "position", "item", nulls_last=True)
    )
    shown = shown.with_columns(request=pl.col("list").rle_id())
    if len(shown) > limit:
        first = shown["request"][len(shown) - limit - 1] + 1
        shown = shown.filter(pl.col("request") >= first).with_columns(pl.col("request") - first)
    asked = shown.select("query", "item_id", ts="asked")
    searches = shown.unique("request", keep="first", maintain_order=True)
    fresh = (pl.lit(learnt_until) <= pl.col("asked")).fill_null(False)
    judged = judgements.with_columns(normalised()).join(numbers, on="item_id", how="inner")
    texts = pl.concat([searches["query"], judged["query"]]).unique().sort()
    places = pl.DataFrame({"query": texts}).with_row_index("at").with_columns(pl.col("at").cast(pl.Int32))
    queries = texts.to_list()
    at = searches.select("query").join(places, on="query", how="left", maintain_order="left")["at"]
    judged = judged.join(places, on="query", how="left", maintain_order="left")
    pairs = counters(exposures, PAIR).join(numbers, on="item_id", how="inner").sort("query", "item")
    alone = numbers.join(counters(exposures, ITEM), on="item_id", how="left", maintain_order="left")
    return Impressions(
        queries=queries,
        query_vecs=embed(queries),
        query=at.to_numpy(),
        user_ids=searches["user_id"].to_list(),
        times=searches["asked"].dt.epoch("s").to_numpy(),
        fresh=searches.select(fresh=fresh)["fresh"].to_numpy(),
        states_before=states_before,
        request=shown["request"].cast(pl.Int32).to_numpy(),
        item=shown["item"].to_numpy(),
        position=shown["position"].fill_null(-1).to_numpy(),
        propensity=shown["propensity"].fill_null(float("nan")).to_numpy(),
        clicked=shown["clicked"].to_numpy(),
        ordered=shown["ordered"].to_numpy(),
        pair_before=_counts(counters_before(exposures, asked, PAIR)),
        item_before=_counts(counters_before(exposures, asked, ITEM)),
        popularity=popularity_before(exposures, asked, half_life_days)["popularity"].to_numpy(),
        pair_counts=pairs.select("query", "item", *COUNTS),
        item_counts=_counts(alone.with_columns(pl.col(*COUNTS).fill_null(0))),
        judged_query=judged["at"].to_numpy(),
        judged_item=judged["item"].to_numpy(),
        grade=judged["grade"].cast(pl.Float32).to_numpy(),
    )


def _counts(frame: pl.DataFrame) -> np.ndarray:
    return frame.select(pl.col(*COUNTS).cast(pl.Float32)).to_numpy().reshape(-1, len(COUNTS))
