"""What is shown when the models do not answer: the items most clicked for the query.

A release may carry ``fallback/most_clicked.parquet`` (query, items). For a query that is not in it, the items
whose titles share the most of its words, the popular ones first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from onesearch.errors import ArtifactError
from onesearch.serving.catalogue import ItemTable
from onesearch.training.pairs import normalise_queries

FOLDER = "fallback"
FILE = "most_clicked.parquet"
# Runs of letters and digits; scripts without spaces between words (CJK) character by character.
_WORDS = r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]+"
_MAX_WORDS = 32


def write_most_clicked(pairs: pl.DataFrame, folder: Path, per_query: int = 50) -> None:
    """Write the items of each query, the heaviest first, into ``folder``.

    Args:
        pairs: as :func:`onesearch.training.pairs.query_item_pairs` makes them: query, item, weight.
        folder: made where missing; ``<release>/fallback``.
        per_query: at most so many items of a query.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best = (
        pairs.filter(pl.col("weight") > 0)
        .sort("query", "weight", "item", descending=[False, True, False])
        .group_by("query", maintain_order=True)
        .agg(pl.col("item").head(per_query).alias("items"))
    )
    best.select("query", pl.col("items").cast(pl.List(pl.Int32))).write_parquet(folder / FILE)


class MostClicked:
    """Items for a query without any model."""

    def __init__(self, table: ItemTable, clicked: pl.DataFrame | None = None) -> None:
        self._table = table
        self._clicked: dict[str, np.ndarray] = {}
        if clicked is not None:
            queries, rows = clicked["query"].to_list(), clicked["items"]
            self._clicked = {query: rows[at].to_numpy() for at, query in enumerate(queries)}
        self._first, self._items, self._words = _inverted(table.items["title"])

    @classmethod
    def of_release(cls, path: Path, table: ItemTable) -> MostClicked:
        """Open what a release carries, if anything. Raises ArtifactError naming a broken file."""
        file = path / FOLDER / FILE
        try:
            clicked = pl.read_parquet(file) if file.exists() else None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{file}: cannot be read ({error})") from error
        return cls(table, clicked)

    def items(self, query: str, passing: np.ndarray | None = None) -> np.ndarray:
        """Item numbers i64[n], best first: the logged ones, then those that share words with the query.

        ``passing`` bool[N] leaves only items that pass the request's filters.
        """
        known = self._clicked.get(normalise_queries([query])[0], np.zeros(0, np.int32))
        found = np.concatenate([known, self._by_words(query)]).astype(np.int64)
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]
        return found if passing is None else found[passing[found]]

    def _by_words(self, query: str) -> np.ndarray:
        """Items by the summed rarity of the words that they share with the query, then by popularity."""
        scores = np.zeros(len(self._table), dtype=np.float32)
        for word in list(dict.fromkeys(words(query)))[:_MAX_WORDS]:
            at = self._words.get(word)
            if at is not None:
                holders = self._items[self._first[at] : self._first[at + 1]]
                scores[holders] += np.log1p(len(scores) / len(holders))
        found = np.flatnonzero(scores)
        return found[np.lexsort((found, -self._table.popularity[found], -scores[found]))]


def words(text: str) -> list[str]:
    """The words of a text, lower case."""
    return list(_words(pl.Series([text]))[0])


def _words(texts: pl.Series) -> pl.Series:
    return texts.cast(pl.String).str.to_lowercase().str.extract_all(_WORDS)


def _inverted(titles: pl.Series) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Word → items as CSR: offsets i64[W + 1], items i32, and the number of each word.

    All of it outside the interpreter's lock: a release is read while another one answers beside.
    """
    pairs = (
        pl.DataFrame({"word": _words(titles), "item": np.arange(len(titles), dtype=np.int32)})
        .explode("word")
        .drop_nulls()
        .unique()
        .sort("word", "item")
    )
    counts = pairs.group_by("word", maintain_order=True).len()
    first = np.concatenate([np.zeros(1, np.int64), counts["len"].to_numpy().astype(np.int64).cumsum()])
    numbers = {word: number for number, word in enumerate(counts["word"].to_list())}
    return first, pairs["item"].to_numpy(), numbers
