"""λ: how much each part of the reward counts, tuned on held-out lists.

``R = λ1·CTR + λ2·CVR + λ3·CTCVR + 10·λ4·S_rel + λ5·listwise``. The parts have scales of their own (a CTR of
a few hundredths, a list-wise score of several units), so what is searched is μ, the weight of a part over
its spread within lists: ``λ = μ / spread``, and 10 times less for S_rel. Coordinates are tried in turn, from
several starts, for the highest NDCG@10 of the gains; a part that never varies within a list gets 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onesearch_pars.measures import ndcg

PARTS = ("ctr", "cvr", "ctcvr", "relevance", "listwise")
RELEVANCE_FACTOR = 10.0
"""Of S_rel in the reward, as the paper has it."""
_STEPS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_STARTS = (
    (0.0, 0.0, 0.0, 0.0, 1.0),
    (1.0, 1.0, 1.0, 1.0, 1.0),
    (1.0, 0.0, 0.0, 0.5, 1.0),
    (0.0, 0.0, 1.0, 0.5, 1.0),
)
_ROUNDS = 4
_WORTH = 1e-4
"""NDCG that a step has to gain."""


@dataclass(frozen=True)
class Lists:
    """Lists to tune on.

    Attributes:
        parts: f32[Q, K, 5], CTR, CVR, CTCVR, S_rel and list-wise score of each candidate, 0 on padding.
        gain: f32[Q, K]. mask: bool[Q, K], false on padding. times: f32[Q], how much a list counts.
        group: i64[Q], lists of one group are of one query.
    """

    parts: np.ndarray
    gain: np.ndarray
    mask: np.ndarray
    times: np.ndarray
    group: np.ndarray

    def only(self, keep: np.ndarray) -> Lists:
        """The lists of a mask."""
        return Lists(self.parts[keep], self.gain[keep], self.mask[keep], self.times[keep], self.group[keep])

    def ndcg(self, weights: np.ndarray) -> float:
        """Of the order by the weighted sum of the parts."""
        return ndcg(self.parts @ weights.astype(np.float32), self.gain, self.mask, self.times)


def spreads(sets: Sequence[Lists]) -> np.ndarray:
    """f64[5]: root mean square deviation of each part from its list's mean, over all sets."""
    total, count = np.zeros(len(PARTS)), 0
    for lists in sets:
        inside = lists.mask[..., None]
        sizes = np.maximum(lists.mask.sum(axis=1), 1)[:, None]
        centre = np.where(inside, lists.parts, 0).sum(axis=1) / sizes
        total += (np.where(inside, lists.parts - centre[:, None], 0).astype(np.float64) ** 2).sum(axis=(0, 1))
        count += int(lists.mask.sum())
    return np.sqrt(total / max(1, count))


def weights_of(mu: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """What the parts are multiplied by, f64[5]: μ over the spread; 0 for a part without one."""
    return np.where(spread > 1e-9, mu / np.maximum(spread, 1e-9), 0.0)


def tune(sets: Sequence[Lists], frozen: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """The best μ f64[5] found, and the mean NDCG@10 that it reaches over the sets.

    ``frozen`` bool[5]: parts that must not count. Without any gain μ is that of the list-wise score alone.
    """
    spread = spreads(sets)
    useful = [lists for lists in sets if lists.gain.any()]
    free = (spread > 1e-9) & ~(np.zeros(len(PARTS), bool) if frozen is None else frozen)
    alone = np.array(_STARTS[0])
    if not useful:
        return alone, float("nan")

    def reached(mu: np.ndarray) -> float:
        return float(np.mean([lists.ndcg(weights_of(mu, spread)) for lists in useful]))

    best, height = alone, reached(alone)
    for start in _STARTS:
        at = np.where(free, np.array(start), 0.0)
        here = reached(at)
        for _ in range(_ROUNDS):
            before = here
            for part in np.flatnonzero(free):
                for step in _STEPS:
                    tried = at.copy()
                    tried[part] = step
                    now = reached(tried)
                    if now > here + _WORTH:
                        at, here = tried, now
            if here <= before + _WORTH:
                break
        if here > height + _WORTH:
            best, height = at, here
    return best, height


def cross_validated(sets: Sequence[Lists], frozen: np.ndarray | None = None, folds: int = 2) -> float:
    """Mean NDCG@10 over the sets where μ was tuned on the other queries."""
    found = []
    for fold in range(folds):
        others = [lists.only(lists.group % folds != fold) for lists in sets]
        own = [lists.only(lists.group % folds == fold) for lists in sets]
        weights = weights_of(tune(others, frozen)[0], spreads(others))
        found.append([lists.ndcg(weights) for lists in own if lists.gain.any()])
    values = [value for row in found for value in row]
    return float(np.mean(values)) if values else float("nan")
