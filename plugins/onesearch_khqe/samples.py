"""What the aligned embedding learns from: logged pairs in steps impression < click < order, judgements,
pseudo-queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.training.pairs import split_queries

from onesearch_khqe.words import is_cjk, pieces

IMPRESSION, CLICK, ORDER = 1, 2, 3


@dataclass(frozen=True)
class Batch:
    """Rows of one step; all arrays [B]. Items and queries are numbers; -1 where a row has none.

    Attributes:
        query, item: a query and a positive item of it.
        other_query: another query that led to ``item``. other_item: another positive item of ``query``.
        worse: an item of ``query`` that is fewer steps up impression < click < order. steps: f32, by how
            many.
        grade, worse_grade: f32, judged relevance of ``item`` and ``worse`` for ``query``; nan where not
            judged.
    """

    query: np.ndarray
    item: np.ndarray
    other_query: np.ndarray
    other_item: np.ndarray
    worse: np.ndarray
    steps: np.ndarray
    grade: np.ndarray
    worse_grade: np.ndarray


class Pairs:
    """Query–item pairs in a form that batches are drawn from quickly.

    A pair's step is 3 with an order, 2 with a click, else 1. Where nothing was logged for a pair the
    judgement
    stands in: relevant counts as clicked, less relevant as only shown.
    """

    def __init__(self, frame: pl.DataFrame, queries: dict[str, int]) -> None:
        """``frame``: columns of ``query_item_pairs``; ``queries``: the number of each query text in it."""
        query = np.array([queries[text] for text in frame["query"].to_list()], dtype=np.int64)
        item = frame["item"].to_numpy().astype(np.int64)
        positive = frame["weight"].to_numpy() > 0
        level = np.where(positive, CLICK, IMPRESSION)
        level[frame["orders"].to_numpy() > 0] = ORDER
        order = np.lexsort((item, level, query))
        self.query, self.item, self.level = query[order], item[order], level[order]
        self.grade = frame["grade"].fill_null(float("nan")).to_numpy().astype(np.float32)[order]
        self.weight = frame["weight"].to_numpy().astype(np.float64)[order]
        self.positive = np.flatnonzero(positive[order])
        # Pairs stand by query and step: those of fewer steps are the rows from the query's first to
        # `_not_lower`.
        self._first = np.searchsorted(self.query, self.query)
        key = self.query * 8 + self.level
        self._not_lower = np.searchsorted(key, key)
        self._positive_first = np.searchsorted(key, self.query * 8 + CLICK)
        self._end = np.searchsorted(self.query, self.query, side="right")
        by_item = self.positive[np.argsort(self.item[self.positive], kind="stable")]
        self._by_item = by_item
        self._item_first = np.searchsorted(self.item[by_item], self.item)
        self._item_end = np.searchsorted(self.item[by_item], self.item, side="right")

    def __len__(self) -> int:
        return len(self.query)

    def epoch(self, batch: int, max_steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Positive pairs of one pass, batch by batch: all of them in random order, or, when there are more
        than the steps allow, a draw in proportion to the root of their weight."""
        if not len(self.positive):
            return []
        if len(self.positive) > batch * max_steps:
            share = np.sqrt(self.weight[self.positive])
            rows = rng.choice(self.positive, batch * max_steps, p=share / share.sum())
        else:
            rows = rng.permutation(self.positive)
        steps = max(1, len(rows) // batch)
        return np.array_split(rows, steps)

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """A batch from positive pairs; partners are drawn at random."""
        other_query = self._by_item[self._draw(rng, self._item_first[rows], self._item_end[rows])]
        other_item = self._draw(rng, self._positive_first[rows], self._end[rows])
        has_lower = self._not_lower[rows] > self._first[rows]
        lower = self._draw(
            rng, self._first[rows], np.where(has_lower, self._not_lower[rows], self._end[rows])
        )
        steps = (self.level[rows] - self.level[lower]).astype(np.float32)
        return Batch(
            self.query[rows],
            self.item[rows],
            np.where(self.query[other_query] == self.query[rows], -1, self.query[other_query]),
            np.where(other_item == rows, -1, self.item[other_item]),
            np.where(has_lower, self.item[lower], -1),
            np.where(has_lower, steps, 0.0).astype(np.float32),
            self.grade[rows],
            np.where(has_lower, self.grade[lower], np.nan).astype(np.float32),
        )

    @staticmethod
    def _draw(rng: np.random.Generator, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        return first + np.floor(rng.random(len(first)) * (end - first)).astype(np.int64)


def split_pairs(pairs: pl.DataFrame, held_out: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs of the queries that are learnt from, and of those held out."""
    queries = pairs["query"].unique(maintain_order=True)
    mask = split_queries(queries.to_list(), held_out)
    out = pairs["query"].is_in(queries.filter(pl.Series(mask, dtype=pl.Boolean)).implode())
    return pairs.filter(~out), pairs.filter(out)


def pseudo_queries(
    titles: Sequence[str], count: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Queries cut from titles: one to four words, half of them side by side, the others picked in order.

    Of a title without spaces a run of 2 to 6 characters stands for two of its words. Returns texts and the
    item of each, i64; titles without a word give none.
    """
    if not len(titles) or not count:
        return [], np.zeros(0, np.int64)
    texts: list[str] = []
    items: list[int] = []
    for item in rng.integers(0, len(titles), count).tolist():
        words = _units(titles[item], rng)
        if not words:
            continue
        size = int(rng.integers(1, min(4, len(words)) + 1))
        if rng.random() < 0.5:
            start = int(rng.integers(0, len(words) - size + 1))
            chosen = words[start : start + size]
        else:
            chosen = [words[at] for at in sorted(rng.choice(len(words), size, replace=False).tolist())]
        texts.append(" ".join(chosen))
        items.append(item)
    return texts, np.array(items, dtype=np.int64)


def _units(title: str, rng: np.random.Generator) -> list[str]:
    words: list[str] = []
    for word in title.split():
        if len(word) > 6 and is_cjk(word[len(word) // 2]):
            for piece in pieces(word):
                at = 0
                while at < len(piece):
                    size = int(rng.integers(2, 7)) if is_cjk(piece) else len(piece)
                    words.append(piece[at : at + size])
                    at += size
        else:
            words.append(word)
    return words
