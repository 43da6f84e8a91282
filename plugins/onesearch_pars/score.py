"""S_rel: how relevant an item is to a query, in (0, 1), whatever shoppers did.

``S_rel = σ(w · x + b)`` over how words and vectors match, and whether it is the kind
of thing that was asked for (:data:`~onesearch_pars.features.RELEVANT`), w ≥ 0.
Where there are judgements it is fitted to their grades by binary cross-entropy; where there are none, w are
the list-wise score's defaults, standardised so that S_rel is ½ for a middling candidate of a list and
spreads from there. Another score can stand in its place: :class:`Relevance` is all that the reward asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onesearch_pars.features import FEATURES, RELEVANT
from onesearch_pars.measures import pairwise, ragged_ndcg

ENOUGH = 200
"""Judged pairs from which on they are learnt from."""
FOLDS = 3
_DEFAULTS = np.array([feature.default for feature in FEATURES if feature.name in RELEVANT])


@dataclass(frozen=True)
class Relevance:
    """A fitted score.

    Attributes:
        weights: f32[M], of :data:`RELEVANT`. bias: added to the weighted sum.
    """

    weights: np.ndarray
    bias: float

    def __call__(self, matching: np.ndarray) -> np.ndarray:
        """f32[…, M] → f32[…] in (0, 1)."""
        logits = np.clip(matching @ self.weights + np.float32(self.bias), -15, 15)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


@dataclass(frozen=True)
class Judged:
    """J pairs: matching f32[J, M], grade f32[J] in [0, 1], query i64[J], weight f32[J], judged bool[J].

    What is not ``judged`` is taken for irrelevant, and learnt from only.
    """

    matching: np.ndarray
    grade: np.ndarray
    query: np.ndarray
    weight: np.ndarray
    judged: np.ndarray

    @classmethod
    def none(cls) -> Judged:
        """Nothing."""
        empty = np.zeros(0, np.float32)
        matching = np.zeros((0, len(RELEVANT)), np.float32)
        return cls(matching, empty, np.zeros(0, np.int64), empty, np.zeros(0, bool))

    def only(self, keep: np.ndarray) -> Judged:
        """The pairs of a mask."""
        return Judged(
            self.matching[keep], self.grade[keep], self.query[keep], self.weight[keep], self.judged[keep]
        )


def fit_relevance(judged: Judged, candidates: np.ndarray, l2: float) -> tuple[Relevance, dict[str, Any]]:
    """The score and its figures.

    Args:
        judged: of any number. candidates: f32[n, M], matching of candidates as they come.
        l2: pull of the standardised weights towards the defaults.

    Returns:
        Figures: ``source`` (judgements or match), ``judged``, and, cross-validated over queries where it is
        fitted, ``ndcg_10`` and ``pairwise`` accuracy on the judged pairs; ``…_match`` of the defaults.
    """
    plain = _standard(candidates)
    known = judged.judged
    figures: dict[str, Any] = {"judged": int(known.sum())}
    if known.any():
        figures |= {
            f"{name}_match": value for name, value in _quality(plain(judged.matching), judged).items()
        }
    if known.sum() < ENOUGH or not np.ptp(judged.grade[known]):
        return plain, figures | {"source": "match"}
    scores = np.zeros(len(judged.grade), np.float32)
    for fold in range(FOLDS):
        held = judged.query % FOLDS == fold
        if held.any() and not held.all():
            scores[held] = _fit(judged.only(~held), plain, l2)(judged.matching[held])
    return _fit(judged, plain, l2), figures | {"source": "judgements"} | _quality(scores, judged)


def _standard(candidates: np.ndarray) -> Relevance:
    """The defaults, centred and scaled on candidates."""
    if not len(candidates):
        return Relevance(_DEFAULTS.astype(np.float32), 0.0)
    sums = candidates @ _DEFAULTS
    spread = float(sums.std()) or 1.0
    return Relevance((_DEFAULTS / spread).astype(np.float32), -float(np.mean(sums)) / spread)


def _fit(judged: Judged, start: Relevance, l2: float) -> Relevance:
    from scipy.optimize import minimize  # learning only

    scale = np.maximum(judged.matching.std(axis=0, dtype=np.float64), 1e-3)
    rows = judged.matching / scale
    pulled = start.weights * scale
    weight = judged.weight / judged.weight.sum()

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        logits = rows @ found[:-1] + found[-1]
        fit = weight @ (np.logaddexp(0, logits) - judged.grade * logits)
        slope = weight * (1 / (1 + np.exp(-logits)) - judged.grade)
        away = found[:-1] - pulled
        return float(fit + l2 * away @ away), np.append(slope @ rows + 2 * l2 * away, slope.sum())

    bounds = [(0.0, None)] * len(scale) + [(None, None)]
    first = np.append(pulled, start.bias)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x
    return Relevance((found[:-1] / scale).astype(np.float32), float(found[-1]))


def _quality(scores: np.ndarray, judged: Judged) -> dict[str, float]:
    own, told = judged.only(judged.judged), scores[judged.judged]
    return {
        "ndcg_10": ragged_ndcg(told, own.grade, own.query),
        "pairwise": pairwise(told, own.grade, own.query),
    }
