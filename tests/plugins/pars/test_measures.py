"""Measures against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch_pars.measures import (
    auc,
    auc_change,
    auc_within,
    calibration,
    consistency,
    ndcg,
    ndcg_each,
    pairwise,
    ragged_ndcg,
    table_error,
    told,
)


def test_auc_by_hand() -> None:
    # Pairs: (.9, .5) right, (.9, .3) right, (.3, .5) wrong, (.3, .3) a tie: 2.5 of 4.
    assert auc(np.array([0.9, 0.3, 0.5, 0.3]), np.array([True, True, False, False])) == 2.5 / 4
    assert math.isnan(auc(np.array([0.1]), np.array([True])))


def test_a_change_of_auc_has_an_interval_around_it() -> None:
    random = np.random.default_rng(0)
    labels = random.random(4_000) < 0.2
    good, bad = labels + random.normal(size=4_000), 0.5 * labels + random.normal(size=4_000)
    found = auc_change(good, bad, labels, np.arange(4_000) // 10)
    assert found["change"] == pytest.approx(auc(good, labels) - auc(bad, labels))
    assert 0.02 < found["low"] < found["change"] < found["high"] < 0.3
    same = auc_change(good, good.round(1), labels, np.arange(4_000) // 10)
    assert same["low"] < 0.01 and abs(same["change"]) < 0.01, "ties count half"
    assert math.isnan(auc_change(good, bad, np.zeros(4_000, bool), np.arange(4_000))["low"])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_auc_is_the_share_of_pairs(rows) -> None:
    scores = np.array([score for score, _ in rows], float)
    labels = np.array([label for _, label in rows], bool)
    pairs = [np.sign(a - b) for a in scores[labels] for b in scores[~labels]]
    expected = (np.mean(pairs) + 1) / 2 if pairs else float("nan")
    assert auc(scores, labels) == pytest.approx(expected, nan_ok=True)


def test_auc_within_a_stratum_is_of_its_pairs_alone() -> None:
    # At place 0 (.9, .5) is right and (.3, .5) wrong, at place 1 (.2, .1) is right; (.9, .1) is no pair.
    scores, labels = np.array([0.9, 0.3, 0.5, 0.2, 0.1]), np.array([True, True, False, True, False])
    assert auc_within(scores, labels, np.array([0, 0, 0, 1, 1])) == pytest.approx(2 / 3)
    assert math.isnan(auc_within(scores, labels, np.arange(5)))
    assert auc_within(scores, labels, np.zeros(5, int)) == auc(scores, labels)


def test_knowing_the_place_helps_no_score_within_it() -> None:
    random = np.random.default_rng(0)
    place = random.integers(20, size=20_000)
    labels = random.random(20_000) < 0.4 / (1 + place)
    guessed, blind = -place.astype(float), np.zeros(20_000)
    assert auc(guessed, labels) > 0.7
    assert auc_within(guessed, labels, place) == 0.5
    same = auc_change(guessed, blind, labels, np.arange(20_000) // 20, place)
    assert same == {"change": 0.0, "low": 0.0, "high": 0.0}


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2)), max_size=30))
def test_auc_within_is_the_share_of_pairs(rows) -> None:
    scores, labels, place = (
        np.array([row[at] for row in rows], kind) for at, kind in enumerate((float, bool, int))
    )
    pairs = [
        np.sign(scores[a] - scores[b])
        for a in np.flatnonzero(labels)
        for b in np.flatnonzero(~labels)
        if place[a] == place[b]
    ]
    expected = (np.mean(pairs) + 1) / 2 if pairs else float("nan")
    assert auc_within(scores, labels, place) == pytest.approx(expected, nan_ok=True)


def test_calibration_by_hand() -> None:
    table = calibration(np.array([0.1, 0.9, 0.2, 0.8]), np.array([False, True, True, True]), bins=2)
    assert table == [
        {"rows": 2, "predicted": pytest.approx(0.15), "observed": 0.5},
        {"rows": 2, "predicted": pytest.approx(0.85), "observed": 1.0},
    ]
    assert table_error(table) == pytest.approx((0.35 + 0.15) / 2)
    assert calibration(np.zeros(0), np.zeros(0)) == [] and math.isnan(table_error([]))


def test_consistency_by_hand() -> None:
    rates = np.array([[0.5, 0.2, 0.1], [0.1, 0.1, 0.01]])
    found = consistency(rates)
    assert found["mean_ctr_cvr"] == pytest.approx(0.055) and found["mean_ctcvr"] == pytest.approx(0.055)
    assert found["correlation"] == pytest.approx(1)
    assert math.isnan(consistency(np.zeros((0, 3)))["mean_ctcvr"])


def test_ndcg_by_hand() -> None:
    # Order by score: gains 0, 1, 0.5: 1/log2(3) + 0.5/log2(4) = 0.880930; ideal 1 + 0.5/log2(3) = 1.315465.
    scores, gain = np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 1.0, 0.0]])
    mask = np.ones((1, 3), bool)
    assert ndcg(scores, gain, mask) == pytest.approx(0.880930 / 1.315465, rel=1e-5)
    assert ndcg(scores, gain, mask, k=1) == 0
    assert ragged_ndcg(scores[0], gain[0], np.array([7, 7, 7])) == pytest.approx(
        0.880930 / 1.315465, rel=1e-5
    )
    # Padding neither stands anywhere nor is it good; lists without gain do not count; times weigh.
    scores = np.array([[1.0, 9.0], [1.0, 2.0], [2.0, 1.0]])
    gain = np.array([[1.0, 5.0], [0.0, 0.0], [0.0, 1.0]])
    mask = np.array([[True, False], [True, True], [True, True]])
    last = 1 / math.log2(3)
    assert ndcg_each(scores, gain, mask).tolist() == pytest.approx([1, math.nan, last], nan_ok=True)
    assert ndcg(scores, gain, mask) == pytest.approx((1 + last) / 2)
    assert ndcg(scores, gain, mask, np.array([3, 9, 1])) == pytest.approx((3 + last) / 4)
    assert math.isnan(ndcg(scores, gain * 0, mask))
    assert math.isnan(ragged_ndcg(np.zeros(0), np.zeros(0), np.zeros(0)))


def test_ragged_ndcg_is_that_of_the_lists() -> None:
    random = np.random.default_rng(0)
    scores, gain, group = random.normal(size=30), random.integers(0, 3, 30), random.integers(0, 4, 30)
    lists = [
        ndcg(scores[group == one][None], gain[group == one][None], np.ones((1, (group == one).sum()), bool))
        for one in np.unique(group)
    ]
    assert ragged_ndcg(scores, gain, group) == pytest.approx(np.nanmean(lists))


def test_pairwise_by_hand() -> None:
    scores, grades = np.array([1.0, 2.0, 2.0, 5.0]), np.array([1.0, 0.5, 0.0, 0.0])
    # One group: (1, .5) wrong, (1, 0) wrong twice; (.5, 0) a tie, (.5, 0) wrong: 0.5 of 5.
    assert pairwise(scores, grades, np.zeros(4)) == pytest.approx(0.5 / 5)
    # Pairs of different groups do not count: (1, .5) wrong; (0, 0) is no pair.
    assert pairwise(scores, grades, np.array([0, 0, 1, 1])) == 0
    assert math.isnan(pairwise(scores, grades * 0, np.zeros(4)))


def test_figures_are_what_json_holds() -> None:
    found = told({"a": np.float32(1 / 3), "b": [float("nan"), 2], "c": {"d": "x", "e": np.float64("nan")}})
    assert found == {"a": pytest.approx(1 / 3, rel=1e-5), "b": [None, 2], "c": {"d": "x", "e": None}}
    json.dumps(found)
