"""What the log's engine showed for a query, and how well it could be seen: what λ are tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions

PLACES = 40
"""Places with a chance of their own; the last stands for all behind it."""
_LEAST = 0.02


def looks(first: np.ndarray, placed: np.ndarray, place: np.ndarray) -> list[float]:
    """Chances that places are looked at, against the first's: how many clicks are predicted where rows stood,
    over how many there had been at the first place. Places that nothing stood at are like the one before.

    Args:
        first, placed: f32[M], predicted CTR. place: i[M], -1 where unknown.
    """
    found = [1.0]
    for number in range(1, PLACES):
        rows = place == number if number < PLACES - 1 else place >= number
        chance = float(placed[rows].mean() / first[rows].mean()) if rows.any() else found[-1]
        found.append(min(1.0, max(_LEAST, chance)))
    return found


@dataclass(frozen=True)
class Exposed:
    """Pairs of query and item that some searches showed.

    Attributes:
        numbers: number of each query. catalogue: how many items there are.
        pairs: i64[P], rising, query number times ``catalogue`` plus item.
        times: f32[P], the mean of 1 / p(looked at) where the pair was clicked; 1 where it never was.
    """

    numbers: dict[str, int]
    catalogue: int
    pairs: np.ndarray
    times: np.ndarray

    @classmethod
    def of_searches(cls, impressions: Impressions, searches: np.ndarray, chances: np.ndarray) -> Exposed:
        """Of searches i64[n] of a log; ``chances`` f64[L] as :func:`looks` has them."""
        rows = np.isin(impressions.request, searches)
        catalogue = len(impressions.item_counts)
        query = impressions.query[impressions.request[rows]].astype(np.int64)
        pairs, at = np.unique(query * catalogue + impressions.item[rows], return_inverse=True)
        place, clicked = impressions.position[rows], impressions.clicked[rows].astype(np.float64)
        chance = np.where(place < 0, 1.0, chances[place.clip(0, len(chances) - 1)])
        clicks = np.bincount(at, clicked, len(pairs))
        weighed = np.bincount(at, clicked / chance, len(pairs))
        times = np.divide(weighed, clicks, out=np.ones(len(pairs)), where=clicks > 0)
        numbers = {text: number for number, text in enumerate(impressions.queries)}
        return cls(numbers, catalogue, pairs, times.astype(np.float32))

    def of(self, queries: Sequence[str], items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether items i32[Q, K] were shown for normalised queries, bool[Q, K], and ``times`` f32[Q, K], 1
        where they were not."""
        number = np.array([self.numbers.get(query, -1) for query in queries], np.int64)[:, None]
        wanted = np.where((number >= 0) & (items >= 0), number * self.catalogue + items, -1)
        if not len(self.pairs):
            return np.zeros(items.shape, bool), np.ones(items.shape, np.float32)
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        shown = self.pairs[at] == wanted
        return shown, np.where(shown, self.times[at], np.float32(1))
