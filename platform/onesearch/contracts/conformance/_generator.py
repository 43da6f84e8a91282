"""What generators promise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from onesearch.contracts.conformance._common import TEXTS, Answers, ComponentSuite, shaped
from onesearch.contracts.conformance._world import LEVELS, ODD_TEXTS, embed
from onesearch.contracts.generator import (
    GeneratorLearner,
    GeneratorServer,
    Guide,
    Phase,
    SearchResult,
    Stage,
)
from onesearch.contracts.user_encoder import Prompt
from onesearch.index import CatalogueIndex, LiveTree
from onesearch.progress import SilentProgress
from onesearch.training.examples import Examples, Histories, SidTask
from onesearch.training.preferences import Preferences, Ranked

if TYPE_CHECKING:
    import torch

BEAMS = 16
HISTORY = (2, 4)
"""F and D of the histories that user modules are tried with."""
STAGES: tuple[Stage, ...] = ("alignment", "cooccurrence")


class GeneratorSuite(ComponentSuite):
    """Only legal, live SIDs; falling log-probabilities that are a distribution; a true certificate."""

    def fit(self, learner: GeneratorLearner, work: Path) -> Any:
        """Run the first two stages on the world's examples."""
        examples = self.world.examples()
        return {stage: learner.fit(stage, examples, work / stage, SilentProgress()) for stage in STAGES}

    def answers(self, server: GeneratorServer, texts: Sequence[str]) -> Answers:
        """The search result's arrays."""
        found = self._search(server, texts)
        return {"leaves": found.leaves, "log_probs": found.log_probs, "dropped": found.dropped,
                "dropped_mass": found.dropped_mass, "branches": found.branches}  # fmt: skip

    def _search(
        self,
        server: GeneratorServer,
        texts: Sequence[str],
        tree: LiveTree | None = None,
        beams: int = BEAMS,
        guide: Guide = "guided",
        certify: int = 0,
    ) -> SearchResult:
        return server.search(
            self.world.prompt(texts), embed(texts), tree or self.world.index.live, beams, guide, certify
        )

    @property
    def _server(self) -> GeneratorServer:
        return cast(GeneratorServer, self.subject.server)

    def check_results(self) -> None:
        """Shapes, dtypes; different legal leaves; log-probabilities ≤ 0 that never rise; with every guide."""
        tree = self.world.index.live.tree
        for guide in get_args(Guide):
            for texts in (TEXTS, ODD_TEXTS, ()):
                found = self._search(self._server, texts, guide=guide)
                count = len(texts)
                shaped("leaves", found.leaves, (count, None), np.int32)
                shaped("log_probs", found.log_probs, found.leaves.shape, np.float32)
                shaped("dropped", found.dropped, (count,), np.float32)
                shaped("dropped_mass", found.dropped_mass, (count,), np.float32)
                shaped("branches", found.branches, (count, tree.depth), np.int32)
                assert found.leaves.shape[1] <= BEAMS, f"{found.leaves.shape[1]} results from {BEAMS} beams"
                _ordered(found, tree.leaf_count)

    def check_withdrawn_items(self) -> None:
        """A leaf without a live item is never returned; with nothing alive, nothing is."""
        index = self.world.index
        alive = np.arange(len(index)) % 3 == 0
        for mask in (alive, np.zeros_like(alive)):
            found = self._search(self._server, TEXTS, index.live.narrowed(mask, index.popularity), 64)
            dead = ~np.isfinite(index.live.narrowed(mask, index.popularity).log_mass[-1])
            leaves = found.leaves[found.leaves >= 0]
            assert not dead[leaves].any(), "a leaf without a live item was returned"
            assert len(leaves) or not mask.any(), "nothing was found though items are alive"

    def check_distribution(self) -> None:
        """With beams for every SID nothing is dropped, and probabilities sum to one."""
        count = self.world.index.live.tree.leaf_count
        for guide in get_args(Guide):
            found = self._search(self._server, TEXTS, beams=count, guide=guide)
            assert (found.leaves >= 0).sum(axis=1).tolist() == [count] * len(TEXTS), (
                "a legal SID was not found"
            )
            assert np.isneginf(found.dropped).all() and np.isneginf(found.dropped_mass).all(), (
                "something was dropped"
            )
            mass = np.exp(found.log_probs.astype(np.float64)).sum(axis=1)
            assert np.allclose(mass, 1, atol=1e-2), f"guide {guide}: probabilities sum to {mass}"

    def check_certificate(self) -> None:
        """What the certificate calls exact is exact, and the bound on what is missing holds."""
        whole = self._search(self._server, TEXTS, beams=self.world.index.live.tree.leaf_count)
        for beams in (4, BEAMS):
            found = self._search(self._server, TEXTS, beams=beams)
            for row in range(len(TEXTS)):
                for k in range(1, int((found.leaves[row] >= 0).sum()) + 1):
                    last = found.log_probs[row, k - 1]
                    ahead = set(whole.leaves[row][whole.log_probs[row] > last + 1e-3].tolist())
                    missing = len(ahead - set(found.leaves[row, :k].tolist()))
                    assert last < found.dropped[row] or not missing, (
                        f"top {k} called exact, {missing} are missing"
                    )
                    bound = np.floor(np.exp(min(float(found.dropped_mass[row] - last), 50.0)) + 1e-3)
                    assert missing <= bound, (
                        f"{missing} are missing from the top {k}, the bound says {bound:.0f}"
                    )

    def check_certify(self) -> None:
        """A search that stops before it has taken all beams has proven what it was to prove."""
        count = self.world.index.live.tree.leaf_count
        whole = self._search(self._server, TEXTS, beams=count)
        for k in (1, 4, count):
            found = self._search(self._server, TEXTS, beams=count, certify=k)
            widths = np.full(len(TEXTS), count) if found.widths is None else found.widths
            assert (widths <= count).all(), f"widths {widths} of {count} beams"
            for row in np.flatnonzero(widths < count):
                proven = np.isneginf(found.dropped_mass[row]) or (
                    found.log_probs.shape[1] >= k and found.log_probs[row, k - 1] >= found.dropped[row]
                )
                assert proven, f"stopped with {widths[row]} beams, and the top {k} is not proven"
            shown = min(k, found.log_probs.shape[1])
            assert np.allclose(found.log_probs[:, :shown], whole.log_probs[:, :shown], atol=1e-3), (
                f"the top {k} is not the best"
            )

    def check_batch_does_not_matter(self) -> None:
        """A request's results do not depend on the requests beside it."""
        whole = self._search(self._server, TEXTS)
        for row, text in enumerate(TEXTS):
            alone = self._search(self._server, [text]).log_probs[0]
            width = min(len(alone), whole.log_probs.shape[1])
            close = np.allclose(whole.log_probs[row, :width], alone[:width], atol=1e-3)
            assert close, f"results of {text!r} change with the batch"

    def check_padding_does_not_matter(self) -> None:
        """Neither do positions without a token: a prompt padded further finds what it found."""
        whole, prompt = self._search(self._server, TEXTS), self.world.prompt(TEXTS)
        wider = Prompt(
            np.pad(prompt.ids, ((0, 0), (0, 9))), np.pad(prompt.mask, ((0, 0), (0, 9))), prompt.prefix
        )
        padded = self._server.search(wider, embed(TEXTS), self.world.index.live, BEAMS)
        close = np.allclose(whole.log_probs, padded.log_probs, atol=1e-3)
        assert close, "results change with padding"

    def check_prefix(self) -> None:
        """Prefix vectors are read where :attr:`prefix_width` says so, few or many of them; each request only
        its own."""
        width = cast(GeneratorLearner, self.subject.learner).prefix_width
        if not width:
            return
        prompt, vectors = self.world.prompt(TEXTS), embed(TEXTS)
        live, random = self.world.index.live, np.random.default_rng(0)
        without = self._search(self._server, TEXTS)
        for count in (1, 3):
            prefix = random.normal(size=(len(TEXTS), count, width)).astype(np.float32)
            found = self._server.search(Prompt(prompt.ids, prompt.mask, prefix), vectors, live, BEAMS)
            _ordered(found, live.tree.leaf_count)
            for row in range(len(TEXTS)):
                one = slice(row, row + 1)
                asked = Prompt(prompt.ids[one], prompt.mask[one], prefix[one])
                alone = self._server.search(asked, vectors[one], live, BEAMS).log_probs[0]
                close = np.allclose(found.log_probs[row, : len(alone)], alone, atol=1e-3)
                assert close, f"results of {TEXTS[row]!r} with {count} prefix vectors change with the batch"
        again = self._search(self._server, TEXTS)
        assert np.array_equal(again.log_probs, without.log_probs), "a prefix changes later requests"

    def check_user_module(self) -> None:
        """A learner that reads prefix vectors trains the module that makes them, and leaves it in eval mode
        with finite weights; without histories it leaves it alone."""
        learner = cast(GeneratorLearner, self.subject.load(self.subject.saved))
        if not learner.prefix_width:
            return
        import torch  # learners need it; this module itself is imported where there is none

        for known in (True, False):
            examples, module = self.world.examples(), _reader(learner.prefix_width)
            before = [parameter.detach().clone() for parameter in module.parameters()]
            if known:
                examples = replace(examples, sid_tasks=tuple(map(_with_histories, examples.sid_tasks)))
            work = self.subject.folder / "personal" / f"known-{known}"
            learner.fit("personalisation", examples, work, SilentProgress(), module)
            after = [parameter.detach().cpu() for parameter in module.parameters()]
            assert not module.training, "the user module is left in training mode"
            assert all(bool(torch.isfinite(weight).all()) for weight in after), "a weight is not finite"
            if not known:
                assert all(map(torch.equal, before, after)), "a module that read nothing has changed"

    def check_preferences(self) -> None:
        """A learner that learns preferences does so from ranked lists with padding, by either phase, and
        serves as before: a distribution over legal SIDs, another one than it was."""
        learner = cast(GeneratorLearner, self.subject.load(self.subject.saved))
        if not learner.learns_preferences:
            return
        examples = self.world.examples()
        before = self._search(self._server, TEXTS)
        for phase in get_args(Phase):
            work = self.subject.folder / "preferring" / phase
            told = learner.prefer(phase, _preferences(examples), examples, work, SilentProgress())
            json.dumps(told)
            assert np.isfinite(told["kl"]) and told["kl"] > -0.1, f"KL is {told['kl']}"
        folder = self.subject.folder / "preferring" / "exported"
        learner.export(folder)
        server = cast(GeneratorServer, self.subject.open(folder))
        found = self._search(server, TEXTS)
        _ordered(found, self.world.index.live.tree.leaf_count)
        same = np.array_equal(found.log_probs, before.log_probs)
        assert not same, "preference learning changed nothing that is served"

    def check_new_items(self) -> None:
        """A tree with an item more is searched without learning or exporting anything again."""
        index = self.world.index
        sid = next(sid for sid in np.ndindex(*LEVELS) if index.live.tree.find(sid) < 0)
        grown = CatalogueIndex.build(
            index.items.vstack(
                index.items.head(1).with_columns(item_id=index.items["item_id"].head(1) + "-new")
            ),
            np.vstack([index.sids, sid]),
            np.vstack([index.vectors, index.vectors[:1]]),
            np.append(index.popularity, 5.0),
            LEVELS,
        ).live
        found = self._search(self._server, TEXTS, grown, grown.tree.leaf_count)
        new = int(grown.tree.find_leaves(np.array([sid]))[0])
        assert (found.leaves == new).any(axis=1).all(), "the new item is not found with beams for every SID"


def _preferences(examples: Examples) -> Preferences:
    """A list for each example of the first SID task: its target is preferred to one leaf, or to three."""
    task = examples.sid_tasks[0]
    count, leaves = len(task.leaf), examples.tree.tree.leaf_count
    losers = (task.leaf[:, None] + np.array([1, 5, 11])) % leaves
    losers[::2, 1:] = -1
    rewards = np.where(losers >= 0, 0.5, 0.0).astype(np.float32)
    winner_reward = np.ones(count, np.float32)
    ranked = Ranked(np.arange(count), task.leaf, losers.astype(np.int32), winner_reward, rewards)
    return Preferences(ranked, task.prompts, task.vector, examples.vectors, task.weight, task.held_out)


def _reader(width: int) -> torch.nn.Module:
    """A user module: one prefix vector, linear in the history."""
    import torch

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.read = torch.nn.Linear(HISTORY[0] * HISTORY[1], width)

        def forward(self, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """history f32[B, F, D], mask bool[B, F] → f32[B, 1, width]."""
            assert history.dtype == torch.float32 and mask.dtype == torch.bool, "histories are f32 and bool"
            assert history.shape[1:] == HISTORY and mask.shape == history.shape[:2], "shapes of histories"
            prefix: torch.Tensor = self.read((history * mask[..., None]).flatten(1))
            return prefix[:, None]

    return Reader()


def _with_histories(task: SidTask) -> SidTask:
    """The task, asked by shoppers of three histories; nothing is known of the third."""
    values = np.random.default_rng(0).normal(size=(3, *HISTORY)).astype(np.float16)
    mask = np.array([[True, True], [True, False], [False, False]])
    values[~mask] = 0
    row = (np.arange(len(task.leaf)) % 3).astype(np.int32)
    return replace(task, histories=Histories(values, mask, row))


def _ordered(found: SearchResult, leaf_count: int) -> None:
    for leaves, scores in zip(found.leaves, found.log_probs, strict=True):
        real = leaves >= 0
        assert (leaves < leaf_count).all() and (leaves >= -1).all(), "a leaf is not of the tree"
        assert (real[1:] <= real[:-1]).all(), "a result stands behind the last one"
        assert len(set(leaves[real].tolist())) == real.sum(), "a leaf is returned twice"
        assert np.isneginf(scores[~real]).all() and np.isfinite(scores[real]).all(), (
            "-inf marks what is not there"
        )
        assert (scores[real] <= 1e-4).all(), "a log-probability is above 0"
        assert (np.diff(scores[real]) <= 0).all(), "log-probabilities rise"
    assert (found.dropped_mass >= found.dropped - 1e-4).all(), (
        "the mass dropped is less than the best dropped"
    )
