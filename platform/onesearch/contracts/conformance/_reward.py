"""What rewards promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from onesearch.contracts.conformance._common import TEXTS, Answers, ComponentSuite, shaped
from onesearch.contracts.conformance._world import ODD_TEXTS, embed
from onesearch.contracts.reward import Candidates, RewardLearner, RewardServer
from onesearch.progress import SilentProgress


class RewardSuite(ComponentSuite):
    """Parts that sum to totals; padding stays padding; nothing is added."""

    def fit(self, learner: RewardLearner, work: Path) -> Any:
        """Fit on the world's lists, and on its log where the reward reads it."""
        log = self.world.impressions() if learner.reads_impressions else None
        return learner.fit(self.world.lists(), work, SilentProgress(), log)

    def answers(self, server: RewardServer, texts: Sequence[str]) -> Answers:
        """Totals and parts of some candidates."""
        totals, parts = self._score(server, texts, self.world.candidates(texts))
        return {"totals": totals, "parts": parts}

    def _score(
        self, server: RewardServer, texts: Sequence[str], candidates: Candidates
    ) -> tuple[np.ndarray, np.ndarray]:
        return server.score(texts, embed(texts), self.world.states(len(texts)), candidates)

    @property
    def _server(self) -> RewardServer:
        return cast(RewardServer, self.subject.server)

    def check_scores(self) -> None:
        """Totals f32[B, K], -inf exactly on padding; finite parts f32[B, K, P] that sum to them; P names."""
        names = self._server.parts
        assert names and len(set(names)) == len(names), f"parts are named {names!r}"
        for texts in (TEXTS, ODD_TEXTS, ()):
            candidates = self.world.candidates(texts)
            totals, parts = self._score(self._server, texts, candidates)
            shaped("totals", totals, candidates.items.shape, np.float32)
            shaped("parts", parts, (*candidates.items.shape, len(names)), np.float32)
            real = candidates.items >= 0
            assert np.isneginf(totals[~real]).all(), "padding is scored"
            assert np.isfinite(totals[real]).all() and np.isfinite(parts[real]).all(), "a score is not finite"
            gap = np.abs(parts[real].sum(axis=-1) - totals[real])
            limit = 1e-3 * np.maximum(1, np.abs(totals[real]))
            assert (gap <= limit).all(), f"parts do not sum to totals: {gap.max():.3g} apart"

    def check_without_a_log(self) -> None:
        """A reward that reads impressions makes do without any: not every shop logs them."""
        learner = cast(RewardLearner, self.subject.offer.learner_class()(self.subject.config))
        if not learner.reads_impressions:
            return
        learner.fit(self.world.lists(), self.subject.folder / "no-log-work", SilentProgress(), None)
        folder = self.subject.folder / "no-log"
        learner.export(folder)
        server = cast(RewardServer, self.subject.open(folder))
        totals, _ = self._score(server, TEXTS, self.world.candidates(TEXTS))
        assert np.isfinite(totals).any(), "nothing is scored"

    def check_never_adds(self) -> None:
        """The candidates are left as they are: a reward reorders, it never adds nor removes."""
        candidates = self.world.candidates(TEXTS)
        items, log_probs = candidates.items.copy(), candidates.log_probs.copy()
        self._score(self._server, TEXTS, candidates)
        assert np.array_equal(items, candidates.items), "the reward changed the candidates"
        assert np.array_equal(log_probs, candidates.log_probs), "the reward changed the log-probabilities"

    def check_only_padding(self) -> None:
        """Requests whose beams reached nothing get rows of -inf."""
        nothing = Candidates(np.full((2, 3), -1, dtype=np.int32), np.full((2, 3), -np.inf, dtype=np.float32))
        totals, _ = self._score(self._server, TEXTS[:2], nothing)
        assert totals.shape == (2, 3) and np.isneginf(totals).all(), "padding is scored"

    def check_batch_does_not_matter(self) -> None:
        """A request's scores do not depend on the requests beside it."""
        candidates = self.world.candidates(TEXTS)
        whole, _ = self._score(self._server, TEXTS, candidates)
        states = self.world.states(len(TEXTS))
        for row, text in enumerate(TEXTS):
            one = Candidates(candidates.items[row : row + 1], candidates.log_probs[row : row + 1])
            alone, _ = self._server.score([text], embed([text]), states[row : row + 1], one)
            same = np.allclose(whole[row], alone[0], atol=1e-4, equal_nan=False)
            assert same, f"scores of {text!r} change with the batch"
