"""The cascade that a shop would have: recall → pre-rank → learned rank (the MCA of the article).

*Recall* joins BM25's best, the nearest by embedding, and what is known for the query. *Pre-rank* keeps the
best of them by ``cosine + 0.05·BM25 + 0.02·log popularity + known``. *Rank* is LightGBM's lambdarank on
similarities, counters and what is known of the shopper (:mod:`onesearch.evaluation.cascade_features`). It is
fitted on the searches that the reward's lists are made of, each with the shopper and the counters of its
moment, so that it knows what the rewards know; the size of its trees is tuned on the newest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import OneSearchError
from onesearch.evaluation.baselines import Parts
from onesearch.evaluation.cascade_features import FEATURES, Features
from onesearch.evaluation.known import Counters
from onesearch.evaluation.lexical import top
from onesearch.evaluation.metrics import DEPTH
from onesearch.progress import Progress

RECALL = 500
"""Items from each recall channel."""
PRE_RANKED = 400
"""Items that pre-rank lets through."""
FITTED_FIRST, FITTED_MORE = 100, 40
"""Of each list the ranker is fitted on: the first, and some drawn from the rest, beside what is relevant."""
HELD_SHARE = 0.2
"""The newest searches, that stop the fit and choose the trees."""
ENOUGH = 10
"""Searches with a relevant candidate, below which pre-rank's order stands."""
_PARAMETERS = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "learning_rate": 0.05,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "verbose": -1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 0,
}
_TREES = (
    {"num_leaves": 7, "min_data_in_leaf": 50},
    {"num_leaves": 15, "min_data_in_leaf": 50},
    {"num_leaves": 31, "min_data_in_leaf": 100},
)
_MOST_ROUNDS = 400
_PATIENCE = 40


class Cascade:
    """Three stages, each cheaper than what follows it is good."""

    personal = True

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self._parts = parts
        self._features = Features(parts)
        self._model, self.tuned = self._fit(progress)

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Items as the last stage orders them, for a shopper or for nobody known."""
        items, features = self.candidates(query, state or ShopperState(), self._parts.known.counters)
        if self._model is None or not len(items):
            return items[:DEPTH]
        scores = np.asarray(self._model.predict(features, num_threads=0))
        return items[np.argsort(-scores, kind="stable")[:DEPTH]]

    def candidates(
        self, query: str, state: ShopperState, counters: Counters
    ) -> tuple[np.ndarray, np.ndarray]:
        """What pre-rank lets through, in its order i32[C], and features f32[C, F]."""
        query_vec = self._parts.known.embed(query)
        cosines = self._parts.known.vectors @ query_vec
        words, stems = self._parts.plain.scores(query), self._parts.stemmed.scores(query)
        known, weights = counters.evidence(query)
        recalled = [top(stems, RECALL, floor=0.0), top(cosines, RECALL), known.astype(np.int32)]
        items = np.unique(np.concatenate(recalled)).astype(np.int32)
        weight = np.zeros(len(items), dtype=np.float32)
        weight[np.searchsorted(items, known)] = weights
        popularity = np.log(counters.popularity[items]).astype(np.float32)
        score = cosines[items] + 0.05 * stems[items] + 0.02 * popularity + np.log1p(weight)
        kept = np.argsort(-score, kind="stable")[:PRE_RANKED]
        items = items[kept]
        scores = cosines[items], words[items], stems[items]
        return items, self._features.of(query, query_vec, state, counters, items, scores, weight[kept])

    def _fit(self, progress: Progress) -> tuple[Any, dict[str, Any]]:
        try:
            import lightgbm
        except ImportError as error:
            raise OneSearchError("the cascade needs LightGBM: pip install 'onesearch[train]'") from error
        rows, labels, times = self._lists(progress)
        if len(rows) < ENOUGH:
            return None, {"searches": len(rows), "rounds": 0}

        def data(at: slice) -> Any:
            return lightgbm.Dataset(
                np.concatenate(rows[at]),
                np.concatenate(labels[at]),
                group=[len(part) for part in rows[at]],
                weight=np.concatenate([np.full(len(r), t) for r, t in zip(rows[at], times[at], strict=True)]),
                feature_name=list(FEATURES),
                free_raw_data=False,
            )

        with progress.task("fitting the cascade's ranker", total=len(_TREES) + 1) as task:
            older = len(rows) - max(1, int(len(rows) * HELD_SHARE))
            learnt, held = data(slice(0, older)), data(slice(older, None))
            best: tuple[float, dict[str, int], int] | None = None
            for trees in _TREES:
                # Bins depend on min_data_in_leaf, which LightGBM refuses to change under a data set.
                tried = lightgbm.train(
                    _PARAMETERS | trees | {"feature_pre_filter": False},
                    learnt,
                    _MOST_ROUNDS,
                    valid_sets=[held],
                    callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
                )
                ndcg = float(tried.best_score["valid_0"]["ndcg@10"])
                if best is None or ndcg > best[0]:
                    best = ndcg, trees, max(1, int(tried.best_iteration))
                task.advance()
            assert best is not None
            ndcg, trees, rounds = best
            model = lightgbm.train(_PARAMETERS | trees, data(slice(None)), rounds)
            task.advance()
        return model, {"searches": len(rows), "rounds": rounds, "held_out_NDCG@10": ndcg, **trees}

    def _lists(self, progress: Progress) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
        """Features, labels 0 … 4 and weights of the held-out searches whose candidates hold anything good."""
        known, rows, labels, times = self._parts.known, [], [], []
        asked, counters = known.lists, known.tuning.counters
        drawn = np.random.default_rng(0)
        with progress.task("the cascade's training lists", total=len(asked.queries)) as task:
            for query, state, relevant, often in zip(
                asked.queries, asked.states, asked.relevant, asked.times.tolist(), strict=True
            ):
                task.advance()
                items, features = self.candidates(query, state, counters)
                grade = dict(zip(relevant.items.tolist(), relevant.grades.tolist(), strict=True))
                label = np.array([np.ceil(4 * grade.get(item, 0.0)) for item in items.tolist()])
                if label.any():
                    kept = label > 0
                    kept[:FITTED_FIRST] = True
                    kept[
                        FITTED_FIRST + drawn.permutation(max(0, len(label) - FITTED_FIRST))[:FITTED_MORE]
                    ] = True
                    rows.append(features[kept])
                    labels.append(label[kept])
                    times.append(often)
        return rows, labels, times
