"""Stand-ins: what was most clicked and ordered for a query by any moment of a log.

Ranked by the decayed weights of :func:`onesearch.training.pairs.query_item_pairs`. An event's weight then is
``worth · 2^(-(now - t) / half-life)``; that of all events falls by the same factor as time goes by, so a
running sum of ``worth · 2^(t / half-life)`` ranks items the same at any moment. It is kept as its logarithm,
which no length of a log overflows, and only ever rises: the best few can be kept up to date one by one.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.training.split import positive_events

if TYPE_CHECKING:
    from onesearch.data.store import Store

STAND_INS = 10
"""Items that stand in at most."""
NOTHING = np.zeros(0, np.int32)


class MostClicked:
    """What is most clicked and ordered for one query, as events come in."""

    def __init__(self, half_life_s: float, count: int = STAND_INS) -> None:
        self._half_life_s = half_life_s
        self._count = count
        self._weight: dict[int, float] = {}
        self._best: list[tuple[float, int]] = []
        self._shown: np.ndarray | None = NOTHING

    def add(self, item: int, time_s: int, worth: float) -> None:
        """An event; in any order of time."""
        gained = time_s / self._half_life_s + math.log2(worth)
        had = self._weight.get(item)
        if had is None:
            weight = gained
        else:
            weight = max(had, gained) + math.log1p(2.0 ** -abs(had - gained)) / math.log(2)
            place = bisect.bisect_left(self._best, (-had, item))
            if place < len(self._best) and self._best[place] == (-had, item):
                del self._best[place]
        self._weight[item] = weight
        bisect.insort(self._best, (-weight, item))
        del self._best[self._count :]
        self._shown = None

    def best(self) -> np.ndarray:
        """Item numbers i32[≤ count], most clicked first, of equal ones the lower number; read only."""
        if self._shown is None:
            self._shown = np.array([item for _, item in self._best], np.int32)
        return self._shown


def stand_ins(
    store: Store, queries: Sequence[str], moments: np.ndarray, half_life_days: float
) -> list[np.ndarray]:
    """For each query (normalised), item numbers i32[≤ 10] most clicked by what was logged strictly before.

    Args:
        store: its clicks and orders of searches are read.
        queries: N texts. moments: i64[N], whole seconds since 1970: events of that second do not count.
        half_life_days: half-life of an event's weight.
    """
    asked = pl.DataFrame(
        {"query": queries, "moment": moments}, schema={"query": pl.String, "moment": pl.Int64}
    )
    asked = asked.with_row_index("row").sort("query", "moment", "row")
    found = [NOTHING] * len(asked)
    events = _events(store, asked)
    for _, of_query in asked.group_by("query", maintain_order=True):
        logged = events.get(of_query["query"][0])
        if logged is None:
            continue
        most, rest = MostClicked(half_life_days * 86_400), logged
        coming = next(rest, None)
        for row, moment in zip(of_query["row"].to_list(), of_query["moment"].to_list(), strict=True):
            while coming is not None and coming[1] < moment:
                most.add(*coming)
                coming = next(rest, None)
            found[row] = most.best()
    return found


def _events(store: Store, asked: pl.DataFrame) -> dict[str, Iterator[tuple[int, int, float]]]:
    """Item, second and worth of the clicks and orders of each query that was asked for, in order of time."""
    numbers = store.items().select("item_id").with_row_index("item").lazy()
    events = (
        positive_events(store)
        .join(asked.lazy().select("query").unique(), on="query", how="semi")
        .join(numbers, on="item_id", how="inner")
        .select("query", "item", pl.col("ts").dt.epoch("s").alias("second"), "worth")
        .collect(engine="streaming")
        .sort("query", "second", "item")
        .group_by("query", maintain_order=True)
        .agg("item", "second", "worth")
    )
    return {query: zip(item, second, worth, strict=True) for query, item, second, worth in events.iter_rows()}
