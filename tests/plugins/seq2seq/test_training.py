"""Training: beats its prior on unseen queries, and resumes after a kill as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import Prompt, ServingContext
from onesearch.progress import SilentProgress
from onesearch_seq2seq.batches import padded
from onesearch_seq2seq.config import Seq2SeqConfig, StageConfig
from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.learner import Seq2SeqLearner
from onesearch_seq2seq.server import Seq2SeqServer

STAGE = StageConfig(
    steps=60, batch_size=64, text_batch_size=16, eval_every=20, checkpoint_every=10, warmup=10
)


def config(**changes) -> Seq2SeqConfig:
    stage = STAGE.model_copy(update=changes)
    return Seq2SeqConfig(size="tiny", steer_rank=4, cooccurrence=stage, text_negatives=64, threads=1)


class KilledError(Exception):
    pass


class ActsAt(SilentProgress):
    """Does something when training has done so many steps."""

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    @contextmanager
    def task(self, title, total=None):
        done = [0.0]

        class Task:
            def advance(task, steps: float = 1, note: str | None = None) -> None:  # noqa: N805
                before, done[0] = done[0], done[0] + steps
                if before < self.step <= done[0]:
                    self.act()

        yield Task()


def kill():
    raise KilledError


@pytest.fixture(scope="module")
def straight(examples, tmp_path_factory):
    """A run that nobody disturbs."""
    learner = Seq2SeqLearner(config())
    figures = learner.fit("cooccurrence", examples, tmp_path_factory.mktemp("work"), SilentProgress())
    return learner, figures


def assert_same_weights(one: Seq2SeqLearner, other: Seq2SeqLearner) -> None:
    expected = other.trained().state_dict()
    for name, tensor in one.trained().state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("step", [3, 10, 37, 60])
def test_killed_anywhere_it_ends_in_the_same_weights(step, examples, straight, tmp_path):
    with pytest.raises(KilledError):
        Seq2SeqLearner(config()).fit("cooccurrence", examples, tmp_path, ActsAt(step, kill))
    resumed = Seq2SeqLearner(config())
    figures = resumed.fit("cooccurrence", examples, tmp_path, SilentProgress())
    assert_same_weights(resumed, straight[0])
    assert figures["held_out_nll"] == straight[1]["held_out_nll"]


def test_interrupted_it_saves_the_step_and_goes_on(examples, straight, tmp_path):
    progress = ActsAt(33, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        Seq2SeqLearner(config()).fit("cooccurrence", examples, tmp_path, progress)
    assert (tmp_path / "cooccurrence" / "step-33.safetensors").exists()
    resumed = Seq2SeqLearner(config())
    resumed.fit("cooccurrence", examples, tmp_path, SilentProgress())
    assert_same_weights(resumed, straight[0])


def test_a_truncated_checkpoint_means_starting_anew_not_failing(examples, straight, tmp_path):
    with pytest.raises(KilledError):
        Seq2SeqLearner(config()).fit("cooccurrence", examples, tmp_path, ActsAt(25, kill))
    checkpoint = next((tmp_path / "cooccurrence").glob("step-*.safetensors"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    resumed = Seq2SeqLearner(config())
    resumed.fit("cooccurrence", examples, tmp_path, SilentProgress())
    assert_same_weights(resumed, straight[0])


def test_other_settings_do_not_take_up_the_checkpoint(examples, tmp_path):
    with pytest.raises(KilledError):
        Seq2SeqLearner(config()).fit("cooccurrence", examples, tmp_path, ActsAt(25, kill))
    said: list[str] = []
    progress = ActsAt(1, kill)
    progress.say = said.append  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        Seq2SeqLearner(config(learning_rate=2e-3)).fit("cooccurrence", examples, tmp_path, progress)
    assert not any("resumed" in message for message in said)


def test_it_learns_what_its_prior_does_not_know(straight):
    _, figures = straight
    assert figures["held_out_nll"] < figures["held_out_nll_prior_only"] - 0.1
    assert figures["steps"] == 60
    assert [entry["step"] for entry in figures["curve"]] == [0, 20, 40, 60]
    assert all(level["nll"] <= level["nll_prior_only"] for level in figures["levels"])


def test_a_trained_network_finds_the_same_in_int8(straight, examples, tmp_path):
    learner, task = straight[0], examples.sid_tasks[0]
    rows = np.flatnonzero(task.held_out)
    ids, mask = padded(task.prompts, rows, 64)
    prompt = Prompt(ids.astype(np.int32), mask, np.zeros((len(rows), 0, 64), np.float32))
    found = {}
    for precision in ("fp32", "int8"):
        export(learner.trained(), learner.config, tmp_path / precision, precision)
        context = ServingContext(
            tmp_path / precision, examples.vocabulary, SimpleNamespace(live=examples.tree), Runtime(1)
        )
        server = Seq2SeqServer.open(tmp_path / precision, context, learner.config)
        queries = examples.vectors[task.vector[rows]].astype(np.float32)
        found[precision] = server.search(prompt, queries, examples.tree, 20).leaves[:, :10].tolist()
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(found["fp32"], found["int8"], strict=True)]
    assert len(rows) > 100 and np.mean(shared) >= 0.95


def test_stops_early_and_keeps_the_best(examples, tmp_path):
    stage = {
        "steps": 400,
        "learning_rate": 0.05,
        "patience": 2,
        "warmup": 0,
        "eval_every": 8,
        "batch_size": 16,
    }
    learner = Seq2SeqLearner(config(**stage))
    figures = learner.fit("cooccurrence", examples, tmp_path, SilentProgress())
    nlls = {entry["step"]: entry["held_out_nll"] for entry in figures["curve"]}
    assert figures["steps"] < 400
    assert figures["held_out_nll"] == pytest.approx(min(nlls.values()), abs=1e-3)
    assert nlls[figures["best_step"]] == min(nlls.values())


def test_time_limit_ends_a_stage(examples, tmp_path):
    figures = Seq2SeqLearner(config(steps=100_000, max_minutes=0.01, eval_every=100_000)).fit(
        "cooccurrence", examples, tmp_path, SilentProgress()
    )
    assert 0 < figures["steps"] < 2000
    assert figures["seconds"] < 10


def test_without_held_out_examples_it_trains_to_the_end(examples, tmp_path):
    from dataclasses import replace

    task = replace(examples.sid_tasks[0], held_out=np.zeros(len(examples.sid_tasks[0].leaf), bool))
    learner = Seq2SeqLearner(config(steps=12))
    figures = learner.fit("cooccurrence", replace(examples, sid_tasks=(task,)), tmp_path, SilentProgress())
    assert figures["steps"] == 12 and "held_out_nll" not in figures
    assert learner.trained().served[0].tolist() == [1.0, 1.0, 1.0]


def test_a_finished_stage_is_not_trained_again(examples, straight, tmp_path):
    first = Seq2SeqLearner(config())
    first.fit("cooccurrence", examples, tmp_path, SilentProgress())
    again = Seq2SeqLearner(config())
    again.fit("cooccurrence", examples, tmp_path, ActsAt(61, kill))
    assert_same_weights(again, first)


def test_sigkill_at_any_moment_loses_nothing(examples, straight, tmp_path):
    child = os.fork()
    if not child:
        try:
            Seq2SeqLearner(config(checkpoint_every=1)).fit(
                "cooccurrence", examples, tmp_path, SilentProgress()
            )
        finally:
            os._exit(0)
    checkpoint = tmp_path / "cooccurrence" / "training.json"
    deadline = time.monotonic() + 30
    while not (checkpoint.exists() and json.loads(checkpoint.read_text())["step"] >= 15):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert 15 <= json.loads(checkpoint.read_text())["step"] < 60
    resumed = Seq2SeqLearner(config(checkpoint_every=1))
    resumed.fit("cooccurrence", examples, tmp_path, SilentProgress())
    assert_same_weights(resumed, straight[0])
