"""What belongs to which exposure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.data.schemas import schema
from onesearch.errors import UsageError
from onesearch.training.attribution import exposures

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def log(*rows: tuple) -> pl.DataFrame:
    """Rows (minutes, user, request, scene, query, item, action) as the store's table."""
    names = ("ts", "user_id", "request_id", "scene", "query", "item_id", "action")
    made = [
        {
            **dict.fromkeys(schema("interactions")),
            "event_id": f"e{at_row}",
            **dict(zip(names, row, strict=True)),
        }
        for at_row, row in enumerate(rows)
    ]
    for row in made:
        row["ts"] = at(row["ts"])
    return pl.DataFrame(made, schema=schema("interactions"))


def told(frame: pl.DataFrame) -> list[tuple]:
    return frame.select("user_id", "query", "item_id", "shown", "clicked", "ordered").rows()


def test_a_request_keeps_its_own_clicks() -> None:
    found = exposures(
        log(
            (0, "u", "r1", "search", "Red  Lamp", "a", "impression"),
            (0, "u", "r1", "search", "Red  Lamp", "b", "impression"),
            (9, "u", "r2", "search", "red lamp", "a", "impression"),
            (10, "u", "r1", "search", "red lamp", "a", "click"),
            (11, "u", "r1", "search", "red lamp", "a", "order"),
            (12, "v", "r1", "search", "red lamp", "b", "click"),  # another shopper's: an exposure of its own
        )
    )
    assert told(found) == [
        ("u", "red lamp", "a", True, True, True),
        ("u", "red lamp", "b", True, False, False),
        ("u", "red lamp", "a", True, False, False),
        ("v", "red lamp", "b", False, True, False),
    ]
    first, second, third, other = found["list"].to_list()
    assert first == second and len({first, third, other}) == 3
    assert found["click_ts"][0] == at(10) and found["order_ts"][0] == at(11)


def test_without_a_request_the_newest_before_it_counts() -> None:
    found = exposures(
        log(
            (0, "u", None, "search", "lamp", "a", "impression"),
            (5, "u", None, "search", "lamp", "a", "impression"),
            (6, "u", None, "search", "sofa", "a", "impression"),
            (7, "u", None, "recommend", None, "a", "impression"),
            (8, "u", None, "search", "lamp", "a", "click"),
            (9, "u", None, "search", "lamp", "a", "impression"),  # after the click
        )
    )
    assert found["clicked"].to_list() == [False, True, False, False, False]


def test_an_order_that_names_no_query_goes_to_what_was_clicked() -> None:
    found = exposures(
        log(
            (0, "u", "r1", "search", "lamp", "a", "impression"),
            (1, "u", "r1", "search", "lamp", "a", "click"),
            (5, "u", "r2", "search", "light", "a", "impression"),
            (9, "u", None, "search", None, "a", "order"),
        )
    )
    assert told(found) == [("u", "lamp", "a", True, True, True), ("u", "light", "a", True, False, False)]


def test_the_window_is_an_end() -> None:
    events = log(
        (0, "u", "r1", "search", "lamp", "a", "impression"),
        (60, "u", "r1", "search", "lamp", "a", "click"),
        (61, "u", None, "search", "lamp", "a", "order"),
    )
    whole = exposures(events, timedelta(minutes=61))
    assert told(whole) == [("u", "lamp", "a", True, True, True)]
    cut = exposures(events, timedelta(minutes=59))
    assert told(cut) == [("u", "lamp", "a", True, False, False), ("u", "lamp", "a", False, True, True)]
    with pytest.raises(UsageError, match="positive"):
        exposures(events, timedelta(0))


def test_labels_are_final_when_their_window_is_closed() -> None:
    events = log(
        (0, "u", "r1", "search", "lamp", "a", "impression"),
        (31, "u", "r2", "search", "lamp", "a", "impression"),
    )
    window = timedelta(minutes=30)
    assert exposures(events, window)["final"].to_list() == [True, True]
    assert exposures(events, window, until=at(30))["final"].to_list() == [True, False]
    assert exposures(events, window, until=at(29))["final"].to_list() == [False, False]


def test_logs_of_clicks_and_orders_alone_are_exposures_too() -> None:
    clicks = exposures(log((0, "u", None, "search", "lamp", "a", "click")))
    assert told(clicks) == [("u", "lamp", "a", False, True, False)]
    orders = exposures(log((0, "u", None, "search", "lamp", "a", "order")))
    assert told(orders) == [("u", "lamp", "a", False, True, True)]
    assert orders["click_ts"].to_list() == [at(0)]
    both = exposures(
        log((0, "u", None, "search", "lamp", "a", "click"), (1, "u", None, "search", "lamp", "a", "order"))
    )
    assert told(both) == [("u", "lamp", "a", False, True, True)]


def test_no_log_has_no_exposures() -> None:
    empty = exposures(log())
    assert len(empty) == 0 and empty.schema["clicked"] == pl.Boolean


def test_a_repeated_impression_of_a_request_is_one() -> None:
    row = (0, "u", "r1", "search", "lamp", "a", "impression")
    assert len(exposures(log(row, (1, *row[1:]), (2, *row[1:6], "click")))) == 1


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3000),
        st.sampled_from("uv"),
        st.sampled_from([None, "r1", "r2"]),
        st.sampled_from(["search", "recommend"]),
        st.sampled_from([None, "lamp", " "]),
        st.sampled_from("ab"),
        st.sampled_from(["impression", "click", "order"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.randoms())
def test_any_log_has_exposures_that_hold_together(rows, random) -> None:
    found = exposures(log(*rows))
    assert (found["clicked"] | ~found["ordered"]).all(), "an order is a click"
    assert (found["shown"] | found["clicked"]).all(), "what was not shown was clicked"
    impressions = [row for row in rows if row[6] == "impression"]
    assert found["shown"].sum() <= len(impressions)
    assert bool(len(found)) == bool(rows)
    assert found["ts"].is_sorted()
    shuffled = random.sample(rows, len(rows))
    assert (
        exposures(log(*shuffled))
        .select(pl.len(), pl.col("clicked", "ordered", "shown").sum())
        .equals(found.select(pl.len(), pl.col("clicked", "ordered", "shown").sum()))
    )
