"""Ranked lists: one positive and many negatives, what a generator learns preferences from (DESIGN 9).

Phase 1 reranks the generator's own lists by a reward; phase 2 knows interactions alone. Everything is told
in leaves of the prefix tree (SIDs), since a generator cannot tell the items of one SID apart: a leaf has the
best reward of its items and is clicked where any of them is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from onesearch.errors import ArtifactError, UsageError
from onesearch.training.examples import Histories, Ragged
from onesearch.training.levels import LAST_POSITIVE

PHASE_1_GAP = 0.5
"""ε of phase 1, in units of the reward: about half its spread within a list, as PARS scales it."""
PHASE_2_GAP = 0.1
"""ε of phase 2: r(q, i) of neighbouring levels are farther apart than that."""
_SHARES = {4: 2.0, 5: 1.0, 6: 1.0}
"""How the negatives of a list are filled in phase 2: as many of level 4 as of 5 and 6 together."""


@dataclass(frozen=True)
class Ranked:
    """P rows, in order of their lists.

    Attributes:
        source: i64[P], which list each row is of.
        winner: i32[P], a leaf. losers: i32[P, M], leaves, -1 behind the last; a row has one at least.
        winner_reward: f32[P]. loser_rewards: f32[P, M], 0 behind the last.
    """

    source: np.ndarray
    winner: np.ndarray
    losers: np.ndarray
    winner_reward: np.ndarray
    loser_rewards: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, rows: list[tuple[int, int, np.ndarray, float, np.ndarray]], negatives: int) -> Ranked:
        """From rows (list, winner, losers, the winner's reward, the losers' rewards)."""
        losers = np.full((len(rows), negatives), -1, np.int32)
        rewards = np.zeros((len(rows), negatives), np.float32)
        for at, (_, _, leaves, _, own) in enumerate(rows):
            losers[at, : len(leaves)], rewards[at, : len(leaves)] = leaves, own
        return cls(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int32),
            losers,
            np.array([row[3] for row in rows], np.float32),
            rewards,
        )


@dataclass(frozen=True)
class Preferences:
    """What a phase of preference learning learns from.

    Attributes:
        ranked: its ``source`` counts the prompts.
        prompts: N rows of ids, one a list. vector: i32[N], row of ``vectors``; -1: no prior.
        vectors: f16[V, D], e° of the queries.
        weight: f32[N], how much a list counts.
        held_out: bool[N], lists that the phase is judged by and does not learn from.
        histories: of the N lists; None where prompts know nothing of a shopper.
    """

    ranked: Ranked
    prompts: Ragged
    vector: np.ndarray
    vectors: np.ndarray
    weight: np.ndarray
    held_out: np.ndarray
    histories: Histories | None = None

    def save(self, path: Path) -> None:
        """Write one file of arrays, in one step."""
        ranked = {f"ranked.{name}": array for name, array in vars(self.ranked).items()}
        own = {name: getattr(self, name) for name in ("vector", "vectors", "weight", "held_out")}
        prompts = {"prompts.values": self.prompts.values, "prompts.offsets": self.prompts.offsets}
        told = {} if self.histories is None else vars(self.histories)
        histories = {f"histories.{name}": array for name, array in told.items()}
        arrays = {**ranked, **own, **prompts, **histories}
        draft = path.with_suffix(".draft")
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft)
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> Preferences:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        try:
            arrays = load_file(path)
            parts: dict[str, dict[str, np.ndarray]] = {"": {}, "ranked": {}, "prompts": {}, "histories": {}}
            for name, array in arrays.items():
                part, _, own = name.rpartition(".")
                parts[part][own] = array
            histories = Histories(**parts["histories"]) if parts["histories"] else None
            return cls(
                Ranked(**parts["ranked"]), Ragged(**parts["prompts"]), **parts[""], histories=histories
            )
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{path}: not ranked lists ({error})") from error


def reward_guided(
    leaves: np.ndarray,
    rewards: np.ndarray,
    clicked: np.ndarray,
    gap: float = PHASE_1_GAP,
    winners: int = 2,
    negatives: int = 8,
    depth: int = 10,
) -> Ranked:
    """Phase 1: pairs where a reward reorders the generator's own lists.

    A positive is a leaf that the reward promotes into the first ``depth``, or a clicked one; a negative one
    that it demotes. Of a pair it is asked besides that the rewards differ by ``gap`` at least (to be
    displaced by others is not to be demoted), that the leaves differ, and that the negative is not clicked.
    Of more positives the clicked ones come first, then those of the highest reward; of more negatives, those
    that the generator puts first.

    Args:
        leaves: i32[Q, K], the generator's lists, best first; -1 is padding.
        rewards: f32[Q, K]. clicked: bool[Q, K].
        gap: ε. winners: positives a list at most. negatives: negatives a positive at most.
        depth: how far down a promotion still matters.

    Raises:
        UsageError: shapes differ, or ``gap`` is not positive.
    """
    if not leaves.shape == rewards.shape == clicked.shape or gap <= 0:
        raise UsageError(
            f"lists {leaves.shape}, rewards {rewards.shape} and clicks {clicked.shape} have to be of one "
            f"shape, and the gap positive, not {gap}"
        )
    rows = []
    for number in range(len(leaves)):
        own, reward, hit = _by_leaf(leaves[number], rewards[number], clicked[number])
        place = np.empty(len(own), np.int64)
        place[np.argsort(-reward, kind="stable")] = np.arange(len(own))
        before = np.arange(len(own))
        promoted = (place < before) & (place < depth)
        demoted = (place > before) & ~hit
        chosen = np.flatnonzero(promoted | hit)
        chosen = chosen[np.lexsort([-reward[chosen], ~hit[chosen]])][:winners]
        for winner in chosen:
            lost = np.flatnonzero(demoted & (reward[winner] - reward >= gap))[:negatives]
            if len(lost):
                rows.append((number, int(own[winner]), own[lost], float(reward[winner]), reward[lost]))
    return Ranked.of(rows, negatives)


def interactions_alone(
    lists: np.ndarray,
    leaves: np.ndarray,
    level: np.ndarray,
    rewards: np.ndarray,
    gap: float = PHASE_2_GAP,
    winners: int = 2,
    negatives: int = 8,
    seed: int = 0,
) -> Ranked:
    """Phase 2: pairs of what shoppers did, levels 1 to 3 against levels 4 to 6.

    Of more positives the best levels come first, then the highest rewards; of more negatives a draw by the
    seed, with as many of level 4 as of levels 5 and 6 together. Of a pair the rewards differ by ``gap`` at
    least, and no leaf with a positive in its list is a negative there.

    Args:
        lists: i64[n], rising. leaves: i32[n]; rows with -1 are left out.
        level: u8[n], 1 to 6. rewards: f64[n], r(q, i).
        gap: ε. winners, negatives: as for :func:`reward_guided`.

    Raises:
        UsageError: a level is none of the six, or ``gap`` is not positive.
    """
    if gap <= 0 or (len(level) and not (level.min() >= 1 and level.max() <= 6)):
        raise UsageError(f"levels have to be 1 to 6 and the gap positive, not {gap}")
    known = leaves >= 0
    lists, leaves, level, rewards = lists[known], leaves[known], level[known], rewards[known]
    luck = np.random.default_rng([seed, 0xD2]).random(len(lists))
    edges = np.flatnonzero(np.diff(lists, prepend=-1, append=-1)) if len(lists) else np.zeros(0, np.int64)
    rows = []
    for start, end in zip(edges, np.append(edges[1:], len(lists)), strict=False):
        order = start + np.lexsort([-rewards[start:end], level[start:end]])
        order = order[_first(leaves[order])]
        good = order[level[order] <= LAST_POSITIVE]
        bad = order[level[order] > LAST_POSITIVE]
        bad = bad[_mixed(level[bad], luck[bad])]
        for winner in good[:winners]:
            lost = bad[rewards[winner] - rewards[bad] >= gap][:negatives]
            if len(lost):
                own = rewards[lost].astype(np.float32)
                rows.append(
                    (int(lists[winner]), int(leaves[winner]), leaves[lost], float(rewards[winner]), own)
                )
    return Ranked.of(rows, negatives)


def _by_leaf(
    leaves: np.ndarray, rewards: np.ndarray, clicked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One list's leaves in the generator's order, with the best reward of each, and whether it is clicked."""
    real = leaves >= 0
    leaves, rewards, clicked = leaves[real], rewards[real], clicked[real]
    first = np.sort(np.unique(leaves, return_index=True)[1])
    different = leaves[first]
    order = np.argsort(different)
    at = order[np.searchsorted(different[order], leaves)]
    best = np.full(len(first), -np.inf, np.float32)
    np.maximum.at(best, at, rewards.astype(np.float32))
    return different, best, np.bincount(at, clicked, len(first)) > 0


def _first(values: np.ndarray) -> np.ndarray:
    """Positions of the first of equal values, in their order."""
    return np.sort(np.unique(values, return_index=True)[1])


def _mixed(level: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """An order of negatives in which every beginning is mixed by :data:`_SHARES`."""
    turn = np.zeros(len(level))
    for one, share in _SHARES.items():
        own = np.flatnonzero(level == one)
        turn[own[np.argsort(luck[own])]] = (np.arange(len(own)) + 0.5) / share
    return np.lexsort([level, turn])
