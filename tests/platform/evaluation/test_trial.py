"""Arms of a simulated A/B meet the same shoppers and the same luck."""

from __future__ import annotations

import numpy as np
import pytest
from onesearch.data.demo.world import Size, World
from onesearch.data.simulation import SimulatedShoppers
from onesearch.evaluation.arms import SHOWN, Answers
from onesearch.evaluation.trial import Trial

KEYS = {"system", "orders_per_search", "ctr", "buyers", "lift_percent", "low", "high", "relevance"}


@pytest.fixture(scope="module")
def shoppers() -> SimulatedShoppers:
    return SimulatedShoppers(World.make(Size(items=2_000, shoppers=150, searches=0, feeds=0, judged=0), 1))


@pytest.fixture(scope="module")
def trial(shoppers: SimulatedShoppers) -> Trial:
    """Two seeds of three arms: any item of what is asked for, the same in another order, and nothing."""
    catalogue = shoppers.world.catalogue
    made = Trial(shoppers, shoppers.world.listings.items["item_id"].to_list(), lucks=3)
    for seed in range(2):
        requests = shoppers.requests(400, seed)
        reached = np.full((400, 60), -1, np.int32)
        for row, entity in enumerate(requests.needs.entity.tolist()):
            # The last places are other things, that nobody who shows them is rewarded for.
            own = np.flatnonzero(catalogue.entity == entity)[:50]
            reached[row, : len(own)] = own
            reached[row, 50:] = np.flatnonzero(catalogue.entity != entity)[:10]
        one = Answers(reached[:, :SHOWN], reached)
        turned = Answers(reached[:, :SHOWN][:, ::-1], reached)
        nothing = Answers(np.full((400, SHOWN), -1, np.int32), np.full((400, SHOWN), -1, np.int32))
        made.add(requests, {"one": one, "turned": turned, "nothing": nothing}, seed)
    return made


def test_rows_hold_what_is_relied_upon(trial: Trial) -> None:
    rows = {row["system"]: row for row in trial.rows("one", ["oracle", "random", "one", "turned", "nothing"])}
    assert list(rows) == ["oracle", "random", "one", "turned", "nothing"]
    assert all(set(row) >= KEYS for row in rows.values())
    assert rows["oracle"]["orders_per_search"] > rows["one"]["orders_per_search"] > 0
    assert rows["oracle"]["low"] > 0 > rows["random"]["high"]
    assert rows["nothing"]["orders_per_search"] == rows["nothing"]["relevance"] == 0.0
    assert rows["nothing"]["lift_percent"] == -100.0


def test_against_itself_nothing_is_gained(trial: Trial) -> None:
    [row] = trial.rows("one", ["one"])
    names = ("lift_percent", "low", "high", "relevance_lift", "relevance_low", "relevance_high")
    assert [row[name] for name in names] == [0.0] * 6


def test_another_order_of_the_same_is_equally_relevant_and_equally_good_at_best(trial: Trial) -> None:
    one, turned = trial.rows("one", ["one", "turned"])
    assert turned["best_order"] == one["best_order"] > one["orders_per_search"]
    assert turned["orders_per_search"] != one["orders_per_search"]


def test_the_best_order_shows_nothing_that_was_not_asked_for(trial: Trial) -> None:
    shoppers = trial.shoppers
    requests = shoppers.requests(50, 9)
    everything = np.broadcast_to(np.arange(2_000), (50, 2_000))
    best = trial.best(requests, everything)
    fits = shoppers.world.behaviour.relevance(requests.needs, best) > 0
    assert best.shape == (50, 20) and (best >= 0).any() and fits[best >= 0].all()


def test_seeds_and_lucks_are_counted(trial: Trial) -> None:
    assert [len(trial.by_seed[name]) for name in ("one", "oracle")] == [2, 2]
    assert trial.sums["one"][:, 0].sum() == 2 * 3 * 400
    again = np.mean(trial.by_seed["one"])
    assert trial.rows("one", ["one"])[0]["orders_per_search"] == pytest.approx(again, rel=1e-4)
