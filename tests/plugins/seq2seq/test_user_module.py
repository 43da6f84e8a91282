"""A user module trained along: it learns what only histories tell, and resumes like the network itself."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from onesearch.progress import SilentProgress
from onesearch.training.examples import Examples, Histories, Ragged
from onesearch_seq2seq.batches import sid_batch
from onesearch_seq2seq.config import Seq2SeqConfig, StageConfig
from onesearch_seq2seq.evaluation import states_of
from onesearch_seq2seq.learner import Seq2SeqLearner
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.scoring import TreeTables
from onesearch_seq2seq.shape import Shape
from onesearch_seq2seq.training import fingerprint, sid_loss
from torch import Tensor, nn

TASTES, DIM, FIELDS = 6, 8, 3
STAGE = StageConfig(
    steps=150, batch_size=64, eval_every=50, checkpoint_every=10, warmup=10, learning_rate=3e-3
)


class Reader(nn.Module):
    """Two prefix vectors from the mean of a history; at first they say nothing."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.place = nn.Parameter(torch.randn(2, 64, generator=generator) * 0.1)
        self.read = nn.Linear(DIM, 2 * 64)
        self.dropout = nn.Dropout(0.1)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    @property
    def trained(self) -> bool:
        return bool(self.read.weight.any())

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        assert history.dtype == torch.float32 and mask.dtype == torch.bool
        assert history.shape[1:] == (FIELDS, DIM) and mask.shape == history.shape[:2]
        mean = (history * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.place + self.read(self.dropout(mean)).unflatten(1, (2, 64))


@pytest.fixture(scope="module")
def personal(examples) -> Examples:
    """Everybody asks the same; what they want follows from their history alone."""
    task, random = examples.sid_tasks[0], np.random.default_rng(3)
    count = len(task.leaf)
    taste = random.integers(0, TASTES, count)
    values = random.normal(size=(TASTES, FIELDS, DIM)).astype(np.float16)
    mask = np.ones((TASTES, FIELDS), bool)
    mask[:, 1] = np.arange(TASTES) % 2 == 0
    task = replace(
        task,
        prompts=Ragged.of([[5, 6]] * count),
        vector=np.full(count, -1, np.int32),
        leaf=(taste * 3 + random.integers(0, 3, count)).astype(np.int32),
        histories=Histories(values, mask, taste.astype(np.int32)),
    )
    return replace(examples, sid_tasks=(task,), text_tasks=(), share={})


def config(**changes) -> Seq2SeqConfig:
    stage = STAGE.model_copy(update=changes)
    # What is compared is computed with and without autocast.
    return Seq2SeqConfig(size="tiny", steer_rank=4, personalisation=stage, threads=1, mixed_precision=False)


def fit(examples, folder, module, progress=None, **changes):
    learner = Seq2SeqLearner(config(**changes))
    figures = learner.fit("personalisation", examples, folder, progress or SilentProgress(), module)
    return learner, figures


@pytest.fixture(scope="module")
def straight(personal, tmp_path_factory):
    module = Reader()
    learner, figures = fit(personal, tmp_path_factory.mktemp("work"), module)
    return learner, module, figures


def same(one: nn.Module, other: nn.Module) -> bool:
    there = other.state_dict()
    return all(torch.equal(tensor, there[name]) for name, tensor in one.state_dict().items())


def test_width_is_known_before_training():
    assert Seq2SeqLearner(Seq2SeqConfig(size="tiny")).prefix_width == 64
    assert Seq2SeqLearner(Seq2SeqConfig()).prefix_width == 256


def test_batches_carry_histories(personal):
    task = personal.sid_tasks[0]
    batch = sid_batch(task, 0, np.array([4, 2, 7]), 64)
    assert batch.history.dtype == np.float32 and batch.history_mask.dtype == np.bool_
    np.testing.assert_array_equal(batch.history, task.histories.values[task.histories.row[[4, 2, 7]]])
    np.testing.assert_array_equal(batch.history_mask, task.histories.mask[task.histories.row[[4, 2, 7]]])
    assert sid_batch(replace(task, histories=None), 0, np.array([1]), 64).history is None


def test_it_learns_what_only_histories_tell(straight, personal, tmp_path):
    _, figures = fit(personal, tmp_path, None)
    learnt = straight[2]
    # Three leaves a taste against all there are: log 6 = 1.79 nats to win.
    assert learnt["held_out_nll"] < figures["held_out_nll"] - 1.2
    # Few held-out examples fit weights badly; with those of training the rest is choosing one in three.
    learner, module, _ = straight
    task, vectors = personal.sid_tasks[0], torch.from_numpy(np.array(personal.vectors))
    batch = sid_batch(task, 0, np.flatnonzero(task.held_out), 64)
    tables = TreeTables.of(personal.tree, torch.device("cpu"))
    with torch.no_grad():
        assert sid_loss(learner.trained(), tables, batch, vectors, module) < np.log(3) + 0.3
    assert straight[1].trained and not straight[1].training and not straight[0].trained().training


@pytest.mark.parametrize("step", [7, 50, 95])
def test_killed_anywhere_it_ends_in_the_same_weights(step, straight, personal, tmp_path):
    class KilledError(Exception):
        pass

    class Kill(SilentProgress):
        @contextmanager
        def task(self, title, total=None):
            done = [0.0]

            class Task:
                def advance(task, steps: float = 1, note: str | None = None) -> None:  # noqa: N805
                    done[0] += steps
                    if done[0] >= step:
                        raise KilledError

            yield Task()

    with pytest.raises(KilledError):
        fit(personal, tmp_path, Reader(), Kill())
    module, said = Reader(), []
    progress = SilentProgress()
    progress.say = said.append  # type: ignore[method-assign]
    learner, figures = fit(personal, tmp_path, module, progress)
    assert any("resumed" in message for message in said) == (step >= 10)
    assert same(module, straight[1]) and same(learner.trained(), straight[0].trained())
    assert figures["held_out_nll"] == straight[2]["held_out_nll"]


def test_another_module_is_another_training(personal):
    model = Seq2Seq(shape_of(personal), config())
    modules = [None, Reader(), Reader(), Reader(seed=1)]
    prints = [fingerprint(model, config(), STAGE, personal, 0, module) for module in modules]
    assert prints[1] == prints[2] and len(set(prints)) == 3
    other = personal.sid_tasks[0].histories
    other = replace(other, row=other.row[::-1].copy())
    changed = replace(personal, sid_tasks=(replace(personal.sid_tasks[0], histories=other),))
    assert fingerprint(model, config(), STAGE, changed, 0, modules[1]) != prints[1]


def shape_of(examples) -> Shape:
    vocabulary = examples.vocabulary
    return Shape(vocabulary.size, vocabulary.text_size, vocabulary.levels, examples.vectors.shape[1])


def test_the_best_weights_come_back_in_the_module_too(personal, tmp_path):
    module = Reader()
    wild = {"learning_rate": 0.1, "eval_every": 5, "patience": 2, "steps": 4000, "warmup": 0}
    learner, figures = fit(personal, tmp_path, module, **wild)
    nlls = {entry["step"]: entry["held_out_nll"] for entry in figures["curve"]}
    assert 0 < figures["best_step"] < figures["steps"] < 4000 and nlls[figures["best_step"]] == min(
        nlls.values()
    )
    assert judged(learner, module, personal) == pytest.approx(figures["held_out_nll"], abs=1e-6)


def judged(learner, module, examples) -> float:
    from onesearch_seq2seq.batches import held_out_rows
    from onesearch_seq2seq.evaluation import evaluate

    model = learner.trained()
    tables = TreeTables.of(examples.tree, torch.device("cpu"))
    held_out = held_out_rows(examples, learner.config.served_task, 2000, 2)
    vectors = torch.from_numpy(np.array(examples.vectors))
    return evaluate(model, tables, examples, *held_out, vectors, module).guided


def test_a_stage_that_improves_nothing_leaves_what_there_was(examples, personal, straight, tmp_path):
    """The network as before, and the module untrained: its prefix is then not served, so nothing changed."""
    before = Seq2SeqLearner(config())
    before.config = Seq2SeqConfig(
        size="tiny", steer_rank=4, cooccurrence=STAGE, threads=1, mixed_precision=False
    )
    before.fit("cooccurrence", replace(personal, sid_tasks=unpersonal(personal)), tmp_path, SilentProgress())
    before.save(tmp_path)
    ruin = config(learning_rate=10.0, steps=20, eval_every=5, warmup=0)
    learner, module = Seq2SeqLearner.load(tmp_path, ruin), Reader()
    figures = learner.fit("personalisation", personal, tmp_path, SilentProgress(), module)
    assert figures["best_step"] == 0 and same(module, Reader()) and not module.trained
    expected = before.trained().state_dict()
    for name, tensor in learner.trained().state_dict().items():
        if name != "served":  # fitted on this stage's held-out examples
            assert torch.equal(tensor, expected[name]), name
    assert figures["curve"][0]["held_out_nll"] == pytest.approx(judged(learner, None, personal), abs=1e-6)


def unpersonal(examples):
    return tuple(replace(task, histories=None) for task in examples.sid_tasks)


def test_a_stage_without_histories_does_not_notice_the_module(personal, tmp_path):
    plain = replace(personal, sid_tasks=unpersonal(personal))
    module = Reader()
    one, _ = fit(plain, tmp_path / "one", module, steps=20)
    other, _ = fit(plain, tmp_path / "other", None, steps=20)
    assert same(one.trained(), other.trained()) and same(module, Reader())


def test_a_task_without_histories_beside_one_with_them_has_no_prefix(personal, tmp_path):
    task = personal.sid_tasks[0]
    mixed = replace(personal, sid_tasks=(task, replace(task, name="stranger", histories=None)))
    module = Reader()
    _, figures = fit(mixed, tmp_path, module, steps=20)
    assert module.trained and np.isfinite(figures["held_out_nll"])


def test_the_prefix_is_the_modules(personal):
    torch.manual_seed(0)
    model, module = Seq2Seq(shape_of(personal), config()).eval(), Reader().eval()
    nn.init.normal_(module.read.weight)
    tables = TreeTables.of(personal.tree, torch.device("cpu"))
    vectors = torch.from_numpy(np.array(personal.vectors))
    batch = sid_batch(personal.sid_tasks[0], 0, np.arange(5), 64)
    with torch.no_grad():
        states, _, leaf = states_of(model, tables, batch, vectors, module)
        prefix = module(torch.from_numpy(batch.history), torch.from_numpy(batch.history_mask))
        memory, bias = model.encode(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask), prefix)
        expected = model.decode(model.sid_inputs(tables.codes[leaf]), memory, bias)
        without, *_ = states_of(model, tables, batch, vectors)
    torch.testing.assert_close(states, expected)
    assert memory.shape[1] == 2 + batch.ids.shape[1] and not torch.allclose(states, without)
