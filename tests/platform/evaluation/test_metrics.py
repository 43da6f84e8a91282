import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.evaluation.metrics import (
    CUTOFFS,
    Relevant,
    bootstrap,
    estimates,
    metric_names,
    paired,
    per_query,
)


def relevant(items: list[int], grades: list[float] | None = None) -> Relevant:
    return Relevant(
        np.array(items, np.int32), np.array([1.0] * len(items) if grades is None else grades, np.float32)
    )


def test_golden_numbers() -> None:
    ranked = np.array([[7, 3, 9, 1, -1]], np.int32)
    measured = per_query(ranked, [relevant([3, 1, 8], [1.0, 0.5, 0.75])], cutoffs=(2, 4))
    assert measured["R@2"][0] == pytest.approx(1 / 3)
    assert measured["R@4"][0] == pytest.approx(2 / 3)
    assert measured["HR@2"][0] == measured["HR@4"][0] == 1
    assert measured["MRR@4"][0] == pytest.approx(1 / 2)
    # DCG@4 = 1/log2(3) + 0.5/log2(5); ideal = 1 + 0.75/log2(3) + 0.5/log2(4)
    assert measured["NDCG@4"][0] == pytest.approx((0.6309298 + 0.2153383) / (1 + 0.4731973 + 0.25), rel=1e-6)
    assert measured["NDCG@2"][0] == pytest.approx(0.6309298 / (1 + 0.4731973), rel=1e-6)


def test_what_is_found_too_late_or_never() -> None:
    ranked = np.array([[5, 6, 2], [-1, -1, -1]], np.int32)
    measured = per_query(ranked, [relevant([2]), relevant([2])], cutoffs=(2, 3))
    assert [measured[f"{name}@2"][0] for name in ("R", "HR", "MRR", "NDCG")] == [0, 0, 0, 0]
    assert measured["MRR@3"].tolist() == pytest.approx([1 / 3, 0])
    assert measured["NDCG@3"].tolist() == pytest.approx([0.5, 0])


def test_items_that_the_catalogue_lacks_are_misses() -> None:
    ranked = np.array([[4, -1, -1]], np.int32)
    measured = per_query(ranked, [relevant([4, -2, -3])], cutoffs=(3,))
    assert measured["R@3"][0] == pytest.approx(1 / 3)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1))
def test_a_perfect_ranking_scores_one_and_no_ranking_more(order: list[int], good: set[int]) -> None:
    best = sorted(order, key=lambda item: item not in good)
    truth = [relevant(sorted(good))] * 2
    measured = per_query(np.array([order, best], np.int32), truth, cutoffs=(12,))
    for name in metric_names((12,)):
        assert 0 <= measured[name][0] <= measured[name][1] == pytest.approx(1)


def test_default_cutoffs_and_names() -> None:
    assert CUTOFFS == (10, 100, 350)
    assert metric_names((10,)) == ["R@10", "HR@10", "MRR@10", "NDCG@10"]


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(0.4, 0.3, size=(900, 1))
    (estimate,) = bootstrap(values)
    assert estimate.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(900)
    assert estimate.low == pytest.approx(estimate.value - half, abs=half / 5)
    assert estimate.high == pytest.approx(estimate.value + half, abs=half / 5)
    assert bootstrap(values) == [estimate]


def test_pairing_sees_a_difference_that_single_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    theirs = {"R@10": rng.random(200)}
    ours = {"R@10": theirs["R@10"] + 0.02}
    assert estimates(ours)["R@10"].low < estimates(theirs)["R@10"].high
    difference = paired(ours, theirs)["R@10"]
    assert difference.value == pytest.approx(0.02) and difference.low > 0
