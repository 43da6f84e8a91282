import numpy as np
import pytest
from onesearch_pars.fitting import fit_weights


def test_recovers_the_odds_of_a_known_choice() -> None:
    # Of two candidates the one with the feature is good three times as often: exp(w) = 3.
    features = np.tile(np.array([[[1.0], [0.0]]], np.float32), (400, 1, 1))
    gain = np.zeros((400, 2), np.float32)
    gain[:300, 0] = 1
    gain[300:, 1] = 1
    fitted = fit_weights(features, np.ones((400, 2), bool), gain, np.zeros(1), l2=1e-9)
    assert fitted.weights[0] == pytest.approx(np.log(3), rel=1e-3)
    assert fitted.loss == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rel=1e-4)
    assert fitted.loss_default == pytest.approx(np.log(2), rel=1e-6)


def test_weights_do_not_go_below_zero() -> None:
    features = np.tile(np.array([[[1.0], [0.0]]], np.float32), (10, 1, 1))
    gain = np.tile(np.array([[0.0, 1.0]], np.float32), (10, 1))
    fitted = fit_weights(features, np.ones((10, 2), bool), gain, np.ones(1), l2=1e-6)
    assert fitted.weights[0] == 0


def test_what_never_varies_keeps_its_default_and_padding_counts_for_nothing() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 5, 2)).astype(np.float32)
    features[..., 1] = 7.0
    mask = np.ones((20, 5), bool)
    mask[:, 4] = False
    gain = (rng.random((20, 5)) < 0.4).astype(np.float32)
    first = fit_weights(features, mask, gain, np.array([0.0, 2.5]), l2=1e-3)
    features[:, 4] = 1e6
    gain[:, 4] = 1
    second = fit_weights(features, mask, gain, np.array([0.0, 2.5]), l2=1e-3)
    assert first.weights[1] == 2.5
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-5)


def test_without_any_gain_the_defaults_stay() -> None:
    fitted = fit_weights(
        np.ones((3, 2, 1), np.float32), np.ones((3, 2), bool), np.zeros((3, 2)), np.array([0.7]), 1e-3
    )
    assert fitted.weights.tolist() == pytest.approx([0.7]) and np.isnan(fitted.loss)


def test_a_list_that_counts_twice_is_two_lists() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(6, 4, 2)).astype(np.float32)
    gain = (rng.random((6, 4)) < 0.5).astype(np.float32)
    gain[:, 0] = 1
    mask = np.ones((6, 4), bool)
    times = np.array([1, 2, 1, 3, 1, 1])
    counted = fit_weights(features, mask, gain, np.zeros(2), 1e-3, times)
    again = np.repeat(np.arange(6), times)
    repeated = fit_weights(features[again], mask[again], gain[again], np.zeros(2), 1e-3)
    # The spread that standardises, and so the pull, differs a little; the optimum hardly.
    np.testing.assert_allclose(counted.weights, repeated.weights, atol=0.02)
    assert counted.loss == pytest.approx(repeated.loss, rel=1e-3)
