"""The six levels and every formula, against numbers worked out by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.data.schemas import schema
from onesearch.errors import UsageError
from onesearch.training.attribution import exposures
from onesearch.training.levels import LAMBDAS, calibrated, levels, sampled

START = datetime(2024, 5, 1, tzinfo=UTC)
KINDS = {"lamps": 12, "sofas": 3, "rugs": 20}
ITEMS = pl.DataFrame(
    {
        "item_id": [f"{kind}{at}" for kind, count in KINDS.items() for at in range(count)],
        "category": [["home", kind, f"leaf {at}"] for kind, count in KINDS.items() for at in range(count)],
    }
)
NUMBER = {item: at for at, item in enumerate(ITEMS["item_id"].to_list())}


def log(*rows: tuple) -> pl.DataFrame:
    names = ("ts", "user_id", "request_id", "scene", "query", "item_id", "action")
    made = [
        {**dict.fromkeys(schema("interactions")), "event_id": f"e{at}", **dict(zip(names, row, strict=True))}
        for at, row in enumerate(rows)
    ]
    for row in made:
        row["ts"] = START + timedelta(hours=row["ts"])
    return pl.DataFrame(made, schema=schema("interactions"))


def shown(request: str, query: str, *items: str, at: float = 0, user: str = "u") -> list[tuple]:
    return [(at, user, request, "search", query, item, "impression") for item in items]


@pytest.mark.parametrize(
    ("counts", "ctr", "cvr", "halved"),
    [
        # Nothing known: log 10 / (3 log 10), 1; 2·⅓·1/(4/3) = ½.
        ((0, 0, 0), 1 / 3, 1.0, 1 / 2),
        # 100, 10, 10 with 10 added: logs 2, 1, 1 of 10: Ctr ¼, Cvr 1, 2·¼/(5/4) = 0.4.
        ((90, 0, 0), 1 / 4, 1.0, 0.4),
        # 1000, 100, 10: logs 3, 2, 1: Ctr ⅓, Cvr ½, 2·⅙/(5/6) = 0.4.
        ((990, 90, 0), 1 / 3, 1 / 2, 0.4),
        # 100, 100, 100: as good as it gets.
        ((90, 90, 90), 1 / 3, 1.0, 1 / 2),
        # 20, 15, 10, no round numbers: ln 20 = 2.995732, ln 15 = 2.708050, ln 10 = 2.302585.
        ((10, 5, 0), 2.708050 / 8.006368, 2.302585 / 2.708050, 0.483957),
    ],
)
def test_the_formulas_by_hand(counts, ctr, cvr, halved) -> None:
    rates = calibrated(*(np.array([count]) for count in counts))
    assert rates.ctr[0] == pytest.approx(ctr, rel=1e-6)
    assert rates.cvr[0] == pytest.approx(cvr, rel=1e-6)
    for level, factor in enumerate(LAMBDAS, start=1):
        assert rates.reward(np.array([level]))[0] == pytest.approx(factor * halved, rel=1e-5)


def test_lambdas_are_the_papers() -> None:
    assert LAMBDAS == (2.0, 1.5, 1.0, 0.5, 0.2, 0.0)


COUNT = st.integers(0, 10**9)


@given(COUNT, COUNT, COUNT)
def test_rates_of_any_counters_are_finite_and_bounded(one, two, three) -> None:
    order, click, show = sorted((one, two, three))
    rates = calibrated(np.array([show]), np.array([click]), np.array([order]))
    assert 0 < rates.ctr[0] <= 0.5 and 0 < rates.cvr[0] <= 1
    rewards = rates.reward(np.arange(1, 7))
    assert np.isfinite(rewards).all() and (np.diff(rewards) < 0).all() and rewards[-1] == 0
    # In disorder, too (a log may be broken): nothing divides by zero.
    odd = calibrated(np.array([order]), np.array([show]), np.array([click]))
    assert np.isfinite(odd.reward(np.arange(1, 7))).all()


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf])
def test_what_is_no_count_is_refused(wrong) -> None:
    with pytest.raises(UsageError, match="clicks"):
        calibrated(np.array([1.0]), np.array([wrong]), np.array([0.0]))


def test_levels_of_one_search() -> None:
    events = log(
        *shown("r1", "Lamp", "lamps0", "lamps1", "lamps2", "sofas0"),
        (0.1, "u", "r1", "search", "Lamp", "lamps1", "click"),
        (0.2, "u", "r1", "search", "Lamp", "lamps2", "click"),
        (0.3, "u", "r1", "search", "Lamp", "lamps2", "order"),
        (20, "u", "f1", "recommend", None, "lamps5", "impression"),
        (20, "u", "f1", "recommend", None, "lamps5", "click"),
        (21, "u", "f1", "recommend", None, "lamps5", "order"),
        (20, "u", "f1", "recommend", None, "rugs0", "click"),
        (21, "u", "f1", "recommend", None, "rugs0", "order"),  # of another category
        *shown("r2", "lamp", "lamps3", at=30, user="v"),  # nothing to learn from
        *shown("r3", "lamp", "gone", at=30, user="w"),  # not in the catalogue
    )
    found = levels(exposures(events), ITEMS, negatives=(3, 2))
    assert found["list"].n_unique() == 1 and found["query"].unique().to_list() == ["lamp"]
    assert found["ts"].unique().to_list() == [START]
    by_level = {level: sorted(rows["item"]) for (level,), rows in found.group_by("level")}
    assert by_level[1] == [NUMBER["lamps2"]]
    assert by_level[2] == [NUMBER["lamps5"]]
    assert by_level[3] == [NUMBER["lamps1"]]
    assert by_level[4] == [NUMBER["lamps0"], NUMBER["sofas0"]]
    lamps = {NUMBER[f"lamps{at}"] for at in range(12)}
    taken = {item for level in (1, 2, 3, 4) for item in by_level[level]}
    assert len(by_level[5]) == 3 and set(by_level[5]) <= lamps - taken
    assert len(by_level[6]) == 2 and not set(by_level[6]) & (taken | set(by_level[5]))
    reward = dict(zip(found["item"], found["reward"], strict=True))
    # lamps2 was shown, clicked and ordered once: logs of 11 alone, Ctr ⅓, Cvr 1.
    assert reward[NUMBER["lamps2"]] == pytest.approx(2.0 / 2)
    # lamps1 was never ordered: ln 11 = 2.397895, ln 10 = 2.302585; Ctr = 2.397895/7.098375, Cvr = 0.960253.
    assert reward[NUMBER["lamps1"]] == pytest.approx(2 * 0.337809 * 0.960253 / 1.298062, rel=1e-5)
    # lamps5 was never shown for the query: Ctr ⅓, Cvr 1.
    assert reward[NUMBER["lamps5"]] == pytest.approx(1.5 / 2)
    assert reward[by_level[6][0]] == 0


def test_a_recommended_order_belongs_to_the_newest_search_of_its_category_within_the_window() -> None:
    events = log(
        *shown("r1", "lamp", "lamps0"),
        *shown("r2", "lamp", "lamps1", at=10),
        *shown("r3", "sofa", "sofas0", at=11),
        (12, "u", "f", "recommend", None, "lamps7", "order"),
        (12 + 24 * 7, "u", "f", "recommend", None, "sofas1", "order"),  # too late for the sofa
        (12, "v", "f", "recommend", None, "sofas1", "order"),  # searched for nothing
    )
    found = levels(exposures(events), ITEMS, negatives=(0, 0))
    assert found.select("level", "item").rows() == [(2, NUMBER["lamps7"]), (4, NUMBER["lamps1"])]
    assert found["ts"].to_list() == [START + timedelta(hours=10)] * 2


def test_labels_that_are_not_final_wait_for_another_night() -> None:
    events = log(*shown("r1", "lamp", "lamps0"), (1, "u", "r1", "search", "lamp", "lamps0", "click"))
    early = exposures(events, until=START + timedelta(hours=2))
    assert len(levels(early, ITEMS)) == 0
    assert len(levels(exposures(events, until=START + timedelta(hours=24)), ITEMS)) > 0


def test_odd_logs() -> None:
    assert len(levels(exposures(log()), ITEMS)) == 0
    only_shown = exposures(log(*shown("r1", "lamp", "lamps0")))
    assert len(levels(only_shown, ITEMS)) == 0
    clicks = levels(exposures(log((0, "u", None, "search", "lamp", "lamps0", "click"))), ITEMS)
    assert clicks["level"].to_list() == [3, 5, 5, 5, 5, 6, 6], "no impressions: sampled negatives alone"
    orders = levels(exposures(log((0, "u", None, "search", "lamp", "lamps0", "order"))), ITEMS)
    assert orders["level"][0] == 1 and orders["reward"][0] == pytest.approx(1.0)
    feed = exposures(log((0, "u", "f", "recommend", None, "lamps0", "order")))
    assert len(levels(feed, ITEMS)) == 0
    bare = ITEMS.with_columns(category=pl.lit([], pl.List(pl.String)))
    nowhere = levels(exposures(log((0, "u", None, "search", "lamp", "lamps0", "click"))), bare)
    assert nowhere["level"].to_list() == [3, 6, 6], "no categories: none of level 5"


def test_a_robot_hardly_moves_the_rewards() -> None:
    people = log(
        *[
            row
            for at in range(20)
            for row in shown(f"r{at}", "lamp", "lamps0", "lamps1", at=at, user=f"u{at}")
        ],
        (1, "u1", "r1", "search", "lamp", "lamps0", "click"),
    )
    robot = log(*[(30, "bot", f"b{at}", "search", "lamp", "lamps1", "click") for at in range(10_000)])
    with_robot = pl.concat([people, robot.with_columns(event_id="b" + pl.col("event_id"))])
    found = [
        levels(exposures(events), ITEMS, negatives=(0, 0)).filter(pl.col("user_id") == "u1")
        for events in (people, with_robot)
    ]
    assert found[0]["reward"].to_list() == pytest.approx(found[1]["reward"].to_list(), abs=0.02)


def test_a_robot_does_not_take_the_training_over() -> None:
    robot = log(*[(at, "bot", f"b{at}", "search", f"q{at // 5}", "lamps1", "click") for at in range(1_000)])
    found = levels(exposures(robot), ITEMS, negatives=(0, 0))
    assert found.group_by("query").len()["len"].max() == 3
    assert found["list"].n_unique() == 100 and found["ts"].max() == START + timedelta(hours=999)


def test_draws_repeat_with_the_seed_and_keep_the_rule() -> None:
    items = ITEMS.select(category=pl.col("category").list.get(1)).with_row_index("item")
    items = items.with_columns(pl.col("item").cast(pl.Int32))
    lists = pl.DataFrame({"list": [0, 1, 2], "query": ["a", "b", "c"], "category": ["lamps", "sofas", None]})
    lists = lists.with_columns(pl.col("list").cast(pl.UInt32))
    taken = pl.DataFrame({"list": [1], "item": [12]}, schema={"list": pl.UInt32, "item": pl.Int32})
    liked = pl.DataFrame({"query": ["b"], "item": [13]}, schema={"query": pl.String, "item": pl.Int32})
    drawn = sampled(lists, taken, liked, items, (4, 3), seed=1)
    assert drawn.equals(sampled(lists, taken, liked, items, (4, 3), seed=1))
    assert not drawn.equals(sampled(lists, taken, liked, items, (4, 3), seed=2))
    fifth = drawn.filter(pl.col("level") == 5)
    assert fifth.filter(pl.col("list") == 0)["item"].n_unique() == 4
    assert fifth.filter(pl.col("list") == 1)["item"].to_list() == [14], "one sofa is taken, one is liked"
    assert len(fifth.filter(pl.col("list") == 2)) == 0
    sixth = drawn.filter(pl.col("level") == 6)
    assert sixth.group_by("list").len()["len"].to_list() == [3, 3, 3]
    assert len(drawn.unique(["list", "item"])) == len(drawn)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(0, 6))
def test_what_is_drawn_was_not_shown_nor_liked(seed, fifth, sixth) -> None:
    events = log(
        *shown("r1", "lamp", *[f"lamps{at}" for at in range(8)]),
        (1, "u", "r1", "search", "lamp", "lamps0", "click"),
        (2, "v", None, "search", "lamp", "lamps9", "click"),
    )
    found = levels(exposures(events), ITEMS, negatives=(fifth, sixth), seed=seed)
    for (_,), rows in found.group_by("list"):
        assert rows["item"].n_unique() == len(rows)
        drawn = rows.filter(pl.col("level") >= 5)
        assert not set(drawn["item"]) & {NUMBER["lamps0"], NUMBER["lamps9"]}
        assert (drawn["level"] == 5).sum() <= fifth and (drawn["level"] == 6).sum() <= sixth
