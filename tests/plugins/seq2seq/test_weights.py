"""The weights of the parts, fitted: known ones are found again, and useless parts are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onesearch_seq2seq.weights import Choices, fit_level, fit_parts, negative_log_likelihood


def simulated(weights, count=3000, seed=0, noise_in_head=False):
    """Choices among 2 to 6 children, drawn from the softmax of the weighted parts."""
    random = np.random.default_rng(seed)
    counts = random.integers(2, 7, count)
    starts = np.cumsum(counts) - counts
    parts = random.normal(size=(counts.sum(), 4)).astype(np.float32)
    logits = parts @ np.asarray(weights, np.float32)
    target = np.array(
        [
            at + np.argmax(logits[at : at + n] + random.gumbel(size=n))
            for at, n in zip(starts, counts, strict=True)
        ]
    )
    if noise_in_head:
        parts[:, 0] = random.normal(size=len(parts))
    return Choices(parts, starts, target, random.integers(0, 500, count), np.ones(count))


def test_likelihood_by_hand():
    parts = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 2, 0, 0]], np.float32)
    choices = Choices(parts, np.array([0, 2]), np.array([0, 3]), np.array([0, 1]), np.array([1.0, 2.0]))
    # Logits (1, 3) and (0, 1): -log σ(-2) and twice -log σ(1).
    expected = math.log(1 + math.exp(2)) + 2 * math.log(1 + math.exp(-1))
    found = negative_log_likelihood(choices, np.array([1, 0.5, 3, 0]))
    assert found == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(2.7534512, abs=1e-6)


def test_known_weights_are_found():
    found = fit_parts(simulated([0.8, 0.3, 2.0, 1.0]), (0, 1, 2, 3))
    np.testing.assert_allclose(found, [0.8, 0.3, 2.0, 1.0], atol=0.15)


def test_a_part_that_misleads_weighs_nothing_and_the_others_are_fitted_without_it():
    choices = simulated([-0.8, 0.3, 2.0, 0.0])
    found = fit_parts(choices, (0, 1, 2, 3))
    assert found[0] == 0
    np.testing.assert_array_equal(found, fit_parts(choices, (1, 2, 3)))


def test_the_fit_is_the_minimum():
    choices = simulated([0.8, 0.3, 2.0, 1.0], count=500)
    found = fit_parts(choices, (0, 1, 2, 3))
    best = negative_log_likelihood(choices, found)
    for part in range(4):
        for step in (-0.05, 0.05):
            moved = found.copy()
            moved[part] += step
            assert negative_log_likelihood(choices, moved) > best


def test_network_that_knows_nothing_is_switched_off():
    fitted = fit_level(simulated([1.0, 0.0, 2.0, 0.5], count=300, noise_in_head=True, seed=3))
    assert fitted.guided_loss <= fitted.alone_loss
    assert (fitted.alone[:2] == 0).all()
    if fitted.guided_loss == fitted.alone_loss:
        np.testing.assert_array_equal(fitted.guided, fitted.alone)


def test_network_that_helps_is_kept():
    fitted = fit_level(simulated([1.0, 0.5, 2.0, 0.5]))
    assert fitted.guided_loss < fitted.alone_loss
    assert fitted.guided[0] > 0.5


def test_no_choices_at_all():
    none = np.zeros(0, np.int64)
    fitted = fit_level(Choices(np.zeros((0, 4), np.float32), none, none, none, np.zeros(0)))
    assert not fitted.guided.any() and fitted.guided_loss == 0


def test_equally_many_children_are_the_same_as_any_number_of_them():
    """Equal counts go another way, as a matrix: one choice more, which is none, must not matter."""
    random = np.random.default_rng(4)
    parts, target = random.normal(size=(400, 4)).astype(np.float32), np.arange(80) * 5
    equal = Choices(
        parts, target, target + random.integers(0, 5, 80), random.integers(0, 30, 80), np.ones(80)
    )
    more = Choices(
        np.concatenate([parts, np.ones((1, 4), np.float32)]),
        np.append(equal.starts, 400),
        np.append(equal.target, 400),
        np.append(equal.group, 0),
        np.ones(81),
    )
    np.testing.assert_allclose(fit_parts(equal, (0, 1, 2, 3)), fit_parts(more, (0, 1, 2, 3)), atol=1e-4)
    weights = np.array([0.5, 1.0, -2.0, 0.1])
    likelihood = negative_log_likelihood(more, weights)
    assert negative_log_likelihood(equal, weights) == pytest.approx(likelihood, rel=1e-6)


def test_where_the_search_starts_does_not_matter():
    choices = simulated([0.8, 0.3, 2.0, 1.0])
    near = fit_parts(choices, (0, 1, 2, 3), np.array([3.0, 0.0, 1.0, 5.0]))
    np.testing.assert_allclose(near, fit_parts(choices, (0, 1, 2, 3)), atol=1e-3)
