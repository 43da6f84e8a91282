"""Planted damage does what it says, and the checks find it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from onesearch.data.demo.world import SIZES, World
from onesearch.data.simulation import SimulatedShoppers
from onesearch_streaming.nightly.damage import KINDS
from onesearch_streaming.nightly.planted import Planted, planted_rows
from onesearch_streaming.nightly.settings import DataLimits
from onesearch_streaming.nightly.simulated import expected_orders, explored, keyword_day, lift_of
from onesearch_streaming.nightly.verdict import refusals


@pytest.fixture(scope="module")
def shoppers() -> SimulatedShoppers:
    return SimulatedShoppers(World.make(SIZES["small"], 3))


@pytest.fixture(scope="module")
def planted(shoppers: SimulatedShoppers) -> Planted:
    items = shoppers.world.listings.items
    return Planted.of(shoppers, items, 900, 1, DataLimits(), days=6)


def test_ten_kinds_of_bad_nights_are_refused_for_the_right_reason(planted: Planted) -> None:
    rows = [
        {"kind": kind.name, "reasons": [one.name for one in refusals(planted.damaged(kind, kind.planted, 7))]}
        for kind in KINDS
    ]
    assert len(rows) >= 10
    wrong = [row for row, kind in zip(rows, KINDS, strict=True) if not set(row["reasons"]) & set(kind.right)]
    assert wrong == []


def test_normal_days_pass(planted: Planted) -> None:
    said = [refusals(planted.check(planted.day(planted.number, seed))) for seed in range(50, 56)]
    assert said == [[]] * 6


def test_the_smallest_damage_is_stated(planted: Planted) -> None:
    [row] = planted_rows(planted, 3, [kind for kind in KINDS if kind.name == "prices broken"])
    assert row["refused"] and row["right_reason"] and 0.01 <= row["smallest"] <= 0.03


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.hits == "log"], ids=lambda kind: kind.name)
def test_damage_keeps_the_columns_and_every_event_its_own_id(kind, shoppers: SimulatedShoppers) -> None:
    whole = keyword_day(shoppers, 60, 0, 5)
    hit = kind.damage(whole, 0.5, np.random.default_rng(1))
    assert hit.schema == whole.schema and hit["event_id"].n_unique() == len(hit)
    assert not hit.equals(whole)


def test_exploring_logs_the_chance_of_what_is_shown() -> None:
    ranked = [[f"i{at}" for at in range(30)]] * 4_000
    lists, chances = explored(ranked, 0.1, 10, np.random.default_rng(0))
    assert all(len(set(row)) == 10 for row in lists)
    kept = np.mean([row[3] == "i3" for row in lists])
    assert kept == pytest.approx(0.9, abs=0.02)
    below = np.mean([row[3] == "i20" for row in lists])
    assert below == pytest.approx(0.1 / 20, abs=0.004)
    assert {round(chance, 4) for row in chances for chance in row} == {0.9, 0.005}
    whole = explored([["a", "b"]], 0.5, 10, np.random.default_rng(0))
    assert whole == ([["a", "b"]], [[1.0, 1.0]])


def test_expected_orders_are_what_luck_gives_on_average(shoppers: SimulatedShoppers) -> None:
    requests = shoppers.requests(400, 2)
    best = shoppers.oracle(requests)
    expected = expected_orders(shoppers, requests, best).mean()
    acted = np.mean([shoppers.act(requests, best, seed).orders.mean() for seed in range(30)])
    # A little above: who ordered leaves.
    assert acted == pytest.approx(expected, rel=0.12)


def test_the_lift_of_a_tenth_more() -> None:
    rng = np.random.default_rng(0)
    base, who = rng.random(500), rng.integers(0, 60, 500)
    lift = lift_of(1.1 * base, base, who)
    assert (lift.value, lift.low, lift.high) == pytest.approx((10.0, 10.0, 10.0))
    assert pl.Series(who).n_unique() == 60
