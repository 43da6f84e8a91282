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

FOLDS = 3


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
        # A query that was searched often has many equal lists: one of them, counted so often, will do.
        first, times, of_query = _different(lists)
        queries = [lists.queries[row] for row in first]
        found = Candidates(lists.candidates.items[first], lists.candidates.log_probs[first])
        gain, mask = lists.gain[first], found.items >= 0
        features = _features(maker, queries, lists.query_vecs[first], found, progress)
        defaults = np.array([feature.default for feature in FEATURES])
        ranked = np.full(mask.shape, -np.inf, dtype=np.float32)
        with progress.task("fitting the reward's weights", total=FOLDS + 1) as task:
            for fold in range(FOLDS):
                held = of_query % FOLDS == fold
                part = fit_weights(
                    features[~held], mask[~held], gain[~held], defaults, settings.l2, times[~held]
                )
                ranked[held] = features[held] @ part.weights
                task.advance()
            final = fit_weights(features, mask, gain, defaults, settings.l2, times)
            task.advance()
        evidence = Evidence.build(lists.pairs if lists.serving_pairs is None else lists.serving_pairs)
        self.fitted = Fitted(settings.language, final.weights, fields, evidence)
        return {
            "lists": len(lists.queries),
            "recall_10_generator": _recall(found.log_probs, mask, gain, times),
            "recall_10": _recall(ranked, mask, gain, times),
            "loss_default": final.loss_default,
            "loss": final.loss,
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


def _different(lists: RankedLists) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of lists that differ in query, candidates or gain, how often each occurs, and its query's number.

    Shoppers who ask for the same get lists of their own, or equal ones with gains of their own.
    """
    numbers = np.unique(lists.queries, return_inverse=True)[1].reshape(-1)
    rows: dict[tuple[int, bytes], list[int]] = {}
    for row in np.argsort(numbers, kind="stable").tolist():
        arrays = (lists.candidates.items, lists.candidates.log_probs, lists.gain)
        same = b"".join(array[row].tobytes() for array in arrays)
        rows.setdefault((int(numbers[row]), same), []).append(row)
    first = np.array([equal[0] for equal in rows.values()], np.int64)
    return first, np.array([len(equal) for equal in rows.values()], np.int64), numbers[first]


def _features(
    maker: FeatureMaker, queries: list[str], query_vecs: np.ndarray, found: Candidates, progress: Progress
) -> np.ndarray:
    features = np.zeros((*found.items.shape, len(FEATURES)), dtype=np.float32)
    with progress.task("reward features", total=len(queries)) as task:
        for row in range(len(queries)):
            one = slice(row, row + 1)
            alone = Candidates(found.items[one], found.log_probs[one])
            features[one] = maker.features(queries[one], query_vecs[one], alone)
            task.advance()
    return features


def _recall(scores: np.ndarray, mask: np.ndarray, gain: np.ndarray, times: np.ndarray, k: int = 10) -> float:
    """Mean share of a list's good candidates that stand among the first k, over lists that have any."""
    good = mask & (gain > 0)
    lists = good.any(axis=1)
    if not lists.any():
        return float("nan")
    first = np.argsort(-np.where(mask, scores, -np.inf)[lists], axis=1, kind="stable")[:, :k]
    share = np.take_along_axis(good[lists], first, axis=1).sum(axis=1) / good[lists].sum(axis=1)
    return float(np.average(share, weights=times[lists]))
