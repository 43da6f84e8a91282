from __future__ import annotations

import numpy as np
import pytest
from onesearch_khqe.measures import (
    codebook_use,
    collision_sizes,
    distinct_share,
    independent_rate,
    positive_ranks,
    recall_of,
    spread,
)

SIDS = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 1, 0, 0, 0], [1, 0, 2, 0, 0], [0, 0, 0, 1, 2]])


def test_independent_rate_is_the_share_of_items_alone_with_their_sid() -> None:
    assert independent_rate(SIDS) == pytest.approx(3 / 5)
    assert independent_rate(SIDS, 3) == pytest.approx(2 / 5)
    assert distinct_share(SIDS) == pytest.approx(4 / 5)
    assert collision_sizes(SIDS) == {"1": 3, "2": 1}


def test_codebook_use() -> None:
    assert codebook_use(SIDS, (4, 2, 8, 2, 3)) == {"L1": 2 / 4, "L1xL2": 3 / 8, "total": 3 / 64}
    assert codebook_use(SIDS[:, :2], (4, 2)) == {"L1": 2 / 4, "L1xL2": 3 / 8}


def test_recall() -> None:
    queries, items = np.eye(2, dtype=np.float32), np.array([[0.9, 0.1], [0.9, 0.3], [0.2, 0.5]], np.float32)
    ranks = positive_ranks(queries, items, [np.array([1]), np.array([0, 2])])
    assert [row.tolist() for row in ranks] == [[1], [2, 0]], "a tie goes to the lower number"
    figures = recall_of(queries, items, [np.array([1]), np.array([0, 2])], (1, 2))
    assert figures == {"R@1": pytest.approx(0.25), "R@2": pytest.approx(0.75), "MRR@10": pytest.approx(0.75)}


def test_spread_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    low, high = spread(values)
    assert low < values.mean() < high and high - low == pytest.approx(4 / 20, rel=0.3)
