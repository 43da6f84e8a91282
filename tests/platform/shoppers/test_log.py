from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.shoppers.events import Event, apply
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import RECENT_SIZE, RING_SIZE, ShopperState

START = datetime(2024, 5, 20, tzinfo=UTC)
SECOND_0 = int(START.timestamp())


def row(number: int, seconds: float, user: str, action: str, item: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": str(number), "ts": START + timedelta(seconds=seconds), "user_id": user, "action": action,
        "item_id": item, "scene": "search", "query": None, **more,
    }  # fmt: skip


def store_of(path: Path, rows: list[dict[str, Any]], part_rows: int = 1_000) -> Store:
    with StoreWriter(path, "test", part_rows=part_rows) as writer:
        if rows:
            writer.write(
                "interactions",
                pl.DataFrame(rows, schema_overrides={"query": pl.String}, infer_schema_length=None),
            )
    return Store.open(path)


def events_of(rows: list[dict[str, Any]]) -> list[Event]:
    return [
        Event(
            each["user_id"], int(each["ts"].timestamp()), each["action"], each["item_id"], each["query"],
            each["scene"],
        )
        for each in rows
    ]  # fmt: skip


def expected(rows: list[dict[str, Any]], user: str, time_s: int) -> ShopperState:
    earlier = [each for each in events_of(rows) if each.user_id == user and each.time < time_s]
    return apply(ShopperState(user), earlier)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 30).map(lambda halves: halves / 2),
        st.sampled_from(["u", "v", "w"]),
        st.sampled_from(["impression", "click", "order"]),
        st.sampled_from([*"abcdef", ""]),
        st.sampled_from(
            [None, "", " ", "Red lamp", "red  LAMP", "rug", "ｒｕｇ", "台灯", "l" * 300, "L" * 299]
        ),
        st.sampled_from(["search", "recommend"]),
    ),
    max_size=80,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_it_is_what_folding_would_have_made(tmp_path: Path, drawn: list[tuple[Any, ...]]) -> None:
    rows = [
        row(number, seconds, user, action, item, query=query, scene=scene)
        for number, (seconds, user, action, item, query, scene) in enumerate(drawn)
    ]
    log = EventLog.of_store(store_of(tmp_path / "s", rows, part_rows=17))
    asked = [(user, SECOND_0 + second) for user in "uvwx" for second in range(-1, 18)]
    states = log.states_before([user for user, _ in asked], np.array([time_s for _, time_s in asked]))
    assert states == [expected(rows, user, time_s) for user, time_s in asked]


@pytest.mark.parametrize("different", [7, 400])
def test_long_histories(tmp_path: Path, different: int) -> None:
    """Where few pairs come again and again, the walk back is long."""
    rng = np.random.default_rng(4)
    rows = [
        row(
            number,
            number // 2,
            "u",
            "click" if rng.random() < 0.9 else "order",
            f"i{rng.integers(different)}",
            query=f"q{rng.integers(2)}",
        )
        for number in range(3 * RING_SIZE)
    ]
    rows[0] |= {"query": "long ago", "item_id": "x"}
    log = EventLog.of_store(store_of(tmp_path, rows))
    for second in (1, 40, 900, 2_000):
        assert log.state_before("u", SECOND_0 + second) == expected(rows, "u", SECOND_0 + second)
    last = log.state_before("u", 2**40)
    assert len(last.clicks) == RING_SIZE
    assert len(last.recent) == min(RECENT_SIZE, 2 * different + 1)
    assert ("long ago" in {recent.query for recent in last.recent}) == (different == 7)


def test_nothing_of_the_same_second_is_seen(tmp_path: Path) -> None:
    """H&M knows days only: all that a shopper bought on a day has one time."""
    rows = [row(number, 0, "u", "order", f"i{number}", query="jeans") for number in range(5)]
    rows += [row(9, 86_400, "u", "order", "i9", query="socks")]
    log = EventLog.of_store(store_of(tmp_path, rows))
    assert not log.state_before("u", SECOND_0).known
    assert log.state_before("u", SECOND_0 + 1).counts == (0, 0, 5)
    assert log.state_before("u", SECOND_0 + 86_400).counts == (0, 0, 5)
    assert log.state_before("u", SECOND_0 + 86_401).counts == (0, 0, 6)


def test_times_that_no_state_holds_are_left_out(tmp_path: Path) -> None:
    late = datetime(2150, 1, 1, tzinfo=UTC)
    log = EventLog.of_store(
        store_of(tmp_path, [row(1, 0, "u", "click", "a"), row(2, 0, "u", "click", "b", ts=late)])
    )
    assert log.state_before("u", 2**40).counts == (0, 1, 0)
    assert log.state_before("u", -(2**40)) == ShopperState("u")


def test_a_store_without_a_log(tmp_path: Path) -> None:
    log = EventLog.of_store(store_of(tmp_path, []))
    assert log.user_ids == []
    assert log.state_before("u", 2**33) == ShopperState("u")
    assert log.states_before([], np.zeros(0)) == []


def test_states_do_not_write_to_the_log(tmp_path: Path) -> None:
    state = EventLog.of_store(store_of(tmp_path, [row(1, 0, "u", "click", "a")])).state_before("u", 2**33)
    with pytest.raises(ValueError, match="read-only"):
        state.clicks.items[0] = 1
