"""Collision-aware assignment: legal, unique, and the least distortion there is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch_khqe import collisions
from onesearch_khqe.codebooks import Codebooks
from onesearch_khqe.collisions import assign_last_codes, solve_bucket


def tables(rng: np.random.Generator, items: int, sizes: tuple[int, ...], ties: bool) -> list[np.ndarray]:
    draw = (lambda shape: rng.integers(0, 3, shape)) if ties else rng.random
    return [np.asarray(draw((items, size)), np.float32) for size in sizes]


def combined(parts: list[np.ndarray]) -> np.ndarray:
    return (
        parts[0] if len(parts) == 1 else (parts[0][:, :, None] + parts[1][:, None]).reshape(len(parts[0]), -1)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 4), st.sampled_from([(3, 2), (2, 3), (6,), (5,)]), st.booleans())
def test_equals_brute_force(seed: int, items: int, sizes: tuple[int, ...], ties: bool) -> None:
    rng = np.random.default_rng(seed)
    parts = tables(rng, items, sizes, ties)
    cost = combined(parts)
    taken = rng.permutation(cost.shape[1])[: rng.integers(0, cost.shape[1] - items + 1)]
    free = np.setdiff1d(np.arange(cost.shape[1]), taken)
    chosen, total = solve_bucket(parts, taken)
    assert len(set(chosen.tolist())) == items and not set(chosen.tolist()) & set(taken.tolist())
    best = min(sum(cost[at, code] for at, code in enumerate(some)) for some in permutations(free, items))
    assert total == pytest.approx(best, abs=1e-5)
    assert cost[np.arange(items), chosen].sum() == pytest.approx(total, abs=1e-5)


def test_sparse_and_dense_solvers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    parts = tables(rng, 30, (16, 16), False)
    taken = np.arange(20)
    _, dense = solve_bucket(parts, taken)
    monkeypatch.setattr(collisions, "DENSE", 0)
    chosen, sparse = solve_bucket(parts, taken)
    assert sparse == pytest.approx(dense, abs=1e-4) and len(set(chosen.tolist())) == 30


def test_more_items_than_combinations_are_spread_evenly() -> None:
    chosen, _ = solve_bucket(tables(np.random.default_rng(1), 10, (2, 2), False), np.array([], np.int64))
    assert sorted(np.bincount(chosen, minlength=4).tolist()) in ([2, 2, 3, 3], [1, 3, 3, 3])


def books(rng: np.random.Generator, opq: bool) -> Codebooks:
    layers = tuple(rng.normal(size=(size, 8)).astype(np.float32) for size in (4, 16))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    parts = tuple(rng.normal(size=(16, 4)).astype(np.float32) for _ in range(2)) if opq else ()
    return Codebooks(layers, turn, parts)


@pytest.mark.parametrize("opq", [True, False])
def test_a_catalogue(opq: bool) -> None:
    rng = np.random.default_rng(2)
    codebooks = books(rng, opq)
    vectors = rng.normal(size=(120 if opq else 20, 8)).astype(np.float32)
    vectors[1::2] = vectors[: len(vectors) - 1 : 2][: len(vectors[1::2])]  # equal pairs
    plain, residuals = codebooks.encode_with_residuals(vectors)
    found = assign_last_codes(codebooks, plain, residuals)
    fixed = 2 if opq else 1
    assert len(np.unique(plain, axis=0)) < len(vectors) == len(np.unique(found.sids, axis=0))
    assert np.array_equal(found.sids[:, :fixed], plain[:, :fixed])
    assert (found.sids >= 0).all() and (found.sids < np.array(codebooks.levels)).all()
    rise = codebooks.distortion(vectors, found.sids) - codebooks.distortion(vectors, plain)
    assert found.cost == pytest.approx(rise, abs=1e-4) and found.cost > 0
    assert found.moved == (found.sids != plain).any(1).sum()


def test_taken_sids_stay_with_their_owners() -> None:
    rng = np.random.default_rng(3)
    codebooks = books(rng, True)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    plain, residuals = codebooks.encode_with_residuals(vectors)
    old = assign_last_codes(codebooks, plain, residuals).sids
    new = assign_last_codes(codebooks, plain, residuals, old).sids
    assert len(np.unique(np.concatenate([old, new]), axis=0)) == 80


def test_nothing_collides() -> None:
    codebooks = books(np.random.default_rng(5), True)
    sids = np.array([[0, 0, 1, 2], [1, 0, 1, 2]], np.int32)
    found = assign_last_codes(codebooks, sids, np.zeros((2, 8), np.float32))
    assert np.array_equal(found.sids, sids) and found.moved == 0 and found.cost == 0.0
