"""What the relevance reward looks at: for one request, a matrix of candidates × features.

Learner and server build features here and nowhere else, so that the weights fit what they are used on. Only
numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import ShopperState
from onesearch.shoppers.tastes import NAMES as TASTES
from onesearch.shoppers.tastes import Tastes
from onesearch.training.pairs import normalise_queries

from onesearch_pars.documents import Documents
from onesearch_pars.evidence import Evidence
from onesearch_pars.text import Analyser, fragments, phrases

LOWEST_LOG_PROB = -60.0


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: of the column. part: which part of the score it belongs to.
        default: its weight where the lists to fit on say nothing of it.
    """

    name: str
    part: str
    default: float


FEATURES = (
    Feature("log_prob", "generator", 0.3),
    Feature("cosine", "similarity", 8.0),
    Feature("title_bm25", "words", 0.2),
    Feature("title_share", "words", 3.0),
    Feature("text_bm25", "words", 0.2),
    Feature("text_share", "words", 1.0),
    Feature("phrases", "phrases", 0.05),
    Feature("fragments", "spelling", 0.05),
    Feature("popularity", "popularity", 0.15),
    Feature("evidence", "evidence", 1.0),
    Feature("evidence_share", "evidence", 1.0),
    *(Feature(name, "taste", 0.0) for name in TASTES),
    Feature("kind_share", "category", 0.0),
    Feature("category_share", "category", 0.0),
)
"""All weights are kept from going below zero. In judged sets such as Home Depot an item judged for one query
is seldom judged for another, so a reward free to do so learns to push known items *down* (R@10 .49 → .55):
true of how the labels were drawn, and false of what shoppers want."""
MATCHING = tuple(f.name for f in FEATURES if f.part in ("similarity", "words", "phrases", "spelling"))
"""How well an item matches a query, whatever shoppers and generator say of it."""
RELEVANT = (*MATCHING, *(f.name for f in FEATURES if f.part == "category"))
"""What relevance is told by: matching, and whether it is the kind of thing that was asked for."""
_COSINE = next(at for at, f in enumerate(FEATURES) if f.name == "cosine")
PARTS = tuple(dict.fromkeys(feature.part for feature in FEATURES))
SHARP = 20.0
"""What similarities are multiplied by before candidates vote for their categories."""
VOTERS = 128
"""So many of the catalogue vote where there are no candidates."""
CATEGORY_DEPTHS: tuple[int | None, ...] = (None, 2)
"""How much of a category path makes the kind (all of it) and the category of an item."""


@dataclass(frozen=True)
class Fields:
    """The lexical indices of a catalogue.

    Attributes:
        title: stems of titles. phrases: pairs of neighbouring stems. fragments: parts of words.
        text: stems of title, category, attributes and detail text together; None where items have titles
            only.
    """

    title: Documents
    phrases: Documents
    fragments: Documents
    text: Documents | None

    @classmethod
    def build(cls, items: pl.DataFrame, analyser: Analyser, k1: float, b: float) -> Fields:
        """Index a catalogue by its title, and by all that :func:`item_texts` finds."""
        titles = items["title"].fill_null("").to_list()
        texts = item_texts(items)
        return cls(
            title=Documents.build(titles, analyser.terms, k1, b),
            phrases=Documents.build(titles, lambda text: phrases(analyser.terms(text)), k1, b),
            fragments=Documents.build(titles, fragments, k1, b),
            text=Documents.build(texts, analyser.terms, k1, b) if texts != titles else None,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        named = {"title": self.title, "phrases": self.phrases, "fragments": self.fragments, "text": self.text}
        return {
            name: array
            for field, documents in named.items()
            if documents is not None
            for name, array in documents.arrays(field).items()
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Fields:
        """Read what :meth:`arrays` gave. Raises ArtifactError or KeyError where they do not fit."""
        title, pairs, pieces = (
            Documents.of_arrays(arrays, name) for name in ("title", "phrases", "fragments")
        )
        return cls(
            title, pairs, pieces, Documents.of_arrays(arrays, "text") if "text.idf" in arrays else None
        )


def item_texts(items: pl.DataFrame) -> list[str]:
    """What an item is: title, category, and attributes or brand. (Descriptions made BM25 worse on H&M.)"""
    parts = [pl.col("title").fill_null("")]
    if "category" in items.columns:
        parts.append(pl.col("category").list.join(" ", ignore_nulls=True))
    if "attributes" in items.columns:
        values = pl.col("attributes").list.eval(pl.element().struct["value"])
        parts.append(values.list.join(" ", ignore_nulls=True))
    elif "brand" in items.columns:
        parts.append(pl.col("brand"))
    joined = pl.concat_str([part.fill_null("") for part in parts], separator=" ").str.strip_chars_end()
    return items.select(text=joined)["text"].to_list()


def categories_of(items: pl.DataFrame) -> np.ndarray:
    """i32[N, 2]: numbers of each item's kind and category; 0 for all of a catalogue without categories."""
    if "category" not in items.columns:
        return np.zeros((len(items), len(CATEGORY_DEPTHS)), np.int32)
    paths = (
        pl.col("category").list.head(depth) if depth else pl.col("category") for depth in CATEGORY_DEPTHS
    )
    numbers = [path.list.join(" > ").fill_null("").rank("dense").cast(pl.Int32) - 1 for path in paths]
    columns = [items.select(number=number)["number"].to_numpy() for number in numbers]
    return np.stack(columns, axis=1).astype(np.int32)


class FeatureMaker:
    """Builds features. Not safe for more than one thread at a time (stems are remembered)."""

    def __init__(
        self,
        analyser: Analyser,
        fields: Fields,
        evidence: Evidence,
        tastes: Tastes,
        vectors: np.ndarray,
        popularity: np.ndarray,
        categories: np.ndarray,
    ) -> None:
        """``vectors`` f16[N, D], ``popularity`` f32[N] and ``categories`` i32[N, 2] are the catalogue's."""
        self._categories = categories
        self._tastes = tastes
        self._analyser = analyser
        self._fields = fields
        self._evidence = evidence
        self._vectors = vectors
        self._log_popularity = np.log(np.maximum(popularity, 1e-6)).astype(np.float32)

    def features(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> np.ndarray:
        """f32[B, K, F] in the order of :data:`FEATURES`; 0 on padding. ``query_vecs`` f32[B, D]."""
        made = np.zeros((*candidates.items.shape, len(FEATURES)), dtype=np.float32)
        for row, query in enumerate(normalise_queries(queries)):
            real = candidates.items[row] >= 0
            items = candidates.items[row, real]
            if len(items):
                liked = self._tastes.features(states[row], query_vecs[row], items, self._vectors)
                asked = self._one(query, query_vecs[row], items, candidates.log_probs[row, real])
                votes = self._votes(items, asked[:, _COSINE])
                made[row, real] = np.concatenate([asked, liked, votes], axis=1)
        return made

    def relevant(self, query: str, query_vec: np.ndarray, items: np.ndarray) -> np.ndarray:
        """f32[K, R] in the order of :data:`RELEVANT`, of items that stand in no list: those most similar to
        the query in the whole catalogue vote instead of candidates. Arguments as of :meth:`matching`."""
        every = self._vectors.astype(np.float32) @ query_vec.astype(np.float32)
        near = np.argpartition(-every, min(VOTERS, len(every)) - 1)[:VOTERS]
        voters = np.concatenate([np.setdiff1d(near, items), items])
        votes = self._votes(voters, every[voters])[len(voters) - len(items) :]
        return np.concatenate([self.matching(query, query_vec, items), votes], axis=1)

    def matching(self, query: str, query_vec: np.ndarray, items: np.ndarray) -> np.ndarray:
        """f32[K, M] in the order of :data:`MATCHING`, for a normalised query, its f32[D] and items i32[K]."""
        fields = self._fields
        terms = self._analyser.terms(query)
        title_bm25, title_share = _words(fields.title, terms, items)
        text_bm25, text_share = (
            (np.zeros_like(title_bm25), np.zeros_like(title_share))
            if fields.text is None
            else _words(fields.text, terms, items)
        )
        columns = (
            self._vectors[items].astype(np.float32) @ query_vec.astype(np.float32),
            title_bm25,
            title_share,
            text_bm25,
            text_share,
            _bm25(fields.phrases, phrases(terms), items),
            _bm25(fields.fragments, fragments(query), items),
        )
        return np.stack(columns, axis=1)

    def _votes(self, items: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """f32[K, 2]: shares of the candidates' votes, softmax of their similarity, for each one's kind and
        category. What the most similar have in common is what was asked for."""
        votes = np.exp(SHARP * (cosines - cosines.max()))
        votes /= votes.sum()
        own = self._categories[items]
        shares = [np.bincount(column, votes)[column] for column in own.T]
        return np.stack(shares, axis=1).astype(np.float32)

    def _one(self, query: str, query_vec: np.ndarray, items: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
        weight, share = self._evidence.of(query, items)
        before = np.maximum(log_probs, LOWEST_LOG_PROB)
        behind = (self._log_popularity[items], np.log1p(weight), share)
        return np.column_stack([before, self.matching(query, query_vec, items), *behind])


def _bm25(documents: Documents, terms: Sequence[str], items: np.ndarray) -> np.ndarray:
    numbers = documents.numbers(terms)
    scores: np.ndarray = documents.match(numbers, items) @ documents.idf[numbers]
    return scores


def _words(documents: Documents, terms: Sequence[str], items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BM25, and the share of the query's different words that an item has; two f32[K]."""
    numbers = documents.numbers(terms)
    matched = documents.match(numbers, items)
    share = (matched > 0).sum(axis=1, dtype=np.float32) / max(1, len(set(terms)))
    return matched @ documents.idf[numbers], share.astype(np.float32)
