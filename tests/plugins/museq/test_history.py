import numpy as np
import pytest
from onesearch.codebooks import Codebooks
from onesearch.contracts.user_encoder import ShopperState
from onesearch_museq.behaviour import resolve
from onesearch_museq.history import Histories, nearest_codes

from .conftest import DIM, World, shopper


def of(
    world: World, state: ShopperState, first_code: int = 0, codes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    histories = Histories(world.codebooks, world.index.sids, codes)
    sid = np.array([[first_code, 0, 0, 0, 0]], np.int32)
    history, mask = histories.of(resolve([state], world.index), sid)
    return history[0], mask[0]


def test_means_by_hand(world: World) -> None:
    clicks, orders = [3, 5, 3, 7], [5, 8]
    history, mask = of(world, shopper(clicks, orders))
    assert history.shape == (9, DIM) and history.dtype == np.float32
    sids = world.index.sids
    for level, book in enumerate(world.codebooks.levels[:3]):
        by_hand = [book[sids[item, level]] for item in clicks]
        assert history[level] == pytest.approx(sum(by_hand) / 4, abs=1e-6)
        assert history[3 + level] == pytest.approx(
            (book[sids[5, level]] + book[sids[8, level]]) / 2, abs=1e-6
        )
    assert mask[:6].all()


def test_what_is_relevant_are_items_of_the_nearest_first_codes(world: World) -> None:
    book, sids = world.codebooks.levels[0], world.index.sids
    clicks, orders = list(range(20)), list(range(10, 30))
    for code in range(len(book)):
        near = np.argsort(np.square(book - book[code]).sum(axis=1))[:3]
        assert code in near
        events = [item for item in (*clicks, *orders) if sids[item, 0] in near]
        history, mask = of(world, shopper(clicks, orders), code)
        assert mask[6:].tolist() == [bool(events)] * 3
        for level, centroids in enumerate(world.codebooks.levels[:3]):
            wanted = centroids[sids[events, level]].mean(axis=0) if events else np.zeros(DIM)
            assert history[6 + level] == pytest.approx(wanted, abs=1e-6)


def test_neighbours_are_the_nearest_and_oneself() -> None:
    book = np.random.default_rng(0).normal(size=(1_100, 5)).astype(np.float32)
    found = nearest_codes(book, 7)
    distances = np.square(book[:, None] - book[None]).sum(axis=2)
    assert all(
        set(row) == set(np.argsort(distances[code])[:7]) and code in row for code, row in enumerate(found)
    )


def test_at_most_a_quarter_of_the_codes_is_near(world: World) -> None:
    assert Histories(world.codebooks, world.index.sids, 16).neighbours.shape == (12, 3)
    assert Histories(world.codebooks, world.index.sids, 2).neighbours.shape == (12, 2)


@pytest.mark.parametrize("state", [ShopperState(), shopper([41, 42], [43])])
def test_an_empty_history(world: World, state: ShopperState) -> None:
    history, mask = of(world, state)
    assert history.shape == (9, DIM) and not history.any() and not mask.any()


def test_sequences_that_are_empty_have_zeros(world: World) -> None:
    history, mask = of(world, shopper([], [3]))
    assert mask.tolist()[:6] == [False] * 3 + [True] * 3
    assert not history[:3].any() and history[3:6].any(axis=1).all()


def test_fewer_levels_than_three(world: World) -> None:
    books = Codebooks.of(world.codebooks.levels[:2])
    histories = Histories(books, world.index.sids[:, :2], 3)
    behaviour = resolve([shopper([1], [2])], world.index)
    history, mask = histories.of(behaviour, np.zeros((1, 2), np.int32))
    assert mask[0, :6].tolist() == [True, True, False] * 2
    assert not history[0, [2, 5, 8]].any()


def test_a_row_does_not_depend_on_the_others(world: World) -> None:
    rng = np.random.default_rng(1)
    states = [
        shopper(rng.integers(0, 45, count).tolist(), rng.integers(0, 45, count // 2).tolist())
        for count in (0, 1, 30, 200, 900)
    ]
    sids = world.index.sids[:5]
    histories = Histories(world.codebooks, world.index.sids, 3)
    history, mask = histories.of(resolve(states, world.index), sids)
    for row, state in enumerate(states):
        one, here = histories.of(resolve([state], world.index), sids[row : row + 1])
        assert np.array_equal(one[0], history[row]) and np.array_equal(here[0], mask[row])


def test_names(world: World) -> None:
    names = Histories(world.codebooks, world.index.sids, 3).names
    assert len(names) == 9 and names[0] == "clicks level 1" and names[4] == "orders level 2"
    assert names[8] == "relevant level 3"
