"""What the towers learn from, as arrays: impressions of the log, and the generator's own lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from onesearch.progress import Progress
from onesearch.shoppers.tastes import NAMES as TASTES
from onesearch.shoppers.tastes import Tastes
from onesearch.training.counters import COUNTS
from onesearch.training.pairs import normalise_queries

from onesearch_pars.counts import Counts
from onesearch_pars.features import FEATURES, MATCHING, RELEVANT, FeatureMaker
from onesearch_pars.space import SCALARS, VIEWS, FeatureSpace, log_popularity

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

_CHUNK = 256
MATCHING_COLUMNS, RELEVANT_COLUMNS, TASTE_COLUMNS = (
    [at for at, feature in enumerate(FEATURES) if feature.name in names]
    for names in (MATCHING, RELEVANT, TASTES)
)
"""Where :data:`MATCHING`, :data:`RELEVANT` and the tastes stand among :data:`FEATURES`."""


@dataclass(frozen=True)
class Rows:
    """M candidates of R requests, that were shown or stand in lists, request by request; what came of them.

    Attributes:
        views: f16[R, V, D]. counts: i64[R], rows of each request. item: i32[M].
        scalars: f32[M, S]. place: i32[M], -1 where unknown.
        clicked, ordered: f32[M], 0 to 1.
    """

    views: np.ndarray
    counts: np.ndarray
    item: np.ndarray
    scalars: np.ndarray
    place: np.ndarray
    clicked: np.ndarray
    ordered: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def of(self, requests: np.ndarray) -> np.ndarray:
        """Numbers of the rows of some requests, i64, request by request."""
        counts = self.counts[requests]
        starts = (np.cumsum(self.counts) - self.counts)[requests]
        before = np.cumsum(counts) - counts
        return np.arange(int(counts.sum())) + np.repeat(starts - before, counts)


def impression_rows(
    impressions: Impressions, maker: FeatureMaker, tastes: Tastes, space: FeatureSpace, progress: Progress
) -> Rows:
    """A row an impression: features as they were just before its search.

    How similar query and item are is left out where the search is not fresh.
    """
    made = impressions
    count, dim = len(made.query), made.query_vecs.shape[1]
    views = np.zeros((count, len(VIEWS), dim), np.float16)
    scalars = np.zeros((len(made), len(SCALARS)), np.float32)
    bounds = np.searchsorted(made.request, np.arange(count + 1))
    popularity = log_popularity(made.popularity)
    with progress.task("features of impressions", total=count) as task:
        for first in range(0, count, _CHUNK):
            last = min(first + _CHUNK, count)
            for row, state in zip(range(first, last), made.states(first, last), strict=True):
                query_vec = made.query_vecs[made.query[row]]
                part = slice(bounds[row], bounds[row + 1])
                items = made.item[part]
                history = space.history(query_vec, state, similar=bool(made.fresh[row]))
                views[row] = history.views
                scalars[part] = space.scalars(
                    maker.matching(made.queries[made.query[row]], query_vec, items),
                    tastes.features(state, query_vec, items, space.table),
                    history,
                    items,
                    space.vectors(items),
                    popularity[part],
                    made.pair_before[part],
                    made.item_before[part],
                )
            task.advance(last - first)
    return Rows(
        views,
        np.diff(bounds),
        made.item,
        scalars,
        made.position,
        made.clicked.astype(np.float32),
        made.ordered.astype(np.float32),
    )


def list_rows(
    lists: RankedLists,
    chosen: np.ndarray,
    features: np.ndarray,
    space: FeatureSpace,
    similar: bool,
    progress: Progress,
) -> Rows:
    """A row a candidate of some lists, list by list; clicked is its gain, and of orders nothing is known.

    Args:
        chosen: i64[Q], which lists. features: f32[Q, K, F], in the order of :data:`FEATURES`.
        similar: whether to tell how similar query and item are.
    """
    counts = known_counts(lists.pairs, len(lists.vectors))
    popularity = log_popularity(lists.popularity)
    items = lists.candidates.items[chosen]
    mask = items >= 0
    sizes = mask.sum(axis=1)
    views = np.zeros((len(chosen), len(VIEWS), lists.query_vecs.shape[1]), np.float16)
    scalars = np.zeros((int(sizes.sum()), len(SCALARS)), np.float32)
    queries = normalise_queries([lists.queries[row] for row in chosen])
    ends = np.cumsum(sizes)
    with progress.task("features of lists", total=len(chosen)) as task:
        for at, row in enumerate(chosen):
            own = items[at, mask[at]]
            history = space.history(lists.query_vecs[row], lists.states[row], similar)
            views[at] = history.views
            scalars[ends[at] - len(own) : ends[at]] = space.scalars(
                features[at, mask[at]][:, MATCHING_COLUMNS],
                features[at, mask[at]][:, TASTE_COLUMNS],
                history,
                own,
                space.vectors(own),
                popularity[own],
                counts.of(queries[at], own),
                counts.alone[own],
            )
            task.advance()
    unknown = np.zeros(len(scalars), np.float32)
    return Rows(
        views,
        sizes,
        items[mask],
        scalars,
        np.full(len(scalars), -1, np.int32),
        lists.gain[chosen][mask].astype(np.float32),
        unknown,
    )


def known_counts(pairs: pl.DataFrame, items: int) -> Counts:
    """Counters of logged pairs (query, item, clicks, orders, impressions); what was acted on was seen."""
    if not {"query", "item", *COUNTS} <= set(pairs.columns):
        return Counts.none(items)
    clicks = pl.max_horizontal("clicks", "orders")
    known = pairs.with_columns(clicks=clicks, impressions=pl.max_horizontal("impressions", clicks))
    known = known.filter(pl.col("impressions") > 0)
    alone = np.zeros((items, len(COUNTS)), np.float32)
    np.add.at(alone, known["item"].to_numpy(), known.select(pl.col(*COUNTS).cast(pl.Float32)).to_numpy())
    return Counts.build(known, alone)
