import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.codebooks import Codebooks
from onesearch_museq.user_id import behaviour_codes, hashed_codes, mean_vector, recency_weights

BOOKS = Codebooks.of(
    [np.random.default_rng(level).normal(size=(size, 7)) for level, size in enumerate((9, 6, 5, 4, 4))]
)
PLAIN = Codebooks.of([np.eye(2), 0.5 * np.eye(2)])
SIDS = st.lists(st.tuples(*(st.integers(0, len(book) - 1) for book in BOOKS.levels)), max_size=60)


def sequence(codes: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(codes, np.int32).reshape(-1, 5)


def test_weights_by_hand() -> None:
    grown = [math.exp(1), math.exp(math.sqrt(2)), math.exp(math.sqrt(3))]  # 2.718, 4.113, 5.652
    assert recency_weights(3) == pytest.approx([value / sum(grown) for value in grown])
    assert recency_weights(3) == pytest.approx([0.21775, 0.32950, 0.45276], abs=2e-5)
    assert recency_weights(1).tolist() == [1.0]
    assert recency_weights(0).shape == (0,)


@given(st.integers(1, 1000))
def test_weights_rise_and_sum_to_one(count: int) -> None:
    weights = recency_weights(count)
    assert np.isfinite(weights).all() and (weights > 0).all()
    assert (np.diff(weights) > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-5)


def test_the_mean_by_hand() -> None:
    # v(0, 1) = (1, 0.5) and v(1, 1) = (0, 1.5); λ = e/(e + e^√2), the rest.
    first = math.e / (math.e + math.exp(math.sqrt(2)))
    found = mean_vector(np.array([[0, 1], [1, 1]], np.int32), PLAIN)
    assert found == pytest.approx([first * 1, first * 0.5 + (1 - first) * 1.5])
    assert found == pytest.approx([0.39792, 1.10208], abs=2e-5)


def test_only_three_levels_count() -> None:
    one, other = sequence([(1, 2, 3, 0, 0)]), sequence([(1, 2, 3, 3, 1)])
    assert np.array_equal(mean_vector(one, BOOKS), mean_vector(other, BOOKS))
    assert mean_vector(one, BOOKS) == pytest.approx(BOOKS.vectors(one, depth=3)[0])


@given(SIDS)
def test_the_mean_is_the_weighted_sum(codes: list[tuple[int, ...]]) -> None:
    sids = sequence(codes)
    wanted = recency_weights(len(sids)) @ BOOKS.vectors(sids, depth=3) if len(sids) else np.zeros(7)
    assert mean_vector(sids, BOOKS) == pytest.approx(wanted, abs=1e-5)


@given(SIDS.filter(bool), st.tuples(*(st.integers(0, len(book) - 1) for book in BOOKS.levels)))
def test_one_more_click_moves_the_mean_within_the_bound(
    codes: list[tuple[int, ...]], new: tuple[int, ...]
) -> None:
    before, after = (mean_vector(sequence(some), BOOKS) for some in (codes, [*codes, new]))
    share = recency_weights(len(codes) + 1)[-1]
    added = BOOKS.vectors(sequence([new]), depth=3)[0]
    assert after - before == pytest.approx(share * (added - before), abs=1e-4)
    bound = share * (np.linalg.norm(added) + np.linalg.norm(before))
    assert np.linalg.norm(after - before) <= bound + 1e-4


def test_the_bound_shrinks_with_the_history() -> None:
    assert recency_weights(1000)[-1] == pytest.approx(1 / (2 * (math.sqrt(1000) - 1)), rel=0.02)


@given(SIDS.filter(lambda codes: len(set(codes)) > 1))
def test_what_comes_last_weighs_most(codes: list[tuple[int, ...]]) -> None:
    """Of all orders of the same clicks, none reaches further along a way than the one that rises along it."""
    way = np.random.default_rng(len(codes)).normal(size=7)
    sids = sequence(codes)
    rising = np.argsort(BOOKS.vectors(sids, depth=3) @ way, kind="stable")
    last, asis, first = (mean_vector(sids[order], BOOKS) @ way for order in (rising, ..., rising[::-1]))
    assert last >= asis - 1e-4 and asis >= first - 1e-4


def test_a_thousand_clicks_and_none() -> None:
    many = np.random.default_rng(0).integers(0, 4, (1000, 5)).astype(np.int32)
    nothing = sequence([])
    assert np.isfinite(mean_vector(many, BOOKS)).all()
    assert not mean_vector(nothing, BOOKS).any()
    codes = behaviour_codes(nothing, nothing, BOOKS)
    assert codes.shape == (2, 5) and np.array_equal(codes[0], BOOKS.quantise(np.zeros((1, 7)))[0])


def test_codes_are_of_the_normalised_means() -> None:
    recent, long = sequence([(1, 2, 3, 0, 0), (4, 4, 4, 0, 0)]), sequence([(0, 0, 0, 0, 0)] * 50)
    codes = behaviour_codes(recent, long, BOOKS)
    for row, sids in enumerate((recent, long)):
        vector = mean_vector(sids, BOOKS)
        assert np.array_equal(codes[row], BOOKS.quantise(vector[None] / np.linalg.norm(vector))[0])
    assert codes.dtype == np.int32


def test_two_nearest_centroids_a_level() -> None:
    # v̄ = (1, 0) + (0.5, 0), normalised (1, 0): nearest is code 0; what is left, 0, is as near to both codes.
    sids = np.array([[0, 0]], np.int32)
    assert behaviour_codes(sids[:0], sids, PLAIN, two_nearest=True).tolist() == [[0, 0], [1, 1]]


def test_hashed_codes() -> None:
    sizes = (9, 6, 5, 4, 4)
    codes = hashed_codes("u1", sizes)
    assert codes.shape == (2, 5) and codes.dtype == np.int32
    assert np.array_equal(codes, hashed_codes("u1", sizes))
    many = np.stack([hashed_codes(f"u{n}", sizes) for n in range(500)])
    assert (many >= 0).all() and (many < sizes).all()
    assert all(len(np.unique(many[:, :, level])) == size for level, size in enumerate(sizes))
