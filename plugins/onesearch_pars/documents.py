"""What the items say, as arrays: for each item its terms and how much each weighs.

One matching serves all lexical features: a request's candidates × the query's terms, ``M[k, j]`` = weight of
term j in candidate k. Rows are read from a forward index (item → terms), because beams reach a few hundred
items of many: gathering their terms costs less than walking every query term's postings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from onesearch.errors import ArtifactError


@dataclass(frozen=True)
class Documents:
    """One field of all items.

    Attributes:
        vocabulary: term → number.
        starts: i64[N + 1]; item n has the entries ``starts[n] … starts[n + 1] - 1``.
        terms: i32[E], term numbers, each once an item.
        weights: f16[E], BM25's ``tf / (tf + k1·(1 - b + b·length/average))``, without idf.
        idf: f32[V], ``ln(1 + (N - df + ½) / (df + ½))``, as in Lucene.
    """

    vocabulary: dict[str, int]
    starts: np.ndarray
    terms: np.ndarray
    weights: np.ndarray
    idf: np.ndarray

    @classmethod
    def build(
        cls, texts: Iterable[str], split: Callable[[str], Sequence[str]], k1: float, b: float
    ) -> Documents:
        """Index texts, one an item, split into terms by ``split``."""
        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(term, len(vocabulary)) for term in split(text)] for text in texts]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
        size = max(1, len(vocabulary))
        keys, counts = np.unique(np.repeat(np.arange(len(rows)), lengths) * size + flat, return_counts=True)
        items, terms = keys // size, keys % size
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(np.bincount(items, minlength=len(rows)), out=starts[1:])
        average = max(1.0, float(lengths.mean())) if len(rows) else 1.0
        weights = counts / (counts + k1 * (1 - b + b * lengths[items] / average))
        frequency = np.bincount(terms, minlength=len(vocabulary))
        idf = np.log(1 + (len(rows) - frequency + 0.5) / (frequency + 0.5))
        return cls(
            vocabulary, starts, terms.astype(np.int32), weights.astype(np.float16), idf.astype(np.float32)
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def numbers(self, terms: Iterable[str]) -> np.ndarray:
        """Numbers of the known ones among terms, each once, in order; i32[Q]."""
        known = dict.fromkeys(number for term in terms if (number := self.vocabulary.get(term)) is not None)
        return np.fromiter(known, dtype=np.int32, count=len(known))

    def match(self, terms: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Weights of terms i32[Q] in items i32[K]: f32[K, Q], 0 where an item lacks a term."""
        if not len(terms) or not len(items):
            return np.zeros((len(items), len(terms)), dtype=np.float32)
        starts = self.starts[items]
        counts = self.starts[items + 1] - starts
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        column = np.full(len(self.idf), -1, dtype=np.int32)
        column[terms] = np.arange(len(terms), dtype=np.int32)
        columns = column[self.terms[at]]
        found = np.flatnonzero(columns >= 0)
        rows = np.searchsorted(ends, found, side="right")
        matched = np.zeros((len(items), len(terms)), dtype=np.float32)
        matched[rows, columns[found]] = self.weights[at[found]]
        return matched

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays to save, under names that start with ``prefix``."""
        return {
            f"{prefix}.vocabulary": pack_texts(self.vocabulary),
            f"{prefix}.starts": self.starts,
            f"{prefix}.terms": self.terms,
            f"{prefix}.weights": self.weights,
            f"{prefix}.idf": self.idf,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], prefix: str) -> Documents:
        """Read what :meth:`arrays` gave. Raises ArtifactError where the arrays do not fit each other."""
        vocabulary = {
            term: number for number, term in enumerate(unpack_texts(arrays[f"{prefix}.vocabulary"]))
        }
        starts, terms, weights, idf = (
            arrays[f"{prefix}.{name}"] for name in ("starts", "terms", "weights", "idf")
        )
        fits = len(vocabulary) == len(idf) and len(terms) == len(weights) == int(starts[-1])
        if not fits or (len(terms) and int(terms.max()) >= len(idf)):
            raise ArtifactError(f"the index of {prefix} does not fit together")
        return cls(vocabulary, starts, terms, weights, idf)


def pack_texts(texts: Iterable[str]) -> np.ndarray:
    """Texts without line ends as one array of bytes u8, which safetensors can hold."""
    return np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """Read what :func:`pack_texts` wrote."""
    return packed.tobytes().decode().split("\n") if len(packed) else []
