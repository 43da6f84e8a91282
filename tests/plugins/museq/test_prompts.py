"""Prompts token by token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.contracts.user_encoder import ShopperState
from onesearch.vocabulary import NONE, POPULAR, QUERY, RECENT, SEP, USER
from onesearch_museq.behaviour import Pair
from onesearch_museq.prompts import fitting, popular_length, recent_length
from onesearch_museq.server import MuSeqServer
from onesearch_museq.user_id import behaviour_codes, hashed_codes

from .conftest import LEVELS, World, shopper

QUERY_SID = np.array([[3, 0, 1, 2, 2]], np.int32)


def prompt(
    server: MuSeqServer, state: ShopperState, stand_ins: list[int] | None = None, query: str = "red shirt"
) -> list[int]:
    given = None if stand_ins is None else [np.array(stand_ins, np.int32)]
    raw = server.raw([state], [query], QUERY_SID, given)
    assert raw.mask[0].all()
    return raw.ids[0].tolist()


def asked(world: World) -> list[int]:
    """The query's part."""
    return [QUERY, *world.vocabulary.text_ids(["red shirt"], 24)[0], SEP, *world.code_ids(QUERY_SID)]


def user(world: World, recent: list[int], long: list[int]) -> list[int]:
    sids = world.index.sids
    return [USER, *world.code_ids(behaviour_codes(sids[recent], sids[long], world.codebooks))]


def test_a_shopper_with_a_full_history(world: World) -> None:
    pieces = [("old", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5), ("d", 6)]
    found = prompt(world.server(stand_ins=5), shopper([9, 8, 7], [], *pieces), stand_ins=[30, 31])
    pairs = [token for query, item in pieces[1:] for token in (*world.past(query), *world.sid(item))]
    assert found == [*user(world, [2, 3, 4, 5, 6], [9, 8, 7]), *asked(world), RECENT, *pairs]


def test_a_shopper_of_whom_nothing_is_known(world: World) -> None:
    assert prompt(world.server(), ShopperState()) == [USER, NONE, *asked(world)]
    assert prompt(world.server(), ShopperState("never seen")) == [USER, NONE, *asked(world)]


def test_what_stands_in_for_a_cold_shopper(world: World) -> None:
    popular = [token for item in (30, 31, 32) for token in world.sid(item)]
    wanted = [*user(world, [32, 31, 30], [32, 31, 30]), *asked(world), POPULAR, *popular]
    assert prompt(world.server(), ShopperState(), [30, 31, 32]) == wanted
    world.popular["red shirt"] = [30, 31, 32]
    assert prompt(world.server(), ShopperState()) == wanted
    # Given ones rule over the table, also when they are none.
    assert prompt(world.server(), ShopperState(), []) == [USER, NONE, *asked(world)]


def test_own_items_take_the_places_of_stand_ins(world: World) -> None:
    state = shopper([], [], ("a", 1), ("b", None), ("", 2))
    found = prompt(world.server(stand_ins=5), state, [30, 31, 32, 33, 34])
    pairs = [*world.past("a"), *world.sid(1), *world.past("b"), NONE, NONE, *world.sid(2)]
    popular = [token for item in (30, 31, 32) for token in world.sid(item)]
    assert found == [*user(world, [1, 2], [1, 2]), *asked(world), RECENT, *pairs, POPULAR, *popular]


def test_a_shopper_of_unanswered_queries(world: World) -> None:
    state = shopper([], [], ("a", None))
    assert prompt(world.server(), state, []) == [
        USER, NONE, *asked(world), RECENT, *world.past("a"), NONE
    ]  # fmt: skip
    assert prompt(world.server(), state, [30]) == [
        *user(world, [30], [30]), *asked(world), RECENT, *world.past("a"), NONE, POPULAR, *world.sid(30)
    ]  # fmt: skip


def test_stand_ins_of_the_table_that_were_withdrawn_have_successors(world: World) -> None:
    world.popular["red shirt"] = [77, 30, 78, 31, 32]
    found = prompt(world.server(recent=2, stand_ins=2), ShopperState())
    assert found[-11:] == [POPULAR, *world.sid(30), *world.sid(31)]


def test_the_table_is_asked_in_the_normal_form(world: World) -> None:
    world.popular["red shirt"] = [30]
    assert prompt(world.server(), ShopperState(), query="  RED  Shirt")[-6:] == [POPULAR, *world.sid(30)]


def test_numbers_that_the_catalogue_does_not_have_are_passed_over(world: World) -> None:
    assert prompt(world.server(), ShopperState(), [-1, 40, 30])[-6:] == [POPULAR, *world.sid(30)]


def test_ways_to_name_a_user(world: World) -> None:
    state, sids = shopper([1, 2, 3], [], ("a", 4)), world.index.sids
    two = behaviour_codes(sids[[4]], sids[[1, 2, 3]], world.codebooks, two_nearest=True)
    assert prompt(world.server(user_id="nearest_two"), state, [])[:11] == [USER, *world.code_ids(two)]
    hashed = world.server(user_id="hashed")
    assert prompt(hashed, state, [])[:11] == [USER, *world.code_ids(hashed_codes("u1", LEVELS))]
    assert prompt(hashed, ShopperState(), [30])[:2] == [USER, NONE]
    assert prompt(world.server(user_id="none"), state, [])[0] == QUERY


def test_parts_that_are_switched_off(world: World) -> None:
    state = shopper([1, 2, 3], [], ("a", 4))
    known = [*user(world, [4], [1, 2, 3]), *asked(world)]
    assert prompt(world.server(short=False), state, []) == known
    assert prompt(world.server(cold=False), state, [30]) == [*known, RECENT, *world.past("a"), *world.sid(4)]
    assert prompt(world.server(cold=False), ShopperState(), [30]) == [USER, NONE, *asked(world)]
    # What stands in does not take the place of what is not shown.
    full = shopper([1], [], *[("a", item) for item in range(5)])
    assert POPULAR not in prompt(world.server(short=False, stand_ins=5), full, [30])


def test_the_oldest_pairs_go_first(world: World) -> None:
    pieces = [("a", 1), ("b", 2), ("c", 3)]
    state = shopper([9], [], *pieces)
    whole = prompt(world.server(), state, [30])
    assert len(whole) <= 128
    head = len(user(world, [1], [9])) + len(asked(world))
    for limit, wanted in [
        (head + 31 + 6, [RECENT, 1, 2, 3, POPULAR, 30]),
        (head + 31 + 5, [RECENT, 2, 3, POPULAR, 30]),
        (head + 26, [RECENT, 3, POPULAR, 30]),
        (head + 11, [POPULAR, 30]),
        (head + 5, []),
    ]:  # fmt: skip
        found = prompt(world.server(prompt_limit=limit), state, [30])
        assert len(found) <= limit
        marks = [token for token in found[head:] if token in (RECENT, POPULAR)]
        assert marks == [token for token in wanted if token in (RECENT, POPULAR)]
        shown = [
            item
            for item in (1, 2, 3, 30)
            if "".join(map(chr, world.sid(item))) in "".join(map(chr, found[head:]))
        ]
        assert shown == [item for item in wanted if item not in (RECENT, POPULAR)]


def test_the_longest_prompt_fits_the_default(world: World) -> None:
    for count in range(6):
        state = shopper([1], [], *[(f"query {item}", item) for item in range(count)])
        found = prompt(world.server(), state, list(range(30, 40)), query="angle bracket 红色 " * 8_000)
        assert len(found) <= 128
        assert found.count(RECENT) == (count > 0) and found.count(POPULAR) == 1


def test_text_gives_way_last(world: World) -> None:
    found = prompt(world.server(prompt_limit=32), shopper([1], [], ("a", 2)), [30], query="shirt " * 99)
    assert len(found) == 32 and RECENT not in found and POPULAR not in found


@given(
    st.lists(st.tuples(st.sampled_from(["", "q"]), st.integers(-1, 5)), max_size=16),
    st.lists(st.integers(0, 9), max_size=16),
    st.integers(0, 200),
)
def test_what_fits(pieces: list[tuple[str, int]], stand_ins: list[int], room: int) -> None:
    pairs = [Pair(*piece) for piece in pieces]
    kept, popular = fitting(pairs, stand_ins, room, 5)
    assert recent_length(kept, 5) + popular_length(popular, 5) <= room
    assert kept == pairs[len(pairs) - len(kept) :] and popular == stand_ins[: len(popular)]
    if len(kept) < len(pairs):
        longer = pairs[len(pairs) - len(kept) - 1 :]
        assert recent_length(longer, 5) + popular_length(stand_ins, 5) > room


def test_past_queries_are_encoded_once(world: World) -> None:
    server = world.server()
    states = [shopper([], [], ("a", 1), ("b", 2)), shopper([], [], ("b", 3), ("c", None))]
    sids = np.repeat(QUERY_SID, 2, axis=0)
    server.raw(states, ["x", "y"], sids, [np.zeros(0, np.int32)] * 2)
    assert world.asked == [["a", "b", "c"]]
    server.raw(states, ["x", "y"], sids, [np.zeros(0, np.int32)] * 2)
    assert len(world.asked) == 1


def test_two_shoppers_with_the_same_query_differ(world: World) -> None:
    one, other = shopper([1, 2], [], ("a", 1)), shopper([3, 4], [], ("b", 3))
    assert prompt(world.server(), one, []) != prompt(world.server(), other, [])


@pytest.mark.parametrize("limit", [32, 64, 128])
def test_any_state_fits(world: World, limit: int) -> None:
    rng = np.random.default_rng(limit)
    server = world.server(prompt_limit=limit)
    for _ in range(50):
        pieces = [
            (["", "a", "b"][rng.integers(3)], None if rng.random() < 0.3 else int(rng.integers(50)))
            for _ in range(rng.integers(17))
        ]
        state = shopper(rng.integers(0, 50, rng.integers(20)).tolist(), [], *pieces)
        assert len(prompt(server, state, rng.integers(0, 40, 9).tolist())) <= limit
