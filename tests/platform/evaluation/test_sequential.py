from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onesearch.evaluation.sequential import Look, evidence, looks, radius


def test_golden_numbers() -> None:
    # By hand: sqrt(1/2); the same times exp(4 / (2 * 2)); sqrt(2 * 1 * 2 * log(sqrt(2) / .05)).
    assert evidence(0.0, 1.0, 1.0) == pytest.approx(0.7071067811865476)
    assert evidence(2.0, 1.0, 1.0) == pytest.approx(0.7071067811865476 * np.e)
    assert radius(1.0, 1.0, 0.05) == pytest.approx(3.656395, abs=1e-6)
    assert evidence(10.0, 1e-4, 1.0) == np.inf


@pytest.mark.parametrize("variance", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 0.1])
def test_interval_and_evidence_have_the_same_edge(variance: float, scale: float) -> None:
    edge = radius(variance, scale, 0.05)
    assert evidence(edge, variance, scale) == pytest.approx(20, rel=1e-6)


def test_the_variance_is_that_of_shoppers() -> None:
    """Four shoppers a side, three searches each: orders 0, 1, 2, 3 and 1, 1, 1, 1."""
    shopper = np.tile(np.arange(8), 40 * 3)
    orders = np.repeat(np.array([0, 4, 5, 5, 5, 6, 6, 7]), 40 * np.array([0, 1, 2, 3, 1, 1, 1, 1]) // 40)
    events = np.concatenate([shopper, np.tile(orders, 20)])
    search = np.arange(len(events)) < len(shopper)
    *_, last = looks(events, search, np.arange(8) < 4)
    counts = np.bincount(np.tile(orders, 20), minlength=8).astype(float)
    for side, who in ((last.champion, slice(4, 8)), (last.challenger, slice(0, 4))):
        made, rate = counts[who], counts[who].sum() / 480
        assert side.rate == pytest.approx(rate) and (side.shoppers, side.searches) == (4, 480)
        assert side.variance == pytest.approx(4 / 3 * ((made - rate * 120) ** 2).sum() / 480**2)


def simulated(rng: np.random.Generator, lift: float, count: int = 400, searches: int = 6_000) -> list[Look]:
    """Shoppers who differ much in how often they come and how often they order, and come again and again."""
    weight = rng.gamma(0.5, size=count) + 0.02
    rate = rng.beta(1.0, 7.0, size=count)
    challenger = rng.random(count) < 0.5
    who = rng.choice(count, searches, p=weight / weight.sum())
    ordered = rng.random(searches) < np.minimum(1, rate * np.where(challenger, 1 + lift, 1))[who]
    events = np.repeat(who, 1 + ordered)
    search = np.ones(len(events), dtype=bool)
    search[np.cumsum(1 + ordered)[ordered] - 1] = False
    return list(looks(events, search, challenger, expected=0.2))


def test_peeking_at_every_look_keeps_the_level() -> None:
    """300 comparisons of equals, looked at over 100 times each: at most 5 % ever decide (simulated)."""
    rng = np.random.default_rng(7)
    runs = [simulated(rng, 0.0) for _ in range(300)]
    assert min(len(run) for run in runs) > 100
    wrong = np.mean([any(look.p <= 0.05 for look in run) for run in runs])
    assert wrong <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 300)
    # The same looks with a test for one look only: what peeking would do.
    naive = [
        any(
            abs(look.difference) > 1.96 * np.sqrt(look.champion.variance + look.challenger.variance)
            for look in run
        )
        for run in runs
    ]
    assert np.mean(naive) > 0.2
    # The interval holds the truth at all looks at once about as often.
    assert np.mean([all(look.low <= 0 <= look.high for look in run) for run in runs]) >= 0.93


def test_a_difference_is_found() -> None:
    rng = np.random.default_rng(8)
    runs = [simulated(rng, 0.6, count=2_000) for _ in range(20)]
    decided = [next((look for look in run if look.p <= 0.05), None) for run in runs]
    assert sum(look is not None for look in decided) >= 16
    assert all(look.difference > 0 for look in decided if look is not None)
    for run in runs:
        assert all(a.p >= b.p for a, b in pairwise(run))


def test_more_events_change_no_earlier_look() -> None:
    rng = np.random.default_rng(9)
    who, search = rng.integers(0, 300, 5_000), rng.random(5_000) < 0.8
    side = np.arange(300) < 150
    whole, half = list(looks(who, search, side)), list(looks(who[:3_000], search[:3_000], side))
    assert len(half) > 20 and whole[: len(half) - 1] == half[:-1]


def test_too_little_gives_no_look() -> None:
    who = np.arange(190) % 60
    assert list(looks(who, np.ones(190, dtype=bool), np.arange(60) < 30)) == []
