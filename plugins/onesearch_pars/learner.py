"""The learning half of the relevance reward."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from onesearch.contracts.reward import Candidates, RewardLearner
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from pydantic import BaseModel

from onesearch_pars.artifact import Fitted
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, FeatureMaker, Fields
from onesearch_pars.fitting import fit_weights
from onesearch_pars.text import Analyser

if TYPE_CHECKING:
    from onesearch.training.lists import RankedLists

FOLDS = 5


class RelevanceLearner(RewardLearner):
    """Fits one weight a feature on the generator's own lists for queries that nothing was trained on."""

    Config = RelevanceConfig

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.settings = RelevanceConfig.model_validate(config.model_dump())
        self.fitted: Fitted | None = None

    def fit(self, lists: RankedLists, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit and cross-validate.

        Returns:
            Figures: the loss before and after, and recall among the first ten of what the beams reached, in
            the generator's order and (weights fitted on other queries) in the reward's.
        """
        settings, analyser = self.settings, Analyser(self.settings.language)
        with progress.task("indexing items' words"):
            fields = Fields.build(lists.items, analyser, settings.k1, settings.b)
        maker = FeatureMaker(analyser, fields, Evidence.build(lists.pairs), lists.vectors, lists.popularity)
        with progress.task("reward features", total=len(lists.queries)) as task:
            features = np.zeros((*lists.candidates.items.shape, len(FEATURES)), dtype=np.float32)
            for row in range(len(lists.queries)):
                one = slice(row, row + 1)
                features[one] = maker.features(
                    lists.queries[one],
                    lists.query_vecs[one],
                    Candidates(lists.candidates.items[one], lists.candidates.log_probs[one]),
                )
                task.advance()
        mask = lists.candidates.items >= 0
        defaults = np.array([feature.default for feature in FEATURES])
        with progress.task("fitting the reward's weights", total=FOLDS + 1) as task:
            ranked = np.zeros(mask.shape, dtype=np.float32)
            fold = np.unique(lists.queries, return_inverse=True)[1] % FOLDS
            for held in range(FOLDS):
                rows = fold != held
                part = fit_weights(features[rows], mask[rows], lists.gain[rows], defaults, settings.l2)
                ranked[~rows] = features[~rows] @ part.weights
                task.advance()
            final = fit_weights(features, mask, lists.gain, defaults, settings.l2)
            task.advance()
        evidence = Evidence.build(lists.pairs if lists.serving_pairs is None else lists.serving_pairs)
        self.fitted = Fitted(settings.language, final.weights, fields, evidence)
        by_generator = np.where(mask, lists.candidates.log_probs, -np.inf)
        return {
            "lists": len(lists.queries),
            "loss_default": final.loss_default,
            "loss": final.loss,
            "recall_10_generator": _recall(by_generator, mask, lists.gain),
            "recall_10": _recall(np.where(mask, ranked, -np.inf), mask, lists.gain),
            "weights": {f.name: float(w) for f, w in zip(FEATURES, final.weights, strict=True)},
        }

    def save(self, folder: Path) -> None:
        """Write the files of :mod:`onesearch_pars.artifact`."""
        if self.fitted is None:
            raise OneSearchError("the relevance reward has to be fitted before it can be saved")
        self.fitted.save(folder)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote."""
        learner = cls(config)
        learner.fitted = Fitted.load(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write the files of :mod:`onesearch_pars.artifact`; there is no graph."""
        self.save(folder)


def _recall(scores: np.ndarray, mask: np.ndarray, gain: np.ndarray, k: int = 10) -> float:
    """Mean share of a list's good candidates that stand among the first k, over lists that have any."""
    good = mask & (gain > 0)
    lists = good.any(axis=1)
    if not lists.any():
        return float("nan")
    first = np.argsort(-scores[lists], axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(good[lists], first, axis=1).sum(axis=1)
    return float((found / good[lists].sum(axis=1)).mean())
