"""λ: what they multiply, and that they find what matters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onesearch_pars.tuning import (
    ALONE,
    DEFAULT,
    PARTS,
    Floor,
    Lists,
    cross_validated,
    tune,
    untuned,
    weights_of,
)

FREE = np.zeros(len(PARTS), bool)


def all_shown(parts: np.ndarray, gain: np.ndarray, mask: np.ndarray, group: np.ndarray) -> Lists:
    return Lists(parts, gain, mask, group, mask, gain)


def lists(matters: dict[str, float], count: int = 160, width: int = 30, seed: int = 0) -> Lists:
    """Lists whose gain is a matter of some parts, each of another scale."""
    random = np.random.default_rng(seed)
    scale = np.array([0.05, 0.2, 0.01, 0.3, 4.0])
    plain = random.normal(size=(count, width, len(PARTS)))
    truth = sum(weight * plain[..., PARTS.index(part)] for part, weight in matters.items())
    gain = (truth > np.quantile(truth, 0.9, axis=1, keepdims=True)).astype(np.float32)
    mask = np.ones((count, width), bool)
    return all_shown((plain * scale).astype(np.float32), gain, mask, np.arange(count))


def test_spread_and_weights_by_hand() -> None:
    parts = np.zeros((2, 3, 5), np.float32)
    parts[0, :, 0] = [1, 3, 99]  # the last is padding
    parts[1, :, 0] = [2, 2, 2]
    mask = np.array([[True, True, False], [True, True, True]])
    made = all_shown(parts, np.zeros((2, 3)), mask, np.arange(2))
    # Deviations -1, 1 and 0, 0, 0 of five candidates: √(2/5).
    spread = made.spreads()
    assert spread.tolist() == pytest.approx([math.sqrt(0.4), 0, 0, 0, 0])
    assert weights_of(np.ones(5), spread).tolist() == pytest.approx([1 / math.sqrt(0.4), 0, 0, 0, 0])


@pytest.mark.parametrize("part", PARTS)
def test_it_finds_the_part_that_matters(part: str) -> None:
    made = lists({part: 1.0})
    mu = tune(made, FREE)
    at = PARTS.index(part)
    assert mu[at] > 3 * np.delete(mu, at).max()
    assert cross_validated(made, FREE) > 0.97


def test_parts_of_different_scale_count_alike() -> None:
    made = lists({"ctcvr": 1.0, "listwise": 1.0})
    mu = tune(made, FREE)
    assert 0.4 < mu[2] / mu[4] < 2.5 and cross_validated(made, FREE) > 0.85
    weights = weights_of(mu, made.spreads())
    assert weights[2] > 100 * weights[4], "a part of a scale 400 times smaller weighs that much more"


def test_frozen_parts_do_not_count() -> None:
    mu = tune(lists({"ctr": 1.0, "listwise": 0.5}), np.array([True, True, True, False, False]))
    assert mu[:3].tolist() == [0, 0, 0] and mu[4] > 0


def test_parts_that_say_nothing_leave_the_listwise_score_alone() -> None:
    made = lists({"listwise": 1.0})
    made.parts[..., :4] = 0
    assert tune(made, FREE).tolist() == ALONE.tolist()


def test_without_any_gain_the_defaults_stand() -> None:
    made = lists({"ctr": 1.0})
    bare = all_shown(made.parts, np.zeros_like(made.gain), made.mask, made.group)
    assert tune(bare, FREE).tolist() == untuned(bare, FREE).tolist()
    assert np.delete(untuned(bare, FREE) - DEFAULT, PARTS.index("relevance")).tolist() == [0] * 4
    assert math.isnan(cross_validated(bare, FREE))
    nothing = bare.only(np.zeros(len(bare.gain), bool))
    assert tune(nothing, ~FREE).tolist() == [0] * 5 and math.isnan(cross_validated(nothing, FREE))


def test_padding_counts_for_nothing() -> None:
    made = lists({"ctr": 1.0})
    padded = all_shown(made.parts.copy(), made.gain.copy(), made.mask.copy(), made.group)
    padded.mask[:, -5:] = False
    cut = all_shown(made.parts[:, :-5], made.gain[:, :-5], made.mask[:, :-5], made.group)
    padded.parts[:, -5:], padded.gain[:, -5:] = 99, 1
    assert tune(padded, FREE).tolist() == tune(cut, FREE).tolist()


def test_relevance_of_the_first_ten_by_hand() -> None:
    parts = np.zeros((3, 12, 5), np.float32)
    parts[0, :, 3], parts[0, :, 4] = np.arange(12) / 10, -np.arange(12)
    parts[1, :2, 3], parts[1, :2, 4] = [0.5, 1.0], [1, 2]
    mask = np.array([[True] * 12, [True] * 2 + [False] * 10, [False] * 12])
    found = all_shown(parts, np.zeros((3, 12)), mask, np.arange(3)).relevance(ALONE)
    # The first ten of the first list are 0 … 0.9; the second has two; the third has none.
    assert found[:2].tolist() == pytest.approx([0.45, 0.75]) and math.isnan(found[2])


def test_what_was_chosen_is_found_among_the_shown_alone_by_hand() -> None:
    parts = np.zeros((1, 4, 5), np.float32)
    parts[0, :, 4] = [4, 3, 2, 1]
    shown = np.array([[False, True, True, False]])
    worth = np.array([[9.0, 0.0, 2.0, 0.0]], np.float32)
    made = Lists(parts, worth, np.ones((1, 4), bool), np.arange(1), shown, worth)
    # The third candidate is the second of the two that were shown.
    found, chosen = made.found(ALONE)
    assert found.tolist() == pytest.approx([2 / math.log2(3)]) and chosen.tolist() == [2]


def test_an_engine_that_showed_its_own_first_does_not_win() -> None:
    """Shown, and so chosen, is what the list-wise score likes; among that, shoppers want what CTR says."""
    random = np.random.default_rng(0)
    parts = (random.normal(size=(300, 40, 5)) * [0.05, 0.2, 0.01, 0.3, 4.0]).astype(np.float32)
    shown = np.argsort(np.argsort(-parts[..., 4], axis=1), axis=1) < 8
    best = np.where(shown, parts[..., 0], -np.inf).argmax(axis=1)
    gain = np.zeros((300, 40), np.float32)
    gain[np.arange(300), best] = 1
    made = Lists(parts, gain, np.ones((300, 40), bool), np.arange(300), shown, gain)
    among_all = all_shown(parts, gain, made.mask, made.group)
    assert tune(made, FREE)[0] > tune(among_all, FREE)[0]


def test_relevance_has_a_floor() -> None:
    """What is clicked most is irrelevant: the towers are followed only as far as relevance is kept."""
    made = lists({"ctr": 1.0})
    made.parts[..., 3] -= 4 * made.parts[..., 0]
    spread = made.spreads()
    floor = Floor(made, spread, ~FREE)
    assert floor.holds(ALONE) and not floor.holds(np.array([1.0, 0, 0, 0, 1.0]))
    for mu in (tune(made, FREE), untuned(made, FREE)):
        kept, alone = (made.relevance(weights_of(one, spread)).mean() for one in (mu, ALONE))
        assert kept >= alone - 0.005 * abs(alone) - 1e-6 and mu[3] > DEFAULT[3]
    unraised = untuned(made, np.array([False, False, False, True, False]))
    assert unraised.tolist() == ALONE.tolist(), "where relevance cannot be raised, the towers do not count"
