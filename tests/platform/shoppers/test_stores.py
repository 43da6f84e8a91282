"""The contract of state stores, held by each of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from onesearch.errors import OneSearchError, UsageError
from onesearch.shoppers.events import Event, Tally, apply
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.packing import pack
from onesearch.shoppers.state import RECENT_SIZE, RING_SIZE, Recent, Ring, ShopperState, item_key
from onesearch.shoppers.store import StateStore

NOON = 1_700_000_000
IDS = ["u", "ü 台灯", "a b\n", "x" * 510, "x" * 511, "x" * 4_000, "x" * 4_001, "\udc80"]


@pytest.fixture
def store(url: str) -> Iterator[StateStore]:
    with open_states(url) as opened:
        yield opened


def click(user: str = "u", time_s: int = NOON, item: str = "a", query: str = "lamp") -> Event:
    return Event(user, time_s, "click", item, query)


def largest() -> ShopperState:
    rng = np.random.default_rng(1)
    ring = Ring(
        rng.integers(1, 2**63, RING_SIZE).astype(np.uint64),
        np.sort(rng.integers(0, 2**32, RING_SIZE)).astype(np.uint32),
        rng.integers(0, 2, RING_SIZE).astype(np.uint8),
    )
    recent = tuple(Recent("台" * 85, 2**64 - 1 - number, NOON + number, 1) for number in range(RECENT_SIZE))
    return ShopperState("u" * 255, ring, ring, recent, (2**32 - 1, 2**32 - 1, 2**32 - 1))


def test_nobody_is_known_at_first(store: StateStore) -> None:
    assert store.get("u") == ShopperState("u")
    assert store.get("") == ShopperState("")
    assert store.get_many([]) == []
    assert (store.count, list(store.users()), store.marks()) == (0, [], {})


def test_events_become_states(store: StateStore) -> None:
    events = {"u": [click(), click(item="b", time_s=NOON + 3)], "v": [click("v")]}
    assert store.update(events) == Tally(applied=3)
    expected = [apply(ShopperState(user), given) for user, given in events.items()]
    assert [store.get("u"), store.get("v")] == expected
    assert store.get_many(["v", "nobody", "u", "v"]) == [
        expected[1], ShopperState("nobody"), expected[0], expected[1],
    ]  # fmt: skip
    assert store.update({"u": [click(time_s=NOON - 9)]}) == Tally(applied=1)
    assert store.get("u") == apply(expected[0], [click(time_s=NOON - 9)])
    assert (store.count, sorted(store.users())) == (2, ["u", "v"])


def test_ids_of_all_kinds(store: StateStore) -> None:
    store.update({user: [click(user, item=str(number))] for number, user in enumerate(IDS)})
    assert sorted(store.users()) == sorted(IDS)
    assert store.count == len(IDS)
    for number, user in enumerate(IDS):
        state = store.get(user)
        assert (state.user_id, state.clicks.items.tolist()) == (user, [item_key(str(number))])
    store.update({user: [click(user, NOON + 1)] for user in IDS})
    assert store.count == len(IDS)
    assert all(state.counts == (0, 2, 0) for state in store.get_many(IDS))


def test_the_largest_state(store: StateStore) -> None:
    state = largest()
    assert len(pack(state)) <= 32_000
    assert store.put_many([state]) == 1
    assert store.get(state.user_id) == state
    # And whatever else happens.
    more = [click(state.user_id, NOON + number, f"i{number}", f"{number}" * 300) for number in range(5_000)]
    store.update({state.user_id: more})
    assert len(pack(store.get(state.user_id))) <= 32_000


def test_states_are_put_in_place_of_others(store: StateStore) -> None:
    store.update({"u": [click()]})
    states = [ShopperState(f"u{number}", counts=(number, 0, 0)) for number in range(2_500)]
    assert store.put_many(iter([*states, ShopperState("u", counts=(7, 0, 0))])) == 2_501
    assert store.get("u") == ShopperState("u", counts=(7, 0, 0))
    assert store.get_many([state.user_id for state in states]) == states
    assert store.count == 2_501
    assert set(store.users()) == {"u", *(state.user_id for state in states)}
    with pytest.raises(UsageError, match="names no shopper"):
        store.put_many([ShopperState()])


def test_marks_are_written_with_the_states(store: StateStore) -> None:
    store.update({"u": [click()]}, {"clicks/0": 5, "clicks/1": 2**40})
    store.update({}, {"clicks/0": 9, "orders/0": -1})
    assert store.marks() == {"clicks/0": 9, "clicks/1": 2**40, "orders/0": -1}
    store.update({}, {"clicks/0": 3})
    assert store.marks()["clicks/0"] == 3


def test_a_step_that_comes_again_changes_nothing(store: StateStore) -> None:
    seen = Event("u", NOON, "impression", "a", "lamp")
    assert store.update({"u": [seen, click()]}, {"t/0": 2}) == Tally(applied=2)
    assert store.update({"u": [seen, click()]}, {"t/0": 2}) == Tally(repeated=2)
    assert store.get("u").counts == (1, 1, 0)
    # Without its mark, an impression cannot be told from another one; a click can.
    assert store.update({"u": [seen, click()]}, {"t/0": 4}) == Tally(applied=1, repeated=1)
    assert store.get("u").counts == (2, 1, 0)


def test_all_or_nothing(store: StateStore) -> None:
    store.update({"u": [click()]}, {"t/0": 1})
    before = store.get("u")
    with pytest.raises(UsageError, match="'v' among those of 'w'"):
        store.update({"u": [click(time_s=NOON + 1)], "w": [click("v")]}, {"t/0": 3})
    assert (store.get("u"), store.marks(), store.count) == (before, {"t/0": 1}, 1)


def test_what_is_refused_leaves_no_trace(store: StateStore) -> None:
    late = click(time_s=NOON + 200_000)
    assert store.update({"u": [late], "": [click("")]}, {"t/0": 1}, now=NOON) == Tally(refused=2)
    assert (store.count, store.marks()) == (0, {"t/0": 1})


def test_reading_only(store: StateStore, url: str) -> None:
    store.update({"u": [click()]})
    with open_states(url, read_only=True) as reader:
        assert reader.get("u") == store.get("u")
        for write in (lambda: reader.update({}, {"t/0": 1}), lambda: reader.put_many([])):
            with pytest.raises(UsageError, match="open for reading only"):
                write()
        store.update({"u": [click(time_s=NOON + 1)]})
        assert reader.get("u").counts == (0, 2, 0)
    assert store.get("u").known


def test_a_closed_store_says_so(store: StateStore) -> None:
    store.close()
    store.close()
    with pytest.raises(OneSearchError, match="closed"):
        store.get("u")


def test_states_stay_when_the_store_closes(url: str) -> None:
    with open_states(url) as first:
        first.update({"u": [click()]}, {"t/0": 1})
        kept = first.get("u")
    with open_states(url) as again:
        assert (again.get("u"), again.marks()) == (kept, {"t/0": 1})


WRITER = """
import sys
from onesearch.shoppers.events import Event
from onesearch.shoppers.opening import open_states
url, name, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_states(url) as store:
    print("ready", flush=True)
    for step in range(steps):
        events = [Event(user, 1_700_000_000 + step, "click", name) for user in ("u", "v")]
        store.update({event.user_id: [event] for event in events}, {name: step + 1})
"""


def writer(url: str, name: str, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, name, str(steps)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_two_processes_write_and_one_reads(url: str) -> None:
    with open_states(url) as store:
        writers = [writer(url, name, 40) for name in ("one", "two")]
        seen: list[int] = []
        while any(process.poll() is None for process in writers):
            both = store.get_many(["u", "v"])
            assert both[0].counts == both[1].counts  # of one step, never half of it
            seen.append(both[0].counts[1])
        assert [process.returncode for process in writers] == [0, 0]
        assert seen == sorted(seen)
        assert store.get("u").counts == (0, 80, 0)
        assert store.marks() == {"one": 40, "two": 40}


def test_a_writer_is_killed(url: str) -> None:
    with open_states(url) as store:
        killed = writer(url, "t", 100_000)
        while store.marks().get("t", 0) < 20:
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        done = store.marks()["t"]
        assert [state.counts[1] for state in store.get_many(["u", "v"])] == [done, done]
        store.update({"u": [click()]}, {"t": done + 1})
        assert store.get("u").counts[1] == done + 1


def test_threads_share_a_store(store: StateStore) -> None:
    store.put_many([ShopperState(f"u{number}", counts=(number, 0, 0)) for number in range(50)])
    wrong: list[object] = []

    def read() -> None:
        try:
            for number in range(200):
                if store.get(f"u{number % 50}").counts[0] != number % 50:
                    wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(20):
        store.update({"w": [click("w", NOON + number)]})
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_state_that_is_put_lacks_nothing(store: StateStore) -> None:
    state = apply(
        ShopperState("u"), [click(time_s=NOON + number, item=f"{number % 30}") for number in range(99)]
    )
    store.put_many([state])
    assert store.get("u") == state
    late = click(time_s=NOON - 1)
    store.update({"u": [late]})
    assert store.get("u") == apply(state, [late]) == replace(apply(state, [late]))
