"""The masked loss against numbers worked out by hand, and against the graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from onesearch_seq2seq.batches import Batch, sid_batch
from onesearch_seq2seq.evaluation import states_of
from onesearch_seq2seq.scoring import Branching, TreeTables, branchings, path_log_probs, segment_logsumexp


def test_segment_logsumexp():
    values = torch.tensor([0.0, 0.0, math.log(3), -torch.inf, 1e4])
    segment = torch.tensor([0, 0, 1, 1, 2])
    expected = [math.log(2), math.log(3), 1e4]
    torch.testing.assert_close(segment_logsumexp(values, segment, 3), torch.tensor(expected))


def test_a_choice_by_hand():
    # Two prefixes: the first has children with head 1, 0 and a dead one, the second has steer 0.5 and prior
    # 0.1, 0.2.
    parts = (
        torch.tensor([1.0, 0.0, 9.0, 0.0, 0.0]),
        torch.tensor([0.0, 0.0, 0.0, 0.5, 0.0]),
        torch.tensor([0.0, 0.0, 0.0, 0.1, 0.2]),
        torch.tensor([math.log(2), math.log(6), -torch.inf, 0.0, 0.0]),
    )
    choice = Branching(torch.tensor([0, 2]), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 4]), parts)
    # w = 2, s = 1, γ = 20, η = 1: logits (2 + ln 2, ln 6, dead) and (2.5, 4).
    weights = torch.tensor([2.0, 1.0, 20.0, 1.0])
    first = math.log(2 * math.e**2 / (2 * math.e**2 + 6))
    second = -math.log(1 + math.exp(-1.5))
    torch.testing.assert_close(choice.log_probs(weights), torch.tensor([first, second]))
    assert first == pytest.approx(-0.3407, abs=1e-4)
    assert second == pytest.approx(-0.2014, abs=1e-4)
    torch.testing.assert_close(
        path_log_probs([choice], weights[:, None], 3), torch.tensor([[first], [0.0], [second]])
    )


def test_paths_are_a_distribution_over_live_leaves_and_only_children_are_free(network, world):
    levels = (6, 5, 4)
    index = world.make_index(world.random_sids(levels, 40, 2), levels)
    alive = np.arange(40) % 3 > 0
    live = index.live.narrowed(alive, index.popularity)
    model = network(levels).model
    tables = TreeTables.of(live, torch.device("cpu"))
    leaves = torch.arange(live.tree.leaf_count)
    with torch.no_grad():
        memory, bias = model.encode(torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.bool))
        states = model.decode(model.sid_inputs(tables.codes), memory.expand(len(leaves), -1, -1), bias)
        choices = branchings(model, tables, states, torch.randn(1, world.dim).expand(len(leaves), -1), leaves)
        steps = path_log_probs(choices, model.served[:4], len(leaves))
    totals = steps.sum(dim=1).exp()
    assert totals.sum().item() == pytest.approx(1, abs=1e-5)
    dead = ~np.isfinite(live.log_mass[-1])
    assert dead.any() and (totals.numpy()[dead] == 0).all()
    counts = np.diff(live.tree.first_child[2])
    only = counts[live.tree.leaf_ancestors(1)] == 1
    assert only.any() and (steps.numpy()[only & ~dead, 2] == 0).all()


def test_states_are_decoded_up_to_a_paths_last_choice(network, world):
    levels = (6, 5, 4)
    sids = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 2, 3], [2, 0, 0], [2, 0, 1], [3, 0, 0], [3, 1, 1]]
    index = world.make_index(np.array(sids), levels)
    model, tree = network(levels).model, index.live.tree
    tables = TreeTables.of(index.live, torch.device("cpu"))
    count = tree.leaf_count
    batch = Batch(
        0,
        np.random.default_rng(0).integers(0, world.text, (count, 4)),
        np.random.default_rng(1).random((count, 4)) < 0.8,
        np.ones(count, np.float32),
        leaf=np.random.default_rng(2).permutation(count),
        vector=np.full(count, -1),
    )
    with torch.no_grad():
        states, _, leaf = states_of(model, tables, batch, torch.zeros(0, world.dim))
        memory, bias = model.encode(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
        expected = model.decode(model.sid_inputs(tables.codes[leaf]), memory, bias)
    needed = np.array([3, 3, 2, 1, 3, 3, 2, 2])
    np.testing.assert_array_equal(tables.needed, needed)
    for row, length in enumerate(needed[batch.leaf]):
        torch.testing.assert_close(states[row, :length], expected[row, :length])
        assert not states[row, length:].any()


def test_untrained_network_is_its_prior(examples):
    from onesearch_seq2seq.config import Seq2SeqConfig
    from onesearch_seq2seq.model import Seq2Seq
    from onesearch_seq2seq.shape import Shape

    vocabulary = examples.vocabulary
    shape = Shape(vocabulary.size, vocabulary.text_size, vocabulary.levels, examples.vectors.shape[1])
    model = Seq2Seq(shape, Seq2SeqConfig(size="tiny")).eval()
    tables = TreeTables.of(examples.tree, torch.device("cpu"))
    batch = sid_batch(examples.sid_tasks[0], 0, np.arange(20), 64)
    with torch.no_grad():
        states, query, leaf = states_of(model, tables, batch, torch.from_numpy(examples.vectors))
        for choice in branchings(model, tables, states, query, leaf):
            assert not choice.parts[0].any() and not choice.parts[1].any()
            assert choice.parts[2].any()


def test_gradients_reach_every_parameter_and_push_the_right_way(examples):
    from onesearch_seq2seq.batches import text_batch
    from onesearch_seq2seq.config import Seq2SeqConfig
    from onesearch_seq2seq.model import Seq2Seq
    from onesearch_seq2seq.shape import Shape
    from onesearch_seq2seq.training import sid_loss, text_loss

    torch.manual_seed(0)
    vocabulary = examples.vocabulary
    shape = Shape(vocabulary.size, vocabulary.text_size, vocabulary.levels, examples.vectors.shape[1])
    model = Seq2Seq(shape, Seq2SeqConfig(size="tiny", dropout=0, head_rank=(0,)))
    tables = TreeTables.of(examples.tree, torch.device("cpu"))
    vectors = torch.from_numpy(examples.vectors)
    batch = sid_batch(examples.sid_tasks[0], 0, np.arange(32), 64)
    before = sid_loss(model, tables, batch, vectors)
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    after = sid_loss(model, tables, batch, vectors)
    assert after < before
    after.backward()
    task = examples.text_tasks[0]
    text_loss(model, text_batch(task, 2, np.arange(8), 64, 32), torch.device("cpu")).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The positions behind the longest prompt and target are not used.
    assert without == []


def test_sampled_text_loss_is_near_the_full_one(examples):
    from onesearch_seq2seq.batches import text_batch
    from onesearch_seq2seq.config import Seq2SeqConfig
    from onesearch_seq2seq.model import Seq2Seq
    from onesearch_seq2seq.shape import Shape
    from onesearch_seq2seq.training import text_loss

    torch.manual_seed(0)
    vocabulary = examples.vocabulary
    shape = Shape(vocabulary.size, vocabulary.text_size, vocabulary.levels, examples.vectors.shape[1])
    model = Seq2Seq(shape, Seq2SeqConfig(size="tiny", dropout=0)).eval()
    batch = text_batch(examples.text_tasks[0], 2, np.arange(40), 64, 32)
    full = text_loss(model, batch, torch.device("cpu")).item()
    assert full == pytest.approx(math.log(vocabulary.text_size), abs=0.2), "knows nothing yet"
    sampled = [text_loss(model, batch, torch.device("cpu"), 100).item() for _ in range(5)]
    assert np.mean(sampled) == pytest.approx(full, abs=0.02)
