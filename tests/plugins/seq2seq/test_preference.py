"""List-wise DPO: literal numbers, signs of gradients, and a phase of it on a toy."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import UsageError
from onesearch.progress import SilentProgress
from onesearch.training.examples import Histories
from onesearch.training.preferences import Preferences, Ranked
from onesearch_seq2seq.config import Seq2SeqConfig, StageConfig
from onesearch_seq2seq.learner import Seq2SeqLearner
from onesearch_seq2seq.preference import PreferenceConfig, PreferenceTrainer
from onesearch_seq2seq.preference_loss import pair_weights, printed, printed_weights, s_dpo
from onesearch_seq2seq.preference_paths import Asked, Policy, decode_lists, divergence
from onesearch_seq2seq.scoring import TreeTables, branchings, path_log_probs
from torch import nn

ALL = torch.ones(1, 2, dtype=torch.bool)


def told(winner: float, losers: list[float], log_prob: float = 0.0) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(part, requires_grad=True) for part in ([winner], [losers], [log_prob]))


# -- the formulas ------------------------------------------------------------------------------------------


def test_s_dpo_by_hand() -> None:
    winner, losers, log_prob = told(1.0, [0.5, -1.0], -2.0)
    weights = torch.tensor([[2.0, 1.0]])
    # δ = 0.1: w·(r̂_l − r̂_w + δ) = 2·(−0.4) = −0.8 and −1.9; Σ exp = 0.449329 + 0.149569 = 0.598898.
    # −log σ(−log 0.598898) = log(1 + 0.598898) = 0.469315; minus 0.05·(−2).
    loss = s_dpo(winner, losers, ALL, weights, 0.1, log_prob, 0.05)
    assert loss.item() == pytest.approx(math.log(1.598898) + 0.1, rel=1e-5)
    # Of padding nothing counts: the first negative alone.
    alone = s_dpo(winner, losers, torch.tensor([[True, False]]), weights, 0.1, log_prob, 0.0)
    assert alone.item() == pytest.approx(math.log(1.449329), rel=1e-5)


def test_with_one_negative_and_no_margin_it_is_plain_dpo() -> None:
    winner, losers, log_prob = told(0.3, [0.7])
    loss = s_dpo(winner, losers, ALL[:, :1], torch.ones(1, 1), 0.0, log_prob, 0.0)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-(0.3 - 0.7)))), rel=1e-5)


def test_printed_by_hand() -> None:
    winner, losers, log_prob = told(1.0, [0.5, -1.0], -2.0)
    # 2·max(0, 0.4) = 0.8 and 1·max(0, 1.9) = 1.9: log(2.225541 + 6.685894) = 2.187345;
    # −log σ(2.187345) = log(1 + 1/8.911435) = 0.106322; plus 0.05·(−2).
    loss = printed(winner, losers, ALL, torch.tensor([[2.0, 1.0]]), 0.1, log_prob, 0.05)
    assert loss.item() == pytest.approx(math.log(1 + 1 / 8.911435) - 0.1, rel=1e-5)


def test_weights_by_hand() -> None:
    winner, losers = torch.tensor([2.0]), torch.tensor([[1.75, 1.0, -2.0, 2.0, 3.0]])
    # Apart by 0.25, 1, 4, 0 and −1; the last two count as ε = 0.25: 1 + 0.25^−1.5 = 9.
    expected = [9.0, 2.0, 1.125, 9.0, 9.0]
    assert pair_weights(winner, losers, 0.25, 99.0)[0].tolist() == pytest.approx(expected)
    assert pair_weights(winner, losers, 0.25, 4.0)[0].tolist() == pytest.approx([4.0, 2.0, 1.125, 4.0, 4.0])
    assert printed_weights(winner, losers)[0].tolist() == [4.0, 1.0, 0.25, math.inf, -1.0], "singular"


@given(
    st.floats(-5, 5), st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 1), st.floats(-20, 0)
)
def test_s_dpo_pushes_the_positive_up_and_every_negative_down(winner, losers, margin, log_prob) -> None:
    w, l, p = told(winner, losers, log_prob)  # noqa: E741
    mask = torch.ones(1, len(losers), dtype=torch.bool)
    s_dpo(w, l, mask, torch.full((1, len(losers)), 2.0), margin, p, 0.05).sum().backward()
    assert w.grad is not None and l.grad is not None and p.grad is not None
    assert w.grad.item() < 0, "a higher implicit reward of the positive lowers the loss"
    assert (l.grad > 0).all(), "a higher one of any negative raises it, separated or not"
    assert p.grad.item() == pytest.approx(-0.05), "the positive's own likelihood is wanted"


def test_what_is_wrong_with_the_printed_form() -> None:
    # A negative not yet separated by δ has no gradient: there is nothing to learn from where it matters.
    w, l, p = told(0.0, [0.5, 0.05])  # noqa: E741
    printed(w, l, ALL, torch.ones(1, 2), 0.1, p, 0.0).sum().backward()
    assert w.grad is not None and w.grad.item() == 0 and l.grad is not None and not l.grad.any()
    # Where one is separated and one is not, all of the gradient goes to the separated one.
    w, l, p = told(0.0, [0.5, -2.0])  # noqa: E741
    printed(w, l, ALL, torch.ones(1, 2), 0.1, p, 0.0).sum().backward()
    assert l.grad is not None and l.grad[0, 0] == 0 and l.grad[0, 1] > 0
    # Minimised, the last term as printed lowers the positive's likelihood.
    w, l, p = told(0.0, [0.5, 0.5])  # noqa: E741
    printed(w, l, ALL, torch.ones(1, 2), 0.1, p, 0.05).sum().backward()
    assert p.grad is not None and p.grad.item() == pytest.approx(0.05)
    # The other form learns from the same lists.
    w, l, p = told(0.0, [0.5, 0.05])  # noqa: E741
    s_dpo(w, l, ALL, torch.ones(1, 2), 0.1, p, 0.0).sum().backward()
    assert w.grad is not None and w.grad.item() < 0 and l.grad is not None and (l.grad > 0).all()


def test_padding_of_equal_rewards_gives_no_nan() -> None:
    for loss, weights in (
        (printed, printed_weights(torch.tensor([0.0]), torch.tensor([[-1.0, 0.0]]))),
        (s_dpo, pair_weights(torch.tensor([0.0]), torch.tensor([[-1.0, 0.0]]), 0.1, 4.0)),
    ):
        w, l, p = told(1.0, [0.5, 0.0])  # noqa: E741
        value = loss(w, l, torch.tensor([[True, False]]), weights, 0.1, p, 0.05)
        value.sum().backward()
        assert value.isfinite().all() and l.grad is not None and l.grad.isfinite().all()


# -- likelihoods of lists ----------------------------------------------------------------------------------


@pytest.fixture
def asked_of(network, world):
    """A network, its tree, and prompts that ask it something."""
    levels = (6, 5, 4)
    index = world.make_index(world.random_sids(levels, 40, 2), levels)
    net = network(levels)
    policy = Policy(net.model).eval()
    tables = TreeTables.of(index.live, torch.device("cpu"))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    ids = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(1)) * mask
    query = torch.randn(2, world.dim, generator=torch.Generator().manual_seed(2))
    return policy, tables, Asked(ids, mask, query / query.norm(dim=1, keepdim=True))


@torch.no_grad()
def test_many_sids_of_a_prompt_are_as_likely_as_one_by_one(asked_of) -> None:
    policy, tables, asked = asked_of
    leaves = torch.tensor([[0, 7, 3, -1], [5, 5, 11, 2]])
    found = policy.log_probs(tables, asked, leaves)
    assert found[0, 3] == 0 and (found[leaves >= 0] < 0).all()
    for row, column in ((0, 0), (0, 2), (1, 1), (1, 3)):
        memory, bias = policy.model.encode(asked.ids[row : row + 1], asked.mask[row : row + 1])
        leaf = leaves[row, column : column + 1]
        states = policy.model.decode(policy.model.sid_inputs(tables.codes[leaf]), memory, bias)
        choices = branchings(policy.model, tables, states, asked.query[row : row + 1], leaf)
        alone = path_log_probs(choices, policy.model.served[:4], 1).sum()
        assert found[row, column].item() == pytest.approx(alone.item(), abs=1e-4)
    memory, bias = policy.encode(asked)
    states = decode_lists(policy.model, tables.codes[leaves.clamp(min=0)], memory, bias)
    assert states.shape == (2, 4, 3, policy.model.dims.width)


@torch.no_grad()
def test_divergence_is_that_of_the_whole_distributions(asked_of) -> None:
    policy, tables, asked = asked_of
    other = Policy(policy.model, None)
    assert divergence(policy, other, tables, asked, torch.Generator().manual_seed(0)).abs().max() < 1e-5

    import copy

    other = copy.deepcopy(policy)
    other.model.served[0] *= 0.3
    other.model.served[2] *= 0.5
    leaves = torch.arange(len(tables.codes)).expand(2, -1)
    mine = policy.log_probs(tables, asked, leaves).double()
    theirs = other.log_probs(tables, asked, leaves).double()
    assert mine.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    exact = (mine.exp() * (mine - theirs)).sum(dim=1)
    random = torch.Generator().manual_seed(3)
    drawn = torch.stack([divergence(policy, other, tables, asked, random) for _ in range(150)])
    error = drawn.std(dim=0) / 150**0.5
    assert (exact > 0.05).all(), "the two are not far enough apart to tell anything"
    assert ((drawn.mean(dim=0) - exact).abs() < 4 * error + 1e-3).all()


# -- a phase -----------------------------------------------------------------------------------------------

STAGE = PreferenceConfig(
    steps=40, batch_size=16, learning_rate=3e-3, warmup=5, eval_every=10, checkpoint_every=7, patience=9,
    nll_slack=5.0, max_minutes=0,
)  # fmt: skip
CONFIG = Seq2SeqConfig(
    size="tiny", steer_rank=4, text_negatives=64, threads=1, mixed_precision=False,
    cooccurrence=StageConfig(steps=40, batch_size=64, text_batch_size=16, eval_every=20, warmup=10),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(examples, tmp_path_factory):
    learner = Seq2SeqLearner(CONFIG)
    learner.fit("cooccurrence", examples, tmp_path_factory.mktemp("sft"), SilentProgress())
    folder = tmp_path_factory.mktemp("saved")
    learner.save(folder)
    return folder


@pytest.fixture
def model(trained):
    return Seq2SeqLearner.load(trained, CONFIG).trained()


@pytest.fixture(scope="module")
def lists(examples) -> Preferences:
    """For the prompts of every third example: the leaf behind its target is preferred to it and to others."""
    task = examples.sid_tasks[0]
    random = np.random.default_rng(0)
    rows = np.arange(0, len(task.leaf), 3)
    count = examples.tree.tree.leaf_count
    winner = ((task.leaf[rows] + 1) % count).astype(np.int32)
    losers = random.integers(0, count, (len(rows), 5)).astype(np.int32)
    losers[:, 0] = task.leaf[rows]
    losers[losers == winner[:, None]] = -1
    ranked = Ranked(
        np.arange(len(rows)), winner, losers, np.ones(len(rows), np.float32),
        np.where(losers >= 0, 0.2, 0).astype(np.float32),
    )  # fmt: skip
    held_out = np.arange(len(rows)) % 5 == 0
    ones = np.ones(len(rows), np.float32)
    return Preferences(ranked, task.prompts.take(rows), task.vector[rows], examples.vectors, ones, held_out)


def trainer(model, lists, examples, work, stage=STAGE, **more) -> PreferenceTrainer:
    return PreferenceTrainer(model, CONFIG, stage, lists, examples, work, seed=1, **more)


@pytest.fixture(scope="module")
def straight(trained, lists, examples, tmp_path_factory):
    """A phase that nobody disturbs."""
    model = Seq2SeqLearner.load(trained, CONFIG).trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    work = tmp_path_factory.mktemp("phase")
    return model, trainer(model, lists, examples, work).run(SilentProgress()), before, work


def test_it_learns_what_is_preferred(straight) -> None:
    model, figures, before, _ = straight
    first, kept = figures["curve"][0], figures
    assert first["won"] == 0 and first["kl"] == pytest.approx(0, abs=1e-5) and abs(first["positive"]) < 1e-5
    assert kept["held_out_loss"] < first["held_out_loss"]
    assert kept["won"] > 0.7 and kept["ordered"] > kept["ordered_before"] + 0.1
    assert kept["positive"] > 0 and kept["kl"] > 0
    assert [entry["step"] for entry in figures["curve"]] == [0, 10, 20, 30, 40]
    assert figures["judged_on"] == "held-out lists" and figures["stopped_by"] == "steps"
    json.dumps(figures)
    assert not model.training
    for name in ("served", "log_prior", "mass"):
        assert torch.equal(model.state_dict()[name], before[name]), f"{name} is not trained here"


def test_reference_likelihoods_are_computed_once_and_kept(
    straight, lists, examples, trained, tmp_path
) -> None:
    _, _, _, work = straight
    (kept,) = (work / "reference").glob("*.safetensors")
    told = kept.stat().st_mtime_ns
    model = Seq2SeqLearner.load(trained, CONFIG).trained()
    again = trainer(model, lists, examples, work)
    titles: list[str] = []

    class Titles(SilentProgress):
        def task(self, title, total=None):
            titles.append(title)
            return super().task(title, total)

    again.run(Titles())
    assert "reference likelihoods" not in titles and kept.stat().st_mtime_ns == told
    rows = again.rows[:9]
    with torch.no_grad():
        fresh = again._log_probs(again.reference, rows)
    torch.testing.assert_close(again.reference_log_probs[rows], fresh, atol=1e-4, rtol=0)


def test_reference_likelihoods_are_of_the_rows_that_a_short_phase_comes_to(
    model, lists, examples, tmp_path
) -> None:
    short = trainer(model, lists, examples, tmp_path, STAGE.model_copy(update={"steps": 2}))
    figures = short.run(SilentProgress())
    asked = np.union1d(np.concatenate([short._batch(0), short._batch(1)]), short.judged)
    assert len(asked) < len(lists.ranked.source) and np.isfinite(figures["held_out_loss"])
    known = torch.isfinite(short.reference_log_probs).all(dim=1).numpy()
    np.testing.assert_array_equal(np.flatnonzero(known), asked)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", [0, 3, 14, 39])
def test_killed_anywhere_it_ends_in_the_same_weights(
    step, model, straight, lists, examples, trained, tmp_path
):
    one = trainer(model, lists, examples, tmp_path)
    learn = one._learn

    def dies(rows):
        if one.state.step == step:
            raise KilledError
        return learn(rows)

    one._learn = dies  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        one.run(SilentProgress())
    model = Seq2SeqLearner.load(trained, CONFIG).trained()
    figures = trainer(model, lists, examples, tmp_path).run(SilentProgress())
    for name, tensor in straight[0].state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert figures["held_out_loss"] == straight[1]["held_out_loss"]
    assert len(figures["curve"]) == len(straight[1]["curve"])


def test_the_guard_ends_a_phase_that_forgets(model, lists, examples, tmp_path) -> None:
    stage = STAGE.model_copy(update={"learning_rate": 0.05, "keep": 0.0, "nll_slack": 0.02, "steps": 200})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    figures = trainer(model, lists, examples, tmp_path, stage).run(SilentProgress())
    assert figures["stopped_by"] == "guard" and figures["steps"] < 200
    assert figures["curve"][-1]["held_out_nll"] > figures["held_out_nll_before"] + 0.02
    assert figures["held_out_nll"] <= figures["held_out_nll_before"] + 0.02, "what is kept is guarded"
    if figures["best_step"] == 0:
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_printed_form_learns_less_from_the_same_lists(model, straight, lists, examples, tmp_path) -> None:
    stage = STAGE.model_copy(update={"loss": "printed"})
    figures = trainer(model, lists, examples, tmp_path, stage).run(SilentProgress())
    last = figures["curve"][-1]
    assert last["positive"] < straight[1]["curve"][-1]["positive"], "it pushes positives down"
    assert last["ordered"] < straight[1]["curve"][-1]["ordered"]


def test_a_user_module_is_trained_along(model, lists, examples, tmp_path) -> None:
    class Prefixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(6, 64)

        def forward(self, history, mask):
            return self.map(history) * mask[..., None]

    torch.manual_seed(0)
    module = Prefixes()
    before = module.map.weight.detach().clone()
    count = len(lists.prompts)
    random = np.random.default_rng(0)
    histories = Histories(
        random.normal(size=(4, 2, 6)).astype(np.float16),
        np.ones((4, 2), bool),
        np.arange(count, dtype=np.int32) % 4,
    )
    figures = trainer(model, replace(lists, histories=histories), examples, tmp_path, user_module=module).run(
        SilentProgress()
    )
    assert figures["best_step"] > 0 and not torch.equal(module.map.weight, before)
    module.trained = False  # type: ignore[assignment]
    assert trainer(model, lists, examples, tmp_path, user_module=module).policy.user_module is None


def test_dead_leaves_and_lists_of_no_weight_are_left_out(model, lists, examples, tmp_path) -> None:
    alive = np.ones(
        len(examples.tree.item_alive if examples.tree.item_alive is not None else np.zeros(90)), bool
    )
    tree = examples.tree
    dead_leaf = int(lists.ranked.winner[1])
    alive[
        tree.tree.leaf_items[tree.tree.leaf_first_item[dead_leaf] : tree.tree.leaf_first_item[dead_leaf + 1]]
    ] = False
    narrowed = replace(examples, tree=tree.narrowed(alive, np.ones(90, np.float32)))
    weight = lists.weight.copy()
    weight[2] = 0
    made = trainer(model, replace(lists, weight=weight), narrowed, tmp_path)
    assert 1 not in made.rows and 2 not in made.rows
    assert not (made.leaves[made.rows] == dead_leaf).any()


def test_nothing_to_learn_is_told(model, lists, examples, tmp_path) -> None:
    for hopeless in (
        replace(lists, weight=np.zeros_like(lists.weight)),
        replace(lists, held_out=np.ones_like(lists.held_out)),
        replace(lists, ranked=Ranked.of([], 5)),
    ):
        with pytest.raises(UsageError, match="no preferences"):
            trainer(model, hopeless, examples, tmp_path)


def test_without_held_out_lists_and_examples_it_trains_all_the_same(model, lists, examples, tmp_path) -> None:
    tasks = tuple(replace(task, held_out=np.zeros_like(task.held_out)) for task in examples.sid_tasks)
    bare = replace(lists, held_out=np.zeros_like(lists.held_out))
    figures = trainer(model, bare, replace(examples, sid_tasks=tasks), tmp_path).run(SilentProgress())
    assert (
        figures["judged_on"] == "training lists" and figures["held_out_nll"] is None and figures["won"] > 0.6
    )


def test_a_rate_too_high_is_told(model, lists, examples, tmp_path) -> None:
    one = trainer(model, lists, examples, tmp_path)
    with torch.no_grad():
        model.heads[0].weight.fill_(float("nan"))
    with pytest.raises(UsageError, match="diverged"):
        one.run(SilentProgress())
