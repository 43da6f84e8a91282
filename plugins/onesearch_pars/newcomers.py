"""What a fitted reward knows, carried over to a later generation of the catalogue.

New items and those with a new text get the words that were told of them; statistics of words stay as they
were fitted, and words that no item had then are unknown. What shoppers do with new items is in no counter and
no taste yet: there they are as items that nobody noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex

from onesearch_pars.artifact import Fitted
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.counts import Counts
from onesearch_pars.documents import Documents
from onesearch_pars.features import Fields, item_texts
from onesearch_pars.text import Analyser, fragments, phrases


@dataclass(frozen=True)
class Texts:
    """What is told of items whose text a reward was not fitted on.

    Attributes:
        items: number → title, and all of its text.
    """

    items: Mapping[int, tuple[str, str]]

    @classmethod
    def of(cls, newcomers: pl.DataFrame | None) -> Texts:
        """From the newcomers of an index."""
        if newcomers is None:
            return cls({})
        rows = zip(newcomers["title"].fill_null("").to_list(), item_texts(newcomers), strict=True)
        return cls(dict(zip(newcomers["number"].to_list(), rows, strict=True)))

    def beside(self, known: Texts) -> Texts:
        """Those that are not known in these very words."""
        return Texts({number: text for number, text in self.items.items() if known.items.get(number) != text})


NO_TEXTS = Texts({})


def carried(fitted: Fitted, new: Texts, index: CatalogueIndex, config: RelevanceConfig) -> Fitted:
    """A fitted list-wise score for all items of an index.

    Args:
        fitted: for an earlier generation of the same release.
        new: texts that it does not know.
        index: the later generation.
        config: of the release; says how long texts weigh.

    Raises:
        ArtifactError: the index has items that ``fitted`` does not know and nothing is told of.
    """
    known, analyser = len(fitted.fields.title), Analyser(fitted.language)
    if len(index) == known and not new.items:
        return fitted
    missing = sorted(set(range(known, len(index))) - set(new.items))
    if missing or len(index) < known:
        raise ArtifactError(f"the reward knows {known} items, the catalogue has {len(index)}")
    numbers = sorted(new.items)
    titles = [new.items[number][0] for number in numbers]
    texts = [new.items[number][1] for number in numbers]

    def put(field: Documents, rows: Sequence[str], split: Callable[[str], Sequence[str]]) -> Documents:
        return with_texts(field, numbers, [split(text) for text in rows], config.k1, config.b)

    fields = fitted.fields
    return replace(
        fitted,
        fields=Fields(
            put(fields.title, titles, analyser.terms),
            put(fields.phrases, titles, lambda text: phrases(analyser.terms(text))),
            put(fields.fragments, titles, fragments),
            None if fields.text is None else put(fields.text, texts, analyser.terms),
        ),
        tastes=replace(
            fitted.tastes,
            keys=_keys(index),
            level=_longer(fitted.tastes.level, len(index)),
            first=np.append(
                fitted.tastes.first, np.full(len(index) - known, fitted.tastes.first[-1], np.int64)
            ),
        ),
    )


def counted(counts: Counts, index: CatalogueIndex) -> Counts:
    """Counters for all items of an index: nothing is counted of new ones."""
    return replace(counts, alone=_longer(counts.alone, len(index)))


def with_texts(
    field: Documents, numbers: Sequence[int], rows: Sequence[Sequence[str]], k1: float, b: float
) -> Documents:
    """A field with the terms of some items put in place; new ones come last, rising.

    How long a text is, and the average, are counted in different terms, which is what a field keeps.
    """
    count = max([len(field), *(number + 1 for number in numbers)])
    average = max(1.0, len(field.terms) / max(1, len(field)))
    counts = np.zeros(count, np.int64)
    counts[: len(field)] = np.diff(field.starts)
    changed = np.zeros(count, bool)
    changed[list(numbers)] = True
    old = np.repeat(changed[: len(field)], counts[: len(field)])
    terms, weights = [], []
    for number, row in zip(numbers, rows, strict=True):
        own, times = np.unique(
            [field.vocabulary[term] for term in row if term in field.vocabulary], return_counts=True
        )
        length = 1 - b + b * len(set(row)) / average
        counts[number] = len(own)
        terms.append(own.astype(np.int32))
        weights.append((times / (times + k1 * length)).astype(np.float16))
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    new = np.repeat(changed, counts)
    made_terms, made_weights = np.empty(int(starts[-1]), np.int32), np.empty(int(starts[-1]), np.float16)
    made_terms[~new], made_weights[~new] = field.terms[~old], field.weights[~old]
    if numbers:
        made_terms[new], made_weights[new] = np.concatenate(terms), np.concatenate(weights)
    return Documents(field.vocabulary, starts, made_terms, made_weights, field.idf)


def _longer(array: np.ndarray, count: int) -> np.ndarray:
    """The array with rows of zeros behind it."""
    rows = np.zeros((count - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, rows])


def _keys(index: CatalogueIndex) -> np.ndarray:
    """Item keys u64[N] in the order of the numbers."""
    known, numbers = index.keys
    keys = np.empty(len(known), np.uint64)
    keys[numbers] = known
    return keys
