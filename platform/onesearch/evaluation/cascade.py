"""The cascade that a shop would have: recall → pre-rank → learned rank (the MCA of the article).

*Recall* joins BM25's best, the nearest by embedding, and what is known for the query. *Pre-rank* keeps the
best of them by ``cosine + 0.05·BM25 + 0.02·log popularity + known``. *Rank* is LightGBM's lambdarank on
similarities, counters and popularity. It is fitted on the searches that the reward's lists are made of, with
the same evidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onesearch.errors import OneSearchError
from onesearch.evaluation.baselines import Parts
from onesearch.evaluation.known import Counters
from onesearch.evaluation.lexical import top
from onesearch.evaluation.metrics import DEPTH
from onesearch.progress import Progress

RECALL = 500
"""Items from each recall channel."""
PRE_RANKED = 400
"""Items that pre-rank lets through."""
FEATURES = (
    "cosine",
    "bm25",
    "bm25_stemmed",
    "cosine_below_best",
    "bm25_below_best",
    "cosine_place",
    "bm25_place",
    "log_popularity",
    "known_weight",
    "known_share",
    "title_words",
    "query_words",
    "log_price",
)
_PARAMETERS = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "verbose": -1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
}
_MOST_ROUNDS = 400
_PATIENCE = 40


class Cascade:
    """Three stages, each cheaper than what follows it is good."""

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self._parts = parts
        known = parts.known
        self._title_words = np.array([len(text.split()) for text in known.texts], dtype=np.float32)
        self._log_price = np.log1p(known.prices)
        self._model, self.tuned = self._fit(progress)

    def rank(self, query: str) -> np.ndarray:
        """Items as the last stage orders them."""
        items, features = self._candidates(query, self._parts.known.counters)
        if self._model is None or not len(items):
            return items[:DEPTH]
        scores = np.asarray(self._model.predict(features, num_threads=2))
        return items[np.argsort(-scores, kind="stable")[:DEPTH]]

    def _candidates(self, query: str, counters: Counters) -> tuple[np.ndarray, np.ndarray]:
        """What pre-rank lets through, in its order i32[C], and features f32[C, F]."""
        cosines = self._parts.cosines(query)
        words, stems = self._parts.plain.scores(query), self._parts.stemmed.scores(query)
        known, weights = counters.evidence(query)
        recalled = [top(stems, RECALL, floor=0.0), top(cosines, RECALL), known.astype(np.int32)]
        items = np.unique(np.concatenate(recalled)).astype(np.int32)
        weight = np.zeros(len(items), dtype=np.float32)
        weight[np.searchsorted(items, known)] = weights
        popularity = np.log(counters.popularity[items]).astype(np.float32)
        score = cosines[items] + 0.05 * stems[items] + 0.02 * popularity + np.log1p(weight)
        kept = np.argsort(-score, kind="stable")[:PRE_RANKED]
        items, weight, popularity = items[kept], weight[kept], popularity[kept]
        cosine, bm25, stemmed = cosines[items], words[items], stems[items]
        columns = (
            cosine,
            bm25,
            stemmed,
            cosine.max(initial=0.0) - cosine,
            stemmed.max(initial=0.0) - stemmed,
            _places(cosine),
            _places(stemmed),
            popularity,
            weight,
            weight / max(1e-6, float(np.sum(weights))),
            self._title_words[items],
            np.full(len(items), len(query.split()), dtype=np.float32),
            self._log_price[items],
        )
        return items, np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)

    def _fit(self, progress: Progress) -> tuple[Any, dict[str, Any]]:
        try:
            import lightgbm
        except ImportError as error:
            raise OneSearchError("the cascade needs LightGBM: pip install 'onesearch[train]'") from error
        tuning = self._parts.known.tuning
        rows: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        with progress.task("the cascade's training lists", total=len(tuning.queries)) as task:
            for query, relevant, times in zip(tuning.queries, tuning.relevant, tuning.times, strict=True):
                task.advance()
                items, features = self._candidates(query, tuning.counters)
                grade = dict(zip(relevant.items.tolist(), relevant.grades.tolist(), strict=True))
                label = np.array([np.ceil(4 * grade.get(item, 0.0)) for item in items.tolist()])
                if label.any():
                    rows.append(features)
                    labels.append(label)
                    weights.append(np.full(len(items), times))
        if len(rows) < 10:
            return None, {"searches": len(rows), "rounds": 0}
        names = list(FEATURES)

        def data(at: slice) -> Any:
            return lightgbm.Dataset(
                np.concatenate(rows[at]),
                np.concatenate(labels[at]),
                group=[len(part) for part in rows[at]],
                weight=np.concatenate(weights[at]),
                feature_name=names,
            )

        with progress.task("fitting the cascade's ranker"):
            held = max(1, len(rows) // 5)
            tried = lightgbm.train(
                _PARAMETERS,
                data(slice(held, None)),
                _MOST_ROUNDS,
                valid_sets=[data(slice(0, held))],
                callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
            )
            rounds = max(1, int(tried.best_iteration))
            model = lightgbm.train(_PARAMETERS, data(slice(None)), rounds)
        ndcg = float(tried.best_score["valid_0"]["ndcg@10"])
        return model, {"searches": len(rows), "rounds": rounds, "held_out_NDCG@10": ndcg}


def _places(scores: np.ndarray) -> np.ndarray:
    """Rank of each score among the scores, 0 the highest; f32."""
    places = np.empty(len(scores), dtype=np.float32)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places
