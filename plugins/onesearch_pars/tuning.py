"""λ: how much each part of the reward counts, tuned on held-out lists.

``R = λ1·CTR + λ2·CVR + λ3·CTCVR + 10·λ4·S_rel + λ5·listwise``. The parts have scales of their own (a CTR of
a few hundredths, a list-wise score of several units), so what is searched is μ, the weight of a part over
its spread within lists: ``λ = μ / spread``, and 10 times less for S_rel.

Coordinates are tried in turn, from :data:`DEFAULT`, for the order of what was *shown*: among the candidates
that the log's engine showed for the query, how far up stands what shoppers chose, each choice weighed by how
seldom its place is looked at::

    Σ worth / log2(place + 1) / Σ worth,    worth = gain / p(looked at)

What was not shown cannot have been chosen. Judged among all candidates, whatever sets the order of the engine
of then wins, and a reward that would show something else loses. Gains are few and noisy, so a step is taken
only where it gains more than half of its own standard error; where nothing is known, the defaults stand. A
part that never varies within a list gets 0.

Relevance has a floor: the mean S_rel of the first ten of the lists may not be below what the list-wise score
alone puts there, by more than half a percent. Where the defaults are, S_rel's weight is raised until they
are not; where no weight is enough, the towers do not count. The floor asks for no gains, so it holds for
untuned λ as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onesearch_pars.measures import ndcg_each

PARTS = ("ctr", "cvr", "ctcvr", "relevance", "listwise")
RELEVANCE_FACTOR = 10.0
"""Of S_rel in the reward, as the paper has it."""
DEFAULT = np.array([0.0, 0.0, 0.25, 0.0, 1.0])
"""μ to begin with: the list-wise score leads, orders to be expected of a search move it. A prior, chosen on
searches of a simulated shop's day after its log (docs/pars.md)."""
ALONE = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
"""μ of the list-wise score alone: the relevance reward's order."""
_STEPS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
_ROUNDS = 3
_SURE = 0.5
"""Standard errors that a step has to gain."""
_KEPT = 0.995
"""Share of the first ten's relevance that has to be kept."""
_FIRST = 10
"""How far down the order relevance is looked at."""


@dataclass(frozen=True)
class Lists:
    """Lists to tune on.

    Attributes:
        parts: f32[Q, K, 5], CTR, CVR, CTCVR, S_rel and list-wise score of each candidate, 0 on padding.
        gain: f32[Q, K]. mask: bool[Q, K], false on padding.
        group: i64[Q], lists of one group are of one query.
        shown: bool[Q, K], what was shown for the query. worth: f32[Q, K], gains over the chance that their
            places were looked at. Where nobody knows: all, and the gains.
    """

    parts: np.ndarray
    gain: np.ndarray
    mask: np.ndarray
    group: np.ndarray
    shown: np.ndarray
    worth: np.ndarray

    def only(self, keep: np.ndarray) -> Lists:
        """Some of the lists: a mask or their numbers."""
        return Lists(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def found(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each list, f64[Q] each: what was chosen of the shown, discounted by where the weighted sum of
        its parts puts it among them, and what was chosen at all."""
        worth = np.where(self.shown, self.worth, 0.0)
        order = np.argsort(
            -np.where(self.shown, self.parts @ weights.astype(np.float32), -np.inf), axis=1, kind="stable"
        )[:, :_FIRST]
        discount = 1 / np.log2(np.arange(2, order.shape[1] + 2))
        return (np.take_along_axis(worth, order, axis=1) * discount).sum(axis=1), worth.sum(axis=1)

    def ndcg(self, weights: np.ndarray) -> np.ndarray:
        """NDCG@10 of each list by the weighted sum of its parts, f64[Q]; NaN where it has no gain."""
        return ndcg_each(self.parts @ weights.astype(np.float32), self.gain, self.mask)

    def relevance(self, weights: np.ndarray) -> np.ndarray:
        """Mean S_rel of the first ten of each list by the weighted sum of its parts, f64[Q]; NaN: no list."""
        scores = np.where(self.mask, self.parts @ weights.astype(np.float32), -np.inf)
        first = np.argsort(-scores, axis=1, kind="stable")[:, :_FIRST]
        real = np.take_along_axis(self.mask, first, axis=1)
        own = np.take_along_axis(self.parts[..., PARTS.index("relevance")], first, axis=1)
        total, count = np.where(real, own, 0.0).sum(axis=1), real.sum(axis=1)
        each: np.ndarray = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return each

    def spreads(self) -> np.ndarray:
        """f64[5]: root mean square deviation of each part from its list's mean."""
        inside = self.mask[..., None]
        sizes = np.maximum(self.mask.sum(axis=1), 1)[:, None]
        centre = np.where(inside, self.parts, 0).sum(axis=1) / sizes
        apart = np.where(inside, self.parts - centre[:, None], 0).astype(np.float64)
        spread: np.ndarray = np.sqrt((apart**2).sum(axis=(0, 1)) / max(1, int(self.mask.sum())))
        return spread


def weights_of(mu: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """What the parts are multiplied by, f64[5]: μ over the spread; 0 for a part without one."""
    return np.where(spread > 1e-9, mu / np.maximum(spread, 1e-9), 0.0)


class Floor:
    """Whether relevance is kept: the first ten as relevant as those of the list-wise score alone."""

    def __init__(self, lists: Lists, spread: np.ndarray, free: np.ndarray) -> None:
        self._lists, self._spread, self._free = lists, spread, free
        self._least = lists.relevance(weights_of(np.where(free, ALONE, 0.0), spread))

    def holds(self, mu: np.ndarray) -> bool:
        """Whether these weights keep it."""
        kept = self._lists.relevance(weights_of(mu, self._spread))
        known = np.isfinite(kept) & np.isfinite(self._least)
        if not known.any():
            return True
        least = float(self._least[known].mean())
        return float(kept[known].mean()) >= least - (1 - _KEPT) * abs(least) - 1e-9

    def raised(self, mu: np.ndarray) -> np.ndarray:
        """The same weights with as much more relevance as it takes; the list-wise score alone where none is
        enough."""
        at = PARTS.index("relevance")
        for step in _STEPS if self._free[at] else (mu[at],):
            tried = mu.copy()
            tried[at] = max(step, mu[at])
            if self.holds(tried):
                return tried
        return np.where(self._free, ALONE, 0.0)


def untuned(lists: Lists, frozen: np.ndarray) -> np.ndarray:
    """The default μ f64[5], relevance raised to its floor."""
    spread = lists.spreads()
    free = (spread > 1e-9) & ~frozen
    return Floor(lists, spread, free).raised(np.where(free, DEFAULT, 0.0))


def tune(lists: Lists, frozen: np.ndarray) -> np.ndarray:
    """μ f64[5] for some lists; ``frozen`` bool[5]: parts that must not count."""
    spread = lists.spreads()
    free = (spread > 1e-9) & ~frozen
    useful = lists.only(np.flatnonzero((np.where(lists.mask, lists.gain, 0) > 0).any(axis=1)))
    floor = Floor(lists, spread, free)
    at = floor.raised(np.where(free, DEFAULT, 0.0))
    if not len(useful.gain):
        return at

    def reached(mu: np.ndarray) -> np.ndarray:
        return useful.found(weights_of(mu, spread))[0]

    total = useful.found(ALONE)[1]
    here = reached(at)
    for _ in range(_ROUNDS):
        before = at.copy()
        for part in np.flatnonzero(free):
            for step in _STEPS:
                tried = at.copy()
                tried[part] = step
                now = reached(tried)
                if step != at[part] and _better(now, here, total) and floor.holds(tried):
                    at, here = tried, now
        if (at == before).all():
            break
    alone = np.where(free, ALONE, 0.0)
    return alone if _better(reached(alone), here, total) else at


def cross_validated(lists: Lists, frozen: np.ndarray, folds: int = 2) -> float:
    """Mean NDCG@10 where μ was tuned on the other queries; NaN without any gain."""
    found = []
    for fold in range(folds):
        others, own = lists.only(lists.group % folds != fold), lists.only(lists.group % folds == fold)
        if len(own.gain):
            found.append(own.ndcg(weights_of(tune(others, frozen), others.spreads())))
    each = np.concatenate([np.zeros(0), *found])
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def _better(one: np.ndarray, other: np.ndarray, total: np.ndarray) -> bool:
    """Whether the share that lists f64[Q] reach of their totals is above another by more than chance easily
    explains."""
    if not total.sum():
        return False
    change = float((one - other).sum() / total.sum())
    error = float(np.sqrt(np.square(one - other - change * total).sum()) / total.sum())
    return change > max(1e-6, _SURE * error)
