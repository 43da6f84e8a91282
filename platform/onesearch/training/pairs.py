"""What logs and judgements say of query and item; which queries are held out; how popular an item is.

Tokenizer, generator and reward read the logs through this module, so that all hold out the same queries.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from onesearch.data.store import Store

CLICK_WEIGHT = 1.0
ORDER_WEIGHT = 2.0
"""What a click and an order count for: λ of levels 3 and 1 of PARS (DESIGN 9)."""

PAIR_SCHEMA: dict[str, pl.DataType] = {
    "query": pl.String(),
    "item": pl.Int32(),
    "clicks": pl.UInt32(),
    "orders": pl.UInt32(),
    "impressions": pl.UInt32(),
    "grade": pl.Float32(),
    "weight": pl.Float32(),
    "last_ts": pl.Datetime("us", "UTC"),
}


def normalised(column: str = "query") -> pl.Expr:
    """The form under which equal queries are equal: NFKC, lower case, single spaces, none at the ends."""
    text = pl.col(column).str.normalize("NFKC").str.to_lowercase()
    return text.str.replace_all(r"\s+", " ").str.strip_chars()


def normalise_queries(queries: Iterable[str]) -> list[str]:
    """:func:`normalised` for texts at hand."""
    return (
        pl.DataFrame({"query": list(queries)}, schema={"query": pl.String})
        .select(normalised())["query"]
        .to_list()
    )


def query_item_pairs(
    store: Store,
    relevant_grade: float = 0.66,
    before: datetime | None = None,
    half_life_days: float | None = None,
) -> pl.DataFrame:
    """Everything known of query and item together, one row a pair, sorted by query and item.

    ``weight = CLICK_WEIGHT·clicks + ORDER_WEIGHT·orders + grade`` (the grade only where it is at least
    ``relevant_grade``); 0 for a pair that was only shown or is judged below that. With ``half_life_days`` an
    event counts ``2^(-age / half-life)``, its age taken from the newest event kept.

    Args:
        store: items, interactions of the scene ``search`` with a query, and relevance judgements are read.
        relevant_grade: from which grade in [0, 1] a judged pair is a positive.
        before: only events before this moment count; judgements carry no time and always count.
        half_life_days: half-life of an event's weight in days; None weighs all events alike.

    Returns:
        Columns of :data:`PAIR_SCHEMA`: query (normalised), item (number), clicks, orders, impressions, grade
        (null where unjudged), weight, last_ts (null where nothing was logged).
    """
    numbers = (
        store.items()
        .select("item_id")
        .with_row_index("item")
        .lazy()
        .with_columns(pl.col("item").cast(pl.Int32))
    )
    events = store.interactions().filter((pl.col("scene") == "search") & pl.col("query").is_not_null())
    if before is not None:
        events = events.filter(pl.col("ts") < before)
    action = pl.col("action").cast(pl.String)
    worth = (action == "click") * CLICK_WEIGHT + (action == "order") * ORDER_WEIGHT
    if half_life_days is not None:
        age_days = (pl.col("ts").max() - pl.col("ts")).dt.total_seconds() / 86_400
        worth = worth * (-math.log(2) / half_life_days * age_days).exp()
    logged = (
        events.with_columns(worth=worth)
        .with_columns(normalised())
        .group_by("query", "item_id")
        .agg(
            clicks=(action == "click").sum(),
            orders=(action == "order").sum(),
            impressions=(action == "impression").sum(),
            worth=pl.col("worth").sum(),
            last_ts=pl.col("ts").max(),
        )
        .join(numbers, on="item_id", how="inner")
        .drop("item_id")
    )
    judged = (
        store.relevance()
        .with_columns(normalised())
        .join(numbers, on="item_id", how="inner")
        .group_by("query", "item")
        .agg(grade=pl.col("grade").max())
    )
    relevant = pl.when(pl.col("grade") >= relevant_grade).then(pl.col("grade")).otherwise(0.0)
    pairs = (
        logged.join(judged, on=["query", "item"], how="full", coalesce=True)
        .filter(pl.col("query") != "")
        .with_columns(weight=pl.col("worth").fill_null(0.0) + relevant)
        .with_columns(pl.col("clicks", "orders", "impressions").fill_null(0))
        .select([pl.col(name).cast(dtype) for name, dtype in PAIR_SCHEMA.items()])
        .collect(engine="streaming")
    )
    return pairs.sort("query", "item")


def split_queries(queries: Iterable[str], share: float = 0.1, seed: int = 0) -> np.ndarray:
    """Which queries are held out, bool[Q]: the ``share`` whose hash is lowest.

    The hash is blake2b of the normalised text, so a query is on the same side in every store and process.
    """
    limit = int(share * 2**64)
    salt = seed.to_bytes(8, "little", signed=True)
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=salt).digest(), "little")
            < limit
            for text in normalise_queries(queries)
        ],
        dtype=bool,
    )


def item_popularity(store: Store, half_life_days: float = 14.0, before: datetime | None = None) -> np.ndarray:
    """How much each item is clicked and ordered, f32[N] ≥ 1, in item-number order; both scenes count.

    ``1 + Σ worth · 2^(-age / half-life)``, worth and age as in :func:`query_item_pairs`.
    """
    items = store.items().select("item_id")
    events = store.interactions().filter(pl.col("action").cast(pl.String) != "impression")
    if before is not None:
        events = events.filter(pl.col("ts") < before)
    age_days = (pl.col("ts").max() - pl.col("ts")).dt.total_seconds() / 86_400
    worth = pl.when(pl.col("action").cast(pl.String) == "order").then(ORDER_WEIGHT).otherwise(CLICK_WEIGHT)
    counted = (
        events.with_columns(worth=worth * (-math.log(2) / half_life_days * age_days).exp())
        .group_by("item_id")
        .agg(pl.col("worth").sum())
        .collect(engine="streaming")
    )
    joined = items.join(counted, on="item_id", how="left", maintain_order="left")
    return (joined["worth"].fill_null(0.0) + 1.0).cast(pl.Float32).to_numpy()
