"""The order of the batches: decided by seed and step alone, fair to every row, blind to what is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onesearch.errors import UsageError
from onesearch.training.examples import Ragged
from onesearch_seq2seq.batches import BatchOrder, held_out_rows, padded
from onesearch_seq2seq.config import StageConfig

STAGE = StageConfig(steps=60, batch_size=50, text_batch_size=20)


def order(examples, seed=0, stage=STAGE):
    return BatchOrder(examples, stage, seed, limit=64, text_limit=32)


def test_padded():
    rows = Ragged.of([[1, 2, 3], [], [4, 5, 6, 7]])
    ids, mask = padded(rows, np.array([2, 0, 1]), 3)
    np.testing.assert_array_equal(ids, [[4, 5, 6], [1, 2, 3], [0, 0, 0]])
    np.testing.assert_array_equal(mask.sum(axis=1), [3, 3, 0])


def test_step_alone_decides(examples):
    first, second = order(examples), order(examples)
    for step in (59, 3, 17):  # whatever was asked for before
        one, other = first.batch(step), second.batch(step)
        assert one.task == other.task
        np.testing.assert_array_equal(one.ids, other.ids)
    assert any((order(examples, 1).sequence != first.sequence).tolist())


def test_every_trained_row_once_an_epoch_and_held_out_never(examples):
    task = examples.sid_tasks[0]
    only = replace(examples, sid_tasks=(task,), text_tasks=(), share={})
    trained = np.flatnonzero(~task.held_out)
    steps = -(-len(trained) // 50)
    batches = [order(only).batch(step) for step in range(steps)]
    seen = np.sort(np.concatenate([batch.vector for batch in batches]))
    np.testing.assert_array_equal(seen, task.vector[trained])


def test_shares(examples):
    counts = np.bincount(order(examples, stage=StageConfig(steps=4000)).sequence, minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.7, 0.2, 0.1], atol=0.03)


def test_rows_of_like_length_stand_together(examples):
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, 4000)
    task = replace(
        examples.sid_tasks[0],
        prompts=Ragged.of([[1] * n for n in lengths]),
        vector=np.zeros(4000, np.int32),
        leaf=np.zeros(4000, np.int32),
        weight=np.ones(4000, np.float32),
        held_out=np.zeros(4000, bool),
    )
    batches = order(replace(examples, sid_tasks=(task,), text_tasks=(), share={}))
    padding = np.mean([1 - batches.batch(step).mask.mean() for step in range(60)])
    assert padding < 0.1


def test_dead_leaves_are_not_trained_on(examples):
    task = examples.sid_tasks[0]
    dead = int(task.leaf[0])
    mass = (*examples.tree.log_mass[:-1], examples.tree.log_mass[-1].copy())
    mass[-1][dead] = -np.inf
    blind = replace(examples, tree=replace(examples.tree, log_mass=mass))
    assert (task.leaf[order(examples).rows[0]] == dead).any()
    assert not (task.leaf[order(blind).rows[0]] == dead).any()


def test_nothing_to_train_on(examples):
    task = replace(examples.sid_tasks[0], weight=np.zeros(len(examples.sid_tasks[0].leaf), np.float32))
    with pytest.raises(UsageError, match="nothing to train on"):
        order(replace(examples, sid_tasks=(task,), text_tasks=()))


def test_held_out_rows(examples):
    number, rows = held_out_rows(examples, "query text → item SID", 50, 0)
    assert number == 0 and len(rows) == 50 and examples.sid_tasks[0].held_out[rows].all()
    assert held_out_rows(examples, "another", 9999, 0)[0] == 0, (
        "the first task with held-out examples stands in"
    )
    unseen = replace(examples, sid_tasks=examples.sid_tasks[1:])
    assert held_out_rows(unseen, "another", 50, 0) is None
