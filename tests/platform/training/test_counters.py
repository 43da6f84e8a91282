"""Counters, robust against robots, and as they stood at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.training.counters import COUNTS, ITEM, PAIR, USER_CAP, counters, counters_before

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
