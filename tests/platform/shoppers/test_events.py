from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.errors import UsageError
from onesearch.shoppers.events import FUTURE_LIMIT_S, LAST_TIME, Event, Tally, apply, by_user, fold
from onesearch.shoppers.packing import pack, unpack
from onesearch.shoppers.state import (
    NO_ITEM,
    RECENT_SIZE,
    RING_SIZE,
    Recent,
    Ring,
    ShopperState,
    item_key,
    item_keys,
)

NOON = 1_700_000_000
ANYBODY = ShopperState("u")


def event(time: int = NOON, action: str = "click", item: str | None = "a", **more: Any) -> Event:
    return Event("u", time, action, item, **more)


EVENTS = st.lists(
    st.builds(
        Event,
        st.just("u"),
        st.integers(NOON, NOON + 40),
        st.sampled_from(["impression", "click", "order"]),
        st.sampled_from([*"abcdefgh", ""]),
        st.sampled_from(
            [None, "", " ", "Red lamp", "red  LAMP", "rug", "ｒｕｇ", "台灯", "l" * 300, "L" * 299]
        ),
        st.sampled_from(["search", "recommend"]),
    ),
    max_size=60,
)


def test_what_is_kept() -> None:
    state = apply(
        ShopperState(),
        [
            event(NOON, "impression", "a", query="Lamp"),
            event(NOON, "impression", "b", query="Lamp"),
            event(NOON + 5, "click", "b", query="Lamp"),
            event(NOON + 9, "order", "b", query="Lamp"),
            event(NOON + 20, "impression", "c", scene="recommend"),
            event(NOON + 30, "click", "c", query="said to be typed", scene="recommend"),
        ],
    )
    b, c = item_key("b"), item_key("c")
    assert state.user_id == "u"
    assert state.clicks == Ring(item_keys(["b", "c"]), np.uint32([NOON + 5, NOON + 30]), np.uint8([0, 1]))
    assert state.orders == Ring(item_keys(["b"]), np.uint32([NOON + 9]), np.uint8([0]))
    assert state.recent == (
        Recent("Lamp", NO_ITEM, NOON),
        Recent("Lamp", b, NOON + 9),
        Recent("", c, NOON + 30, 1),
    )
    assert state.counts == (3, 2, 1)
    assert (state.clicks.items.dtype, state.clicks.times.dtype) == (np.uint64, np.uint32)


def test_a_search_that_found_nothing() -> None:
    state = apply(ANYBODY, [event(action="impression", item=None, query="zeppelin")])
    assert state.recent == (Recent("zeppelin", NO_ITEM, NOON),)
    assert state.known


def test_late_events_go_where_they_belong() -> None:
    state = apply(ANYBODY, [event(NOON + 2, item="b"), event(NOON + 8, item="d")])
    state = apply(state, [event(NOON + 5, item="c"), event(NOON, item="a")])
    assert state.clicks.items.tolist() == [item_key(item) for item in "abcd"]
    assert [recent.item for recent in state.recent] == [item_key(item) for item in "abcd"]


def test_repetitions_change_nothing() -> None:
    events = [event(), event(action="order"), event(action="impression", query="lamp")]
    state, tally = fold(ANYBODY, events)
    again, repeated = fold(state, events[:2])
    assert again == state
    assert (tally, repeated) == (Tally(applied=3), Tally(repeated=2))
    assert fold(ANYBODY, [*events[:2], *events[:2]])[0] == again.__class__(
        "u", state.clicks, state.orders, (Recent("", item_key("a"), NOON),), (0, 1, 1)
    )


def test_another_second_action_or_item_is_no_repetition() -> None:
    others = [event(), event(NOON + 1), event(action="order"), event(item="b")]
    assert apply(ANYBODY, others).counts == (0, 3, 1)


@pytest.mark.parametrize(
    "refused",
    [
        event(NOON + FUTURE_LIMIT_S + 1),
        event(-1),
        event(LAST_TIME + 1),
        event(item=None),
        event(item=""),
        event(action="order", item=None),
        event(action="look"),
        event(scene="shop window"),
    ],
)
def test_what_does_not_fit_is_refused_and_counted(refused: Event) -> None:
    state, tally = fold(ANYBODY, [refused, event(NOON - 1)], now=NOON)
    assert (state.counts, tally) == ((0, 1, 0), Tally(applied=1, refused=1))


def test_the_clock_may_be_a_day_behind() -> None:
    assert fold(ANYBODY, [event(NOON + FUTURE_LIMIT_S)], now=NOON)[1] == Tally(applied=1)
    assert fold(ANYBODY, [event(LAST_TIME)])[1] == Tally(applied=1)


def test_nobody_is_no_shopper() -> None:
    assert fold(ShopperState(), [Event("", NOON, "click", "a")]) == (ShopperState(), Tally(refused=1))


def test_shoppers_are_not_mixed_up() -> None:
    with pytest.raises(UsageError, match="'v' among those of 'u'"):
        apply(ANYBODY, [Event("v", NOON, "click", "a")])
    grouped = by_user([Event("v", 2, "click", "a"), Event("u", 1, "click", "a"), Event("v", 1, "click", "b")])
    assert {user: [each.time for each in events] for user, events in grouped.items()} == {
        "v": [2, 1],
        "u": [1],
    }


def test_pairs_are_told_apart_by_what_the_query_says() -> None:
    state = apply(ANYBODY, [event(NOON, query="Red  LAMP"), event(NOON + 1, query="red lamp ")])
    assert state.recent == (Recent("red lamp ", item_key("a"), NOON + 1),)
    assert apply(state, [event(NOON - 1, query="ＲＥＤ lamp")]).recent == state.recent
    assert apply(ANYBODY, [event(action="impression", query=" \t ")]).recent == ()


def test_long_queries_are_cut_where_storage_cuts_them() -> None:
    state = apply(ANYBODY, [event(query="ü" * 200)])
    assert state.recent[0].query == "ü" * 127
    assert unpack(pack(state)) == state
    assert len(apply(state, [event(NOON + 1, query="ü" * 300)]).recent) == 1


def test_a_hundred_thousand_events() -> None:
    rng = random.Random(3)
    events = [
        event(
            NOON + number // 3, rng.choice(["impression", "click", "order"]), f"i{number}", query=f"q{number}"
        )
        for number in range(100_000)
    ]
    rng.shuffle(events)
    state, tally = fold(ANYBODY, events)
    assert tally == Tally(applied=100_000)
    assert (len(state.clicks), len(state.orders), len(state.recent)) == (RING_SIZE, RING_SIZE, RECENT_SIZE)
    assert sum(state.counts) == 100_000
    assert (np.diff(state.clicks.times.astype(np.int64)) >= 0).all()
    assert state.recent[-1].time == NOON + 99_999 // 3


@settings(max_examples=150)
@given(EVENTS, st.randoms(), st.integers(1, 6))
def test_any_order_in_any_portions_gives_the_same(
    events: list[Event], rng: random.Random, parts: int
) -> None:
    """Through storage between the portions, which must lose nothing that a later event depends on."""
    at_once = apply(ANYBODY, events)
    rng.shuffle(events)
    state = ANYBODY
    for part in range(parts):
        state = unpack(pack(apply(state, events[part::parts])))
    assert state == at_once


def test_order_does_not_matter_when_rings_overflow() -> None:
    rng = random.Random(8)
    events = [event(NOON + number // 4, item=f"i{number % 900}") for number in range(3 * RING_SIZE)]
    at_once = apply(ANYBODY, events)
    rng.shuffle(events)
    state = ANYBODY
    for start in range(0, len(events), 100):
        state = apply(state, events[start : start + 100])
    assert state == at_once
    assert state.counts == (0, len(events), 0)
