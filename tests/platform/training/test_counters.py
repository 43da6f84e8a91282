"""Counters, robust against robots, and as they stood at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.training.counters import (
    COUNTS,
    ITEM,
    PAIR,
    USER_CAP,
    counters,
    counters_before,
    popularity_before,
)

START = datetime(2024, 5, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def seen(*rows: tuple) -> pl.DataFrame:
    """Exposures of (minute, user, query or None, item, minutes to the click or None, … to the order)."""
    made = [
        {
            "ts": START + timedelta(minutes=at),
            "user_id": user,
            "scene": "search" if query else "recommend",
            "query": query,
            "item_id": item,
            "click_ts": None if click is None else START + timedelta(minutes=at + click),
            "order_ts": None if order is None else START + timedelta(minutes=at + order),
            "clicked": click is not None,
            "ordered": order is not None,
        }
        for at, user, query, item, click, order in rows
    ]
    schema = {
        "ts": TIME, "user_id": pl.String, "scene": pl.String, "query": pl.String, "item_id": pl.String,
        "click_ts": TIME, "order_ts": TIME, "clicked": pl.Boolean, "ordered": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(made, schema=schema)


LOG = seen(
    (0, "u", "lamp", "a", 1, 2),
    (10, "v", "lamp", "a", None, None),
    (20, "w", "lamp", "b", 5, None),
    (30, "u", None, "a", 1, None),
)


def test_counted_by_hand() -> None:
    assert counters(LOG).rows() == [("lamp", "a", 2, 1, 1), ("lamp", "b", 1, 1, 0)]
    assert counters(LOG, ITEM).rows() == [("a", 3, 2, 1), ("b", 1, 1, 0)]


def test_a_robot_is_worth_three_clicks() -> None:
    robot = seen(*[(at, "bot", "lamp", "a", 0, 0) for at in range(10_000)], (0, "u", "lamp", "b", 1, None))
    assert counters(robot).rows() == [("lamp", "a", USER_CAP, USER_CAP, USER_CAP), ("lamp", "b", 1, 1, 0)]
    assert counters(robot, user_cap=1).rows()[0][2:] == (1, 1, 1)


def test_nothing_counts_to_nothing() -> None:
    assert counters(seen()).rows() == []
    asked = pl.DataFrame({"query": ["lamp"], "item_id": ["a"], "ts": [START]}, schema_overrides={"ts": TIME})
    assert counters_before(seen(), asked).rows() == [(0, 0, 0)]


def test_before_a_moment_only_what_came_before_it_is_known() -> None:
    moments = [20, 0, 1, 2, 3, 10, 11]
    asked = pl.DataFrame(
        {"query": "lamp", "item_id": "a", "ts": [START + timedelta(minutes=at) for at in moments]},
        schema_overrides={"ts": TIME},
    )
    # Seen at 0 and 10, clicked at 1, ordered at 2; what happens at the moment itself is not known yet.
    expected = {
        0: (0, 0, 0),
        1: (1, 0, 0),
        2: (1, 1, 0),
        3: (1, 1, 1),
        10: (1, 1, 1),
        11: (2, 1, 1),
        20: (2, 1, 1),
    }
    assert counters_before(LOG, asked).rows() == [expected[at] for at in moments]


EXPOSED = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.sampled_from("uvw"),
        st.sampled_from(["lamp", "sofa", None]),
        st.sampled_from("ab"),
        st.none() | st.integers(0, 9),
        st.none(),
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(EXPOSED, st.integers(1, 3))
def test_long_after_everything_both_agree(rows, cap) -> None:
    log = seen(*rows)
    for by in (PAIR, ITEM):
        whole = counters(log, by, cap)
        asked = whole.select(*by, ts=pl.lit(START + timedelta(days=9)).cast(TIME))
        assert counters_before(log, asked, by, cap).equals(whole.select(*COUNTS))
        assert (whole["impressions"] >= whole["clicks"]).all() and (whole["clicks"] >= whole["orders"]).all()
        users = log["user_id"].n_unique()
        assert (whole["impressions"] <= cap * users).all()


def test_popularity_before_by_hand() -> None:
    log = seen(
        (0, "u", "lamp", "a", 0, 1440), (0, "v", None, "a", 1440, None), (5, "v", "lamp", "b", None, None)
    )
    asked = pl.DataFrame(
        {"item_id": ["a", "a", "b", "a"], "ts": [START + timedelta(days=at) for at in (2, 0, 2, 1)]},
        schema_overrides={"ts": TIME},
    )
    found = popularity_before(log, asked, half_life_days=1.0)["popularity"].to_list()
    # On day 2: the click of day 0 is two half-lives old, the order and the other click of day 1 are one.
    assert found == pytest.approx([1 + 0.25 + (2 + 1) * 0.5, 1.0, 1.0, 1 + 0.5])


def test_popularity_is_that_of_a_log_that_ends_then() -> None:
    random = np.random.default_rng(3)
    rows = [
        (int(at), "u", "lamp", str(item), int(gap), int(gap) if buys else None)
        for at, item, gap, buys in zip(
            random.integers(0, 200_000, 300), random.integers(0, 5, 300), random.integers(1, 9, 300),
            random.random(300) < 0.3, strict=True,
        )
    ]  # fmt: skip
    log = seen(*rows)
    end = START + timedelta(days=150)
    asked = pl.DataFrame({"item_id": [str(at) for at in range(5)], "ts": end}, schema_overrides={"ts": TIME})
    found = popularity_before(log, asked, 14.0)["popularity"].to_numpy()
    acts = pl.concat(
        log.filter(pl.col(ts).is_not_null()).select("item_id", pl.col(ts).alias("ts"), worth=pl.lit(worth))
        for ts, worth in (("click_ts", 1.0), ("order_ts", 2.0))
    )
    age = (pl.lit(end) - pl.col("ts")).dt.total_seconds() / 86_400
    sums = acts.group_by("item_id").agg((pl.col("worth") * 0.5 ** (age / 14)).sum()).sort("item_id")
    np.testing.assert_allclose(found, 1 + sums["worth"].to_numpy(), rtol=1e-5)
    assert popularity_before(seen(), asked)["popularity"].to_list() == [1.0] * 5
