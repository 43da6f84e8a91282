"""Batches of examples in an order that only the seed and the step decide, so that training resumes without
loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onesearch.errors import UsageError
from onesearch.training.examples import Examples, Ragged, SidTask, TextTask

from onesearch_seq2seq.config import StageConfig

_BUCKET = 40  # batches whose rows are sorted by length together


@dataclass(frozen=True)
class Batch:
    """Rows of one task: i64 ids, masks, and what they lead to.

    Attributes:
        task: its number, SID tasks first.
        ids, mask: prompts i64[B, T] and bool[B, T].
        weight: f32[B].
        leaf, vector: i64[B] of a SID task; a vector of -1 has no prior.
        targets, target_mask: i64[B, S] and bool[B, S] of a text task.
        history, history_mask: f32[B, F, D] and bool[B, F] of a SID task whose prompts know shoppers.
    """

    task: int
    ids: np.ndarray
    mask: np.ndarray
    weight: np.ndarray
    leaf: np.ndarray | None = None
    vector: np.ndarray | None = None
    targets: np.ndarray | None = None
    target_mask: np.ndarray | None = None
    history: np.ndarray | None = None
    history_mask: np.ndarray | None = None


def padded(rows: Ragged, at: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``at`` cut to ``limit`` and padded on the right: ids i64[B, T], mask bool[B, T], T ≥ 1."""
    lengths = np.minimum(rows.offsets[at + 1] - rows.offsets[at], limit)
    columns = np.arange(max(1, int(lengths.max(initial=1))))
    mask = columns < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = rows.values[(rows.offsets[at][:, None] + columns)[mask]]
    return ids, mask


def sid_batch(task: SidTask, number: int, rows: np.ndarray, limit: int) -> Batch:
    """Rows of a SID task."""
    ids, mask = padded(task.prompts, rows, limit)
    history = history_mask = None
    if task.histories is not None:
        at = task.histories.row[rows]
        history, history_mask = task.histories.values[at].astype(np.float32), task.histories.mask[at]
    return Batch(
        number,
        ids,
        mask,
        task.weight[rows].astype(np.float32),
        task.leaf[rows].astype(np.int64),
        task.vector[rows],
        history=history,
        history_mask=history_mask,
    )


def text_batch(task: TextTask, number: int, rows: np.ndarray, limit: int, text_limit: int) -> Batch:
    """Rows of a text task."""
    ids, mask = padded(task.prompts, rows, limit)
    targets, target_mask = padded(task.targets, rows, text_limit)
    weight = task.weight[rows].astype(np.float32)
    return Batch(number, ids, mask, weight, targets=targets, target_mask=target_mask)


class BatchOrder:
    """Which rows of which task a step learns from."""

    def __init__(
        self, examples: Examples, stage: StageConfig, seed: int, limit: int, text_limit: int
    ) -> None:
        """Examples that are held out, weigh nothing or lead to a dead leaf are never drawn."""
        self.examples, self.limit, self.text_limit, self.seed = examples, limit, text_limit, seed
        alive = np.isfinite(examples.tree.log_mass[-1])
        self.rows: list[np.ndarray] = []
        self.sizes: list[int] = []
        lengths: list[np.ndarray] = []
        for task in examples.sid_tasks:
            self.rows.append(np.flatnonzero(~task.held_out & (task.weight > 0) & alive[task.leaf]))
            self.sizes.append(stage.batch_size)
            lengths.append(np.diff(task.prompts.offsets))
        for text_task in examples.text_tasks:
            self.rows.append(np.flatnonzero(text_task.weight > 0))
            self.sizes.append(stage.text_batch_size)
            lengths.append(np.diff(text_task.prompts.offsets) + np.diff(text_task.targets.offsets))
        self.lengths = lengths
        shares = self._shares()
        if not shares.sum():
            raise UsageError(
                "there is nothing to train on: no task has an example with a weight that is not held out"
            )
        self.sequence = np.random.default_rng([seed, 1]).choice(
            len(shares), stage.steps, p=shares / shares.sum()
        )
        self.turn = np.zeros(stage.steps, dtype=np.int64)
        for number in range(len(shares)):
            own = self.sequence == number
            self.turn[own] = np.arange(own.sum())
        self._epochs: dict[int, tuple[int, list[np.ndarray]]] = {}

    def _shares(self) -> np.ndarray:
        names = [task.name for task in self.examples.sid_tasks]
        names += [task.name for task in self.examples.text_tasks]
        given = [self.examples.share.get(name) for name in names]
        others = given.count(None)
        left = max(0.0, 1 - sum(share for share in given if share is not None)) / max(1, others)
        shares = np.array([left if share is None else share for share in given], dtype=np.float64)
        shares[[not len(rows) for rows in self.rows]] = 0
        return shares

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        number, turn = int(self.sequence[step]), int(self.turn[step])
        rows, size = self.rows[number], self.sizes[number]
        count = -(-len(rows) // size)
        epoch, at = divmod(turn, count)
        if self._epochs.get(number, (-1, []))[0] != epoch:
            self._epochs[number] = (epoch, self._epoch(number, epoch))
        chosen = self._epochs[number][1][at]
        sid_tasks = self.examples.sid_tasks
        if number < len(sid_tasks):
            return sid_batch(sid_tasks[number], number, chosen, self.limit)
        task = self.examples.text_tasks[number - len(sid_tasks)]
        return text_batch(task, number, chosen, self.limit, self.text_limit)

    def _epoch(self, number: int, epoch: int) -> list[np.ndarray]:
        """All batches of one pass over a task: rows of like length together, batches in random order."""
        random = np.random.default_rng([self.seed, 2, number, epoch])
        rows, size = random.permutation(self.rows[number]), self.sizes[number]
        batches: list[np.ndarray] = []
        for start in range(0, len(rows), size * _BUCKET):
            bucket = rows[start : start + size * _BUCKET]
            bucket = bucket[np.argsort(self.lengths[number][bucket], kind="stable")]
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        return [batches[at] for at in random.permutation(len(batches))]


def held_out_rows(
    examples: Examples, served_task: str, limit: int, seed: int
) -> tuple[int, np.ndarray] | None:
    """The held-out rows that steer a stage: number of the task and at most ``limit`` of its rows; None: there
    are none.

    The served task is the one of that name, else the first SID task that has held-out examples.
    """
    alive = np.isfinite(examples.tree.log_mass[-1])
    found = [
        (task.name != served_task, number, rows)
        for number, task in enumerate(examples.sid_tasks)
        if len(rows := np.flatnonzero(task.held_out & (task.weight > 0) & alive[task.leaf]))
    ]
    if not found:
        return None
    _, number, rows = min(found, key=lambda entry: entry[:2])
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng([seed, 3]).choice(rows, limit, replace=False))
    return number, rows
