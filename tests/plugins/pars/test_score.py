"""S_rel: fitted to grades where there are any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch_pars.features import RELEVANT
from onesearch_pars.score import ENOUGH, Judged, Relevance, fit_relevance

WIDTH = len(RELEVANT)


def judged(count: int, told: Any = True, seed: int = 0) -> Judged:
    """Pairs whose grade is a matter of cosine and title share alone."""
    random = np.random.default_rng(seed)
    matching = random.random((count, WIDTH)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(8 * matching[:, 0] + 4 * matching[:, 2] - 6)))
    grade = (np.round(truth * 3) / 3).astype(np.float32)
    ones = np.ones(count, np.float32)
    return Judged(matching, grade, np.arange(count) // 8, ones, np.broadcast_to(told, count).copy())


def test_a_score_by_hand() -> None:
    score = Relevance(np.array([2.0, *[0.0] * (WIDTH - 1)], np.float32), -1.0)
    matching = np.zeros((2, 1, WIDTH), np.float32)
    matching[0, 0, 0], matching[1, 0, 0] = 0.5, 1.0
    assert score(matching).tolist() == [[0.5], [pytest.approx(1 / (1 + np.exp(-1)))]]


@given(st.lists(st.floats(-1e6, 1e6), min_size=WIDTH, max_size=WIDTH))
def test_it_stays_between_0_and_1(values) -> None:
    score = Relevance(np.ones(WIDTH, np.float32), 0.0)(np.array([values], np.float32))
    assert 0 < score[0] < 1


def test_it_learns_what_judges_go_by() -> None:
    pairs = judged(1_600)
    score, figures = fit_relevance(pairs, pairs.matching, 1e-4)
    assert figures["source"] == "judgements" and figures["judged"] == 1_600
    assert figures["pairwise"] > 0.97 and figures["pairwise"] > figures["pairwise_match"]
    assert figures["ndcg_10"] > figures["ndcg_10_match"]
    assert (score.weights >= 0).all()
    assert score.weights[0] > 2 * score.weights[[1, 3, 4, 5, 6]].max(), "cosine matters, the others do not"
    assert np.abs(score(pairs.matching) - pairs.grade).mean() < 0.12, "it says the grade"


def test_few_or_equal_judgements_leave_the_match() -> None:
    pairs = judged(ENOUGH - 1)
    score, figures = fit_relevance(pairs, pairs.matching, 1e-3)
    assert figures["source"] == "match" and 0.5 < figures["pairwise_match"] < 1
    flat = judged(2 * ENOUGH)
    flat.grade[:] = 1
    assert fit_relevance(flat, flat.matching, 1e-3)[1]["source"] == "match"
    middling = score(pairs.matching)
    assert 0.4 < middling.mean() < 0.6 and middling.std() > 0.15, "it spreads around a half"
    none, figures = fit_relevance(Judged.none(), np.zeros((0, WIDTH), np.float32), 1e-3)
    assert figures == {"judged": 0, "source": "match"} and np.isfinite(none(pairs.matching)).all()


def test_what_was_not_judged_counts_for_no_figure() -> None:
    pairs = judged(1_600, np.arange(1_600) % 2 == 0)
    pairs.grade[1::2] = 0
    pairs.weight[1::2] = 0.1
    _, figures = fit_relevance(pairs, pairs.matching, 1e-4)
    assert figures["judged"] == 800 and figures["pairwise"] > 0.95
