"""Two releases compared while searches come in: one may look after every search, and stop whenever one likes.

**Metric.** Orders (or clicks) per search of each side, ``R = Σ o_u / Σ s_u`` over its shoppers u. Shoppers,
not searches, are drawn to a side, and the searches of one are alike, so shoppers are the units of the
variance (linearised ratio): ``V(R) = n / (n - 1) · Σ (o_u - R s_u)² / (Σ s_u)²``. The difference is
``D = R_challenger - R_champion`` with ``V = V_challenger + V_champion``.

**Test.** The mixture sequential probability ratio test with a normal prior of variance τ² on the true
difference (Robbins 1970; Johari, Pekelis, Walsh 2015, "Always valid inference"). At every look, with that
look's V:

    Λ = sqrt(V / (V + τ²)) · exp(D² τ² / (2 V (V + τ²)))          evidence against "no difference"
    p = min over all looks so far of 1 / Λ                         always valid: P(p ever ≤ α) ≤ α
    D ± sqrt(2 V (V + τ²) / τ² · log(sqrt((V + τ²) / V) / α))      holds at all looks at once with 1 - α

However often one looks, and whatever one stops for, under "no difference" p falls to α in at most a share α
of all comparisons. That is exact where D is normal with Cov(D_s, D_t) = V_t for a look s before t, as for
means of independent terms, and so holds in the limit of many shoppers. Shoppers who come back are alike with
themselves; that leaves D at two looks at least as correlated as above, and a Gaussian process that is more
correlated crosses a boundary less often (Slepian's lemma): the test stays valid.

τ is fixed at the first look that counts: ``expected`` (a relative effect) times the rate of both sides
together at that moment. It costs power where the true effect is far from it, never validity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIN_SEARCHES = 100
"""Of each side, before the first look: the normal limit wants some."""
MIN_OUTCOMES = 20
"""Of both sides together, before the first look."""
_LOOK_EVERY = 1.03


@dataclass(frozen=True)
class Side:
    """What one side has done so far.

    Attributes:
        shoppers, searches, outcomes: how many.
        rate: outcomes per search. variance: of the rate, over shoppers.
    """

    shoppers: int
    searches: int
    outcomes: int
    rate: float
    variance: float


@dataclass(frozen=True)
class Look:
    """The comparison as of one moment.

    Attributes:
        champion, challenger: both sides.
        difference: of the rates, challenger - champion. low, high: its always-valid interval.
        p: the always-valid p-value, the smallest of all looks so far.
    """

    champion: Side
    challenger: Side
    difference: float
    low: float
    high: float
    p: float


def evidence(difference: float, variance: float, scale: float) -> float:
    """Λ of the module's docstring; ``scale`` is τ. ``inf`` where it is too large for a float."""
    both = variance + scale**2
    with np.errstate(over="ignore"):
        grown = np.exp(difference**2 * scale**2 / (2 * variance * both))
    return float(np.sqrt(variance / both) * grown)


def radius(variance: float, scale: float, alpha: float) -> float:
    """Half the width of the always-valid interval of level 1 - ``alpha``."""
    both = variance + scale**2
    return float(np.sqrt(2 * variance * both / scale**2 * np.log(np.sqrt(both / variance) / alpha)))


def looks(
    shopper: np.ndarray,
    search: np.ndarray,
    challenger: np.ndarray,
    expected: float = 0.05,
    alpha: float = 0.05,
) -> Iterator[Look]:
    """Look again and again, each time after 3 % more searches; the last look is at the very end.

    Where the looks are depends on nothing but the number of searches: more events add looks and change none.

    Args:
        shopper: i64[E], number of the shopper of each event, in the order of time.
        search: bool[E], whether the event is a search; else it is an outcome (an order, say) of one.
        challenger: bool[S], whether a shopper is on the challenger's side.
        expected: relative effect that is looked for.
        alpha: level of the interval.

    Yields:
        nothing while there are too few searches or outcomes.
    """
    count = len(challenger)
    searches, outcomes = np.zeros(count), np.zeros(count)
    seen, scale, p = 0, 0.0, 1.0
    for end in _ends(search):
        new, is_search = shopper[seen:end], search[seen:end]
        searches += np.bincount(new[is_search], minlength=count)
        outcomes += np.bincount(new[~is_search], minlength=count)
        seen = end
        champion, other = (_side(searches[side], outcomes[side]) for side in (~challenger, challenger))
        if not scale:
            made = champion.outcomes + other.outcomes
            if min(champion.searches, other.searches) < MIN_SEARCHES or made < MIN_OUTCOMES:
                continue
            scale = expected * made / (champion.searches + other.searches)
        variance = champion.variance + other.variance
        difference = other.rate - champion.rate
        p = min(p, 1 / max(evidence(difference, variance, scale), 1e-300))
        wide = radius(variance, scale, alpha)
        yield Look(champion, other, difference, difference - wide, difference + wide, p)


def _ends(search: np.ndarray) -> list[int]:
    """Up to which event each look sees: to the end of the n-th search's predecessor, n growing by 3 %."""
    starts = np.flatnonzero(search)
    ends, wanted = [], float(MIN_SEARCHES)
    while wanted < len(starts):
        ends.append(int(starts[int(wanted)]))
        wanted = max(wanted * _LOOK_EVERY, wanted + 1)
    return [*ends, len(search)]


def _side(searches: np.ndarray, outcomes: np.ndarray) -> Side:
    there = searches > 0
    total, made, shoppers = float(searches.sum()), float(outcomes.sum()), int(there.sum())
    if shoppers < 2:
        return Side(shoppers, int(total), int(made), made / total if total else 0.0, np.inf)
    rate = made / total
    spread = float(((outcomes[there] - rate * searches[there]) ** 2).sum())
    return Side(shoppers, int(total), int(made), rate, shoppers / (shoppers - 1) * spread / total**2)
