"""Ranked lists of both phases, by hand and for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.errors import UsageError
from onesearch.training.preferences import interactions_alone, reward_guided


def guided(leaves, rewards, clicked=(), **options):
    leaves, rewards = np.array([leaves], np.int32), np.array([rewards], np.float32)
    hit = np.zeros(leaves.shape, bool)
    hit[0, list(clicked)] = True
    made = reward_guided(leaves, rewards, hit, **options)
    return [
        (int(made.winner[row]), [leaf for leaf in made.losers[row].tolist() if leaf >= 0])
        for row in range(len(made))
    ]


def test_the_promoted_wins_over_the_demoted() -> None:
    # The reward's order: 13 (3.0), 10 (2.0), 11 (1.9), 12 (0.0). 13 rises to the top; all others fall.
    assert guided([10, 11, 12, 13], [2.0, 1.9, 0.0, 3.0], gap=1.05) == [(13, [11, 12])]
    assert guided([10, 11, 12, 13], [2.0, 1.9, 0.0, 3.0], gap=0.5) == [(13, [10, 11, 12])]


def test_mere_displacement_is_not_demotion() -> None:
    assert guided([10, 11], [1.0, 1.4], gap=0.5) == []
    assert guided([10, 11], [1.0, 1.5], gap=0.5) == [(11, [10])]


def test_where_no_rank_changes_nothing_is_learnt() -> None:
    assert guided([10, 11, 12], [3.0, 2.0, 1.0], gap=0.1) == []
    assert guided([10, 11, 12], [1.0, 1.0, 1.0], gap=0.1) == []


def test_a_clicked_item_is_a_positive_and_never_a_loser() -> None:
    # 12 rises over 10 and 11; 10 was clicked, so that only 11 loses. 10 itself beats nothing by the gap.
    assert guided([10, 11, 12], [1.0, 0.9, 3.0], clicked=[0], gap=0.5) == [(12, [11])]
    # A clicked positive comes first, though its reward is lower, and needs the gap like any other.
    lists = guided([10, 11, 12, 13], [0.0, 2.0, 1.0, 3.0], clicked=[2], gap=0.5, winners=1)
    assert lists == [(12, [10])]


def test_items_of_one_sid_are_one() -> None:
    # Leaf 10 has an item of reward 0 and one of 5, and the latter was clicked: neither can lose, one can win.
    assert guided([10, 10, 11, 12], [0.0, 5.0, 1.0, 2.0], clicked=[1], gap=0.5) == [(10, [11]), (12, [11])]


def test_limits() -> None:
    rewards = [0.0, 0.1, 0.2, 0.3, 5.0, 6.0, 7.0]
    rows = guided(range(7), rewards, gap=0.5, winners=2, negatives=3)
    # Of 0 to 6 the first three fall; 3 stays where it is.
    assert rows == [(6, [0, 1, 2]), (5, [0, 1, 2])], "best positives, and the negatives generated first"
    assert guided(range(7), rewards, gap=0.5, depth=1) == [(6, [0, 1, 2])], "only into the first place"


def test_padding_and_no_lists() -> None:
    made = reward_guided(
        np.array([[3, 5, -1], [-1, -1, -1]], np.int32),
        np.array([[0.0, 2.0, 9.0], [0, 0, 0]], np.float32),
        np.zeros((2, 3), bool),
    )
    assert made.source.tolist() == [0] and made.winner.tolist() == [5]
    assert made.losers.shape == (1, 8) and made.losers[0].tolist() == [3, *[-1] * 7]
    assert made.winner_reward.tolist() == [2.0] and made.loser_rewards[0, 0] == 0
    empty = np.zeros((0, 4))
    none = reward_guided(empty.astype(np.int32), empty.astype(np.float32), empty.astype(bool))
    assert len(none) == 0 and none.losers.shape == (0, 8)


def test_what_does_not_fit_is_refused() -> None:
    one = np.zeros((1, 2), np.float32)
    with pytest.raises(UsageError, match="one shape"):
        reward_guided(one.astype(np.int32), one, np.zeros((1, 3), bool))
    with pytest.raises(UsageError, match="positive"):
        reward_guided(one.astype(np.int32), one, one.astype(bool), gap=0)
    flat = np.zeros(1)
    with pytest.raises(UsageError, match="1 to 6"):
        interactions_alone(flat.astype(int), flat.astype(int), np.array([7]), flat)


LISTS = st.lists(
    st.lists(
        st.tuples(st.integers(-1, 9), st.floats(-3, 3, width=32), st.booleans()), min_size=6, max_size=6
    ),
    max_size=4,
)


@settings(deadline=None)
@given(LISTS, st.sampled_from([0.1, 0.5, 2.0]))
def test_any_lists_keep_the_rules(lists, gap) -> None:
    leaves = np.array([[leaf for leaf, _, _ in row] for row in lists], np.int32).reshape(-1, 6)
    rewards = np.array([[reward for _, reward, _ in row] for row in lists], np.float32).reshape(leaves.shape)
    clicked = np.array([[hit for _, _, hit in row] for row in lists], bool).reshape(leaves.shape)
    made = reward_guided(leaves, rewards, clicked, gap)
    for at in range(len(made)):
        own, reward, hit = (part[made.source[at]] for part in (leaves, rewards, clicked))
        lost = made.losers[at][made.losers[at] >= 0]
        assert len(lost) and len(set(lost.tolist())) == len(lost)
        assert made.winner[at] in own and made.winner[at] not in lost and made.winner[at] >= 0
        for leaf, told in zip(lost, made.loser_rewards[at], strict=False):
            assert not hit[own == leaf].any(), "a clicked item lost"
            assert told == reward[own == leaf].max()
            assert made.winner_reward[at] - told >= gap
    again = reward_guided(leaves, rewards, clicked, gap)
    assert all(
        np.array_equal(one, two) for one, two in zip(vars(made).values(), vars(again).values(), strict=True)
    )


def test_phase_two_by_hand() -> None:
    lists = np.array([4, 4, 4, 4, 4, 9, 9, 11])
    leaves = np.array([1, 2, 3, 4, 1, 7, 8, 5])
    level = np.array([3, 1, 4, 6, 5, 4, 5, 1])
    rewards = np.array([0.5, 1.0, 0.25, 0.0, 0.1, 0.2, 0.1, 1.0])
    made = interactions_alone(lists, leaves, level, rewards)
    # List 9 has no positive, list 11 no negative. In list 4 leaf 1 is a positive, so that it does not lose.
    assert made.source.tolist() == [4, 4] and made.winner.tolist() == [2, 1]
    assert made.winner_reward.tolist() == pytest.approx([1.0, 0.5])
    for row in range(2):
        assert set(made.losers[row].tolist()) == {3, 4, -1}
        own = dict(zip(made.losers[row].tolist(), made.loser_rewards[row].tolist(), strict=True))
        assert own[3] == pytest.approx(0.25) and own[4] == 0
    # A click (0.5) is less than 0.3 above the impression (0.25).
    apart = interactions_alone(lists, leaves, level, rewards, gap=0.3)
    assert set(apart.losers[1].tolist()) == {4, -1} and set(apart.losers[0].tolist()) == {3, 4, -1}


def test_negatives_are_mixed_by_level() -> None:
    level = np.array([1] + [4] * 20 + [5] * 20 + [6] * 20)
    count = len(level)
    made = interactions_alone(np.zeros(count, int), np.arange(count), level, np.where(level == 1, 1.0, 0.1))
    drawn = level[made.losers[0]]
    assert sorted(drawn.tolist()) == [4, 4, 4, 4, 5, 5, 6, 6]
    other = interactions_alone(
        np.zeros(count, int), np.arange(count), level, np.where(level == 1, 1.0, 0.1), seed=1
    )
    assert other.losers.tolist() != made.losers.tolist()
    few = interactions_alone(np.zeros(3, int), np.arange(3), np.array([3, 6, 6]), np.array([1.0, 0.0, 0.0]))
    assert set(few.losers[0].tolist()) == {1, 2, -1}


FLAT = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 6), st.integers(1, 6), st.floats(0, 1)), max_size=30
)


@settings(deadline=None)
@given(FLAT)
def test_any_interactions_keep_the_rules(rows) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    lists, leaves, level, rewards = (
        np.array(column) for column in (zip(*rows, strict=True) if rows else [[]] * 4)
    )
    made = interactions_alone(lists, leaves, level, rewards)
    for at in range(len(made)):
        own = lists == made.source[at]
        good = set(leaves[own & (level <= 3)].tolist())
        lost = set(made.losers[at].tolist()) - {-1}
        assert made.winner[at] in good and lost and not lost & good
        assert (made.winner_reward[at] - made.loser_rewards[at][made.losers[at] >= 0] >= 0.1 - 1e-6).all()
