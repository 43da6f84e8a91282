import numpy as np
from onesearch.contracts.user_encoder import ShopperState
from onesearch.shoppers.state import NO_ITEM, Recent, item_key
from onesearch_museq.behaviour import Behaviour, Pair, resolve

from .conftest import World, recent, ring, shopper


def pairs(world: World, *pieces: tuple[str, int | None]) -> list[tuple[str, int]]:
    (found,) = resolve([ShopperState("u", recent=recent(*pieces))], world.index)
    return [(pair.query, pair.item) for pair in found.pairs]


def test_withdrawn_items_are_left_out(world: World) -> None:
    state = shopper([3, 40, 7], [99], ("red", 99), ("blue", 7))
    (found,) = resolve([state], world.index)
    assert found.clicks.tolist() == [3, 7] and found.orders.tolist() == []
    assert found.pairs == (Pair("blue", 7),)


def test_an_unanswered_query_stays_until_it_is_answered(world: World) -> None:
    assert pairs(world, ("red", None)) == [("red", -1)]
    assert pairs(world, ("red", None), ("red", 3)) == [("red", 3)]
    assert pairs(world, ("red", 3), ("red", None)) == [("red", 3), ("red", -1)]
    assert pairs(world, ("red", None), ("blue", 3)) == [("red", -1), ("blue", 3)]


def test_the_same_query_in_another_wording(world: World) -> None:
    assert pairs(world, ("Red  Shirt", None), ("red shirt", 3)) == [("red shirt", 3)]


def test_an_answer_in_the_same_second_counts(world: World) -> None:
    both = (Recent("red", item_key("i3"), 5), Recent("red", NO_ITEM, 5))
    (found,) = resolve([ShopperState("u", recent=both)], world.index)
    assert found.pairs == (Pair("red", 3),)


def test_a_withdrawn_answer_answers_nothing(world: World) -> None:
    assert pairs(world, ("red", None), ("red", 99)) == [("red", -1)]


def test_a_blank_query_without_a_click_says_nothing(world: World) -> None:
    assert pairs(world, ("", None), (" \t", None), ("", 3)) == [("", 3)]


def test_long_queries_are_cut_as_in_the_packed_state(world: World) -> None:
    ((query, _),) = pairs(world, ("红" * 5_000, None))
    assert query == "红" * 85


def test_rings_and_pairs_beyond_their_size_are_cut(world: World) -> None:
    state = ShopperState("u", ring([n % 40 for n in range(1_200)]), recent=recent(*[("q", 1)] * 30))
    (found,) = resolve([state], world.index)
    assert len(found.clicks) == 1_000 and found.clicks[-1] == 1_199 % 40
    assert len(found.pairs) == 16


def test_what_stands_for_a_missing_sequence() -> None:
    none, clicks, orders = np.zeros(0, np.int32), np.arange(6, dtype=np.int32), np.array([8, 9], np.int32)
    pair = (Pair("q", 5), Pair("q", -1))

    def of(*parts: object) -> list[list[int]]:
        return [items.tolist() for items in Behaviour("u", *parts).sequences(3)]  # type: ignore[arg-type]

    assert of(clicks, orders, pair) == [[5], [0, 1, 2, 3, 4, 5]]
    assert of(clicks, orders, ()) == [[3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert of(none, orders, ()) == [[8, 9], [8, 9]]
    assert of(none, none, pair) == [[5], [5]]
    assert of(none, none, ()) == [[], []]


def test_no_states(world: World) -> None:
    assert resolve([], world.index) == []
