"""BM25 over a catalogue, by the library a user would pick (bm25s)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from onesearch.errors import OneSearchError

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(f"[{_CJK}]+")


class Bm25:
    """bm25s with its defaults (k1 1.5, b 0.75, Lucene's idf, English stop words), over one text an item."""

    def __init__(self, texts: Sequence[str], stem: bool = False) -> None:
        """``stem``: also cut words to their English stems, as bm25s's manual advises."""
        try:
            import bm25s
            import Stemmer
        except ImportError as error:
            raise OneSearchError("BM25 baselines need bm25s: pip install 'onesearch[train]'") from error
        self._bm25s: Any = bm25s
        self._stemmer = Stemmer.Stemmer("english") if stem else None
        self._size = len(texts)
        self._index = bm25s.BM25()
        corpus = self._words(texts)
        self._empty = not any(corpus)
        if not self._empty:
            self._index.index(corpus, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Score of every item, f32[N]; 0 where no word matches."""
        words = [] if self._empty else self._words([query])[0]
        if not words:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._index.get_scores(words), dtype=np.float32)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        # bm25s splits at blanks, so runs of Chinese are cut into pairs of characters first.
        spaced = [_RUN.sub(_pairs, text) for text in texts]
        words: list[list[str]] = self._bm25s.tokenize(
            spaced, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return words


def _pairs(run: re.Match[str]) -> str:
    text = run[0]
    return " " + " ".join(text[at : at + 2] for at in range(max(1, len(text) - 1))) + " "


def item_texts(items: pl.DataFrame) -> list[str]:
    """Title, category and attribute values of each item: what BM25 indexes. (Descriptions make it worse.)"""
    values = pl.col("attributes").list.eval(pl.element().struct["value"])
    joined = pl.concat_str(
        pl.col("title"),
        pl.col("category").list.join(" ", ignore_nulls=True).fill_null(""),
        values.list.join(" ", ignore_nulls=True).fill_null(""),
        separator=" ",
    )
    return items.select(joined.str.strip_chars_end())["title"].to_list()


def top(scores: np.ndarray, k: int, floor: float = -np.inf) -> np.ndarray:
    """Numbers i32[≤ k] of the best scores f32[N] above ``floor``, best first, ties by number."""
    k = min(k, len(scores))
    if not k:
        return np.zeros(0, dtype=np.int32)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero((scores >= least) & (scores > floor))
    order = np.lexsort((found, -scores[found]))[:k]
    return found[order].astype(np.int32)
