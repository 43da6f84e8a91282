"""The list-wise score: one weight a feature, fitted on the generator's own lists for held-out queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import ShopperState
from onesearch.progress import Progress
from onesearch.shoppers.packing import pack
from onesearch.shoppers.tastes import Tastes

from onesearch_pars.config import RelevanceConfig
from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, FeatureMaker, Fields, categories_of
from onesearch_pars.fitting import fit_weights
from onesearch_pars.text import Analyser

if TYPE_CHECKING:
    from onesearch.training.lists import RankedLists

FOLDS = 3


@dataclass(frozen=True)
class ListwiseFit:
    """What a fit found, on the Q lists among all L that differ in query, candidates or gain.

    Attributes:
        like: i64[L], which of the Q each list is equal to.
        features: f32[Q, K, F], of the lists' candidates.
        scores: f32[Q, K], by weights fitted on other queries; -inf on padding.
        weights: f32[F], fitted on all.
        figures: loss, recall among the first ten, weights.
    """

    like: np.ndarray
    features: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    figures: dict[str, Any]


def make_fields(lists: RankedLists, settings: RelevanceConfig, progress: Progress) -> tuple[Analyser, Fields]:
    """The words of the catalogue. Raises ConfigError where there is no such stemmer."""
    analyser = Analyser(settings.language)
    with progress.task("indexing items' words"):
        return analyser, Fields.build(lists.items, analyser, settings.k1, settings.b)


def make_maker(lists: RankedLists, analyser: Analyser, fields: Fields, tastes: Tastes) -> FeatureMaker:
    """Features as they are while fitting: evidence is what the lists may know."""
    evidence = Evidence.build(lists.pairs)
    categories = categories_of(lists.items)
    return FeatureMaker(analyser, fields, evidence, tastes, lists.vectors, lists.popularity, categories)


def fit_listwise(lists: RankedLists, maker: FeatureMaker, l2: float, progress: Progress) -> ListwiseFit:
    """Fit and cross-validate."""
    # A query that was searched often has many equal lists: one of them, counted so often, will do.
    first, like, of_query = different(lists)
    times = np.bincount(like, minlength=len(first))
    queries = [lists.queries[row] for row in first]
    found = Candidates(lists.candidates.items[first], lists.candidates.log_probs[first])
    gain, mask = lists.gain[first], found.items >= 0
    states = [lists.states[row] for row in first]
    features = _features(maker, queries, lists.query_vecs[first], states, found, progress)
    defaults = np.array([feature.default for feature in FEATURES])
    scores = np.full(mask.shape, -np.inf, dtype=np.float32)
    with progress.task("fitting the reward's weights", total=FOLDS + 1) as task:
        for fold in range(FOLDS):
            held = of_query % FOLDS == fold
            part = fit_weights(features[~held], mask[~held], gain[~held], defaults, l2, times[~held])
            scores[held] = features[held] @ part.weights
            task.advance()
        final = fit_weights(features, mask, gain, defaults, l2, times)
        task.advance()
    figures = {
        "lists": len(lists.queries),
        "recall_10_generator": _recall(found.log_probs, mask, gain, times),
        "recall_10": _recall(scores, mask, gain, times),
        "loss_default": final.loss_default,
        "loss": final.loss,
        "weights": {f.name: float(w) for f, w in zip(FEATURES, final.weights, strict=True)},
    }
    return ListwiseFit(like, features, np.where(mask, scores, -np.inf), final.weights, figures)


def serving_evidence(lists: RankedLists) -> Evidence:
    """What the server may know of queries and items."""
    return Evidence.build(lists.pairs if lists.serving_pairs is None else lists.serving_pairs)


def different(lists: RankedLists) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows i64[Q] of lists that differ in query, shopper's state, candidates or gain; which of them each of
    the L lists is equal to, i64[L]; and the number of each one's query, i64[Q].

    Shoppers who ask for the same get lists of their own, or equal ones with gains of their own.
    """
    numbers = np.unique(lists.queries, return_inverse=True)[1].reshape(-1)
    known: dict[tuple[int, bytes], int] = {}
    first: list[int] = []
    like = np.zeros(len(numbers), np.int64)
    arrays = (lists.candidates.items, lists.candidates.log_probs, lists.gain)
    for row in np.argsort(numbers, kind="stable").tolist():
        state = pack(lists.states[row]) if lists.states[row].known else b""
        key = int(numbers[row]), b"".join([*(array[row].tobytes() for array in arrays), state])
        like[row] = known.setdefault(key, len(first))
        if like[row] == len(first):
            first.append(row)
    rows = np.array(first, np.int64)
    return rows, like, numbers[rows]


def _features(
    maker: FeatureMaker,
    queries: list[str],
    query_vecs: np.ndarray,
    states: list[ShopperState],
    found: Candidates,
    progress: Progress,
) -> np.ndarray:
    features = np.zeros((*found.items.shape, len(FEATURES)), dtype=np.float32)
    with progress.task("reward features", total=len(queries)) as task:
        for row in range(len(queries)):
            one = slice(row, row + 1)
            alone = Candidates(found.items[one], found.log_probs[one])
            features[one] = maker.features(queries[one], query_vecs[one], states[one], alone)
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
