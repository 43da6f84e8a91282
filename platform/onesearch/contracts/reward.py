"""The reward's contract: candidates → scores by part, and their total."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onesearch.contracts.offers import Learner, Server
from onesearch.contracts.user_encoder import ShopperState
from onesearch.index import Candidates
from onesearch.progress import Progress

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

__all__ = ["Candidates", "RewardLearner", "RewardServer"]


class RewardLearner(Learner):
    """Learns to order what the beams reached."""

    reads_impressions: bool = False
    """Whether :meth:`fit` is to be given the log: gathering it takes time and memory."""

    @abstractmethod
    def fit(
        self, lists: RankedLists, work: Path, progress: Progress, impressions: Impressions | None = None
    ) -> dict[str, Any]:
        """Fit on candidate lists made by the generator itself for held-out queries; return figures.

        ``impressions`` is what shoppers were shown and did, each as of just before its search; None where
        :attr:`reads_impressions` is false or the log has none to show: then a reward makes do with the lists.
        """


class RewardServer(Server):
    """Scores candidates. Reorders what the beams reached, never adds."""

    parts: tuple[str, ...]
    """Names of the score's parts, in the order of the last axis that :meth:`score` returns."""

    @abstractmethod
    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Totals f32[B, K], -inf on padding; parts f32[B, K, P], weighted, that sum to them."""
