"""What a user would pick instead: BM25, dense, their hybrid, and popularity for the query."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np

from onesearch.contracts.user_encoder import ShopperState
from onesearch.evaluation.known import Counters, Known
from onesearch.evaluation.lexical import Bm25, top
from onesearch.evaluation.metrics import DEPTH, Relevant
from onesearch.progress import Progress

POPULARITY_WEIGHT = 0.15
HYBRID_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3)


class Ranker(Protocol):
    """A search system to compare with."""

    personal: bool
    """Whether it looks at who asks."""
    tuned: dict[str, Any]
    """What was tuned, and on how many searches."""

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Item numbers i32[≤ 350], best first."""


class Parts:
    """What several baselines share, made once and only when asked for."""

    def __init__(self, known: Known) -> None:
        self.known = known

    @cached_property
    def plain(self) -> Bm25:
        """BM25 over words as they are."""
        return Bm25(self.known.texts)

    @cached_property
    def stemmed(self) -> Bm25:
        """BM25 over stems."""
        return Bm25(self.known.texts, stem=True)

    def cosines(self, query: str) -> np.ndarray:
        """e_q°·e_x° of every item, f32[N]."""
        scores: np.ndarray = self.known.vectors @ self.known.embed(query)
        return scores


class Lexical:
    """BM25 alone."""

    personal = False

    def __init__(self, parts: Parts) -> None:
        self.tuned: dict[str, Any] = {}
        self._bm25 = parts.plain

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Items with at least one word of the query."""
        return top(self._bm25.scores(query), DEPTH, floor=0.0)


class Dense:
    """The release's own embedding, exact over all items."""

    personal = False

    def __init__(self, parts: Parts) -> None:
        self.tuned: dict[str, Any] = {}
        self._parts = parts

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Nearest items."""
        return top(self._parts.cosines(query), DEPTH)


class Hybrid:
    """``cosine + w·BM25``, exact over all items; w, and whether BM25 stems, are tuned on held-out queries."""

    personal = False

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self._parts = parts
        stem, weight, recall = self._tune(progress)
        self._stem, self._weight = stem, weight
        searches = len(parts.known.tuning.queries)
        self.tuned = {"weight": weight, "stemmed": stem, "R@10": recall, "searches": searches}

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Items by the weighted sum."""
        bm25 = self._parts.stemmed if self._stem else self._parts.plain
        return top(self._parts.cosines(query) + self._weight * bm25.scores(query), DEPTH)

    def _tune(self, progress: Progress) -> tuple[bool, float, float | None]:
        tuning = self._parts.known.tuning
        if not tuning.queries:
            return False, 0.05, None
        recall: dict[tuple[bool, float], float] = {}
        with progress.task("tuning the hybrid", total=len(tuning.queries)) as task:
            for query, relevant, times in zip(tuning.queries, tuning.relevant, tuning.times, strict=True):
                cosines = self._parts.cosines(query)
                for stem in (False, True):
                    bm25 = (self._parts.stemmed if stem else self._parts.plain).scores(query)
                    for weight in HYBRID_WEIGHTS:
                        found = recall_of(top(cosines + weight * bm25, 10), relevant)
                        recall[stem, weight] = recall.get((stem, weight), 0.0) + found * times
                task.advance()
        stem, weight = max(recall, key=lambda choice: recall[choice])
        return stem, weight, recall[stem, weight] / float(tuning.times.sum())


class Popular:
    """What was most clicked and ordered for the very query; below it BM25 + 0.15·log popularity."""

    personal = False

    def __init__(self, parts: Parts) -> None:
        self.tuned: dict[str, Any] = {}
        self._bm25 = parts.plain
        self._counters: Counters = parts.known.counters
        self._prior = POPULARITY_WEIGHT * np.log(self._counters.popularity)

    def rank(self, query: str, state: ShopperState | None = None) -> np.ndarray:
        """Items known for the query by weight, then the others that hold a word of it."""
        words = self._bm25.scores(query)
        scores = np.where(words > 0, words + self._prior, 0.0)
        items, weights = self._counters.evidence(query)
        scores[items] += 1e6 * (1.0 + weights)
        return top(scores.astype(np.float64), DEPTH, floor=0.0)


def recall_of(ranked: np.ndarray, relevant: Relevant) -> float:
    """Share of the relevant items that a ranking holds."""
    return len(np.intersect1d(ranked, relevant.items)) / len(relevant.items)
