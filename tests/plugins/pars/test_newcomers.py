"""Rewards over a later generation: new items have their words, and nothing else changes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex, Changes
from onesearch.shoppers.tastes import Tastes
from onesearch_pars.artifact import Fitted
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.counts import Counts
from onesearch_pars.documents import Documents
from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, Fields
from onesearch_pars.newcomers import NO_TEXTS, Texts, carried, counted, with_texts
from onesearch_pars.text import Analyser

WORDS = st.lists(st.sampled_from("abcde"), max_size=5).map(" ".join)
CONFIG = RelevanceConfig()


@given(
    st.lists(WORDS, min_size=1, max_size=6),
    st.dictionaries(st.integers(0, 5), WORDS),
    st.lists(WORDS, max_size=3),
)
def test_texts_put_in_place(texts: list[str], changed: dict[int, str], added: list[str]) -> None:
    """Each item has the terms of its own text, as far as they were known, and the others are untouched."""
    field = Documents.build(texts, str.split, CONFIG.k1, CONFIG.b)
    new = {at: text for at, text in changed.items() if at < len(texts)}
    new |= {len(texts) + at: text for at, text in enumerate(added)}
    rows = [new[number].split() for number in sorted(new)]
    after = with_texts(field, sorted(new), rows, CONFIG.k1, CONFIG.b)
    assert len(after) == len(texts) + len(added)
    whole = [new.get(number, text) for number, text in enumerate([*texts, *added])]
    terms = np.arange(len(field.idf), dtype=np.int32)
    got = after.match(terms, np.arange(len(whole), dtype=np.int32))
    names = list(field.vocabulary)
    for number, text in enumerate(whole):
        assert {names[at] for at in np.flatnonzero(got[number])} == set(text.split()) & set(names)
        if number not in new:
            old = field.match(terms, np.array([number], np.int32))[0]
            np.testing.assert_array_equal(got[number], old)


@pytest.fixture
def index() -> CatalogueIndex:
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["red lamp", "blue lamp", "oak chair"],
            "category": [["lamps"], ["lamps"], ["chairs"]],
            "brand": ["Lux", None, "Oaky"],
            "price": [1.0, None, 3.0],
            "in_stock": [True, True, True],
        }
    )
    sids = np.array([[0, 0], [0, 1], [1, 0]])
    return CatalogueIndex.build(items, sids, np.eye(3, 4), np.ones(3), (2, 2))


@pytest.fixture
def fitted(index: CatalogueIndex) -> Fitted:
    fields = Fields.build(index.items, Analyser("english"), CONFIG.k1, CONFIG.b)
    evidence = Evidence.build(pl.DataFrame({"query": ["lamp"], "item": [0], "weight": [2.0]}))
    return Fitted("english", np.ones(len(FEATURES), np.float32), fields, evidence, Tastes.build(index.items))


def _grown(index: CatalogueIndex) -> CatalogueIndex:
    told = pl.DataFrame({"item_id": ["d"], "title": ["red chairs"], "category": [["chairs"]]}).with_columns(
        attributes=pl.lit(None, pl.List(pl.Struct({"type": pl.String, "value": pl.String})))
    )
    row = index.items[:1].with_columns(item_id=pl.lit("d"), title=pl.lit("red chairs"))
    changes = Changes(row, index.sids[:1], index.vectors[:1], index.popularity[:1], ["b"], told)
    return index.following(changes, 1)


def test_a_new_item_has_its_words(index: CatalogueIndex, fitted: Fitted) -> None:
    grown = _grown(index)
    after = carried(fitted, Texts.of(grown.newcomers), grown, CONFIG)
    terms = Analyser("english").terms("red chair")
    title = after.fields.title
    assert (title.match(title.numbers(terms), np.array([3])) > 0).all()
    before = fitted.fields.title.match(title.numbers(terms), np.arange(3))
    np.testing.assert_array_equal(title.match(title.numbers(terms), np.arange(3)), before)
    assert len(after.tastes.keys) == 4 and after.tastes.level[3] == 0
    assert after.tastes.first[-1] == after.tastes.first[-2]
    counts = counted(Counts.none(3), grown)
    assert counts.alone.shape == (4, 3) and not counts.alone[3].any()


def test_what_is_known_is_not_done_again(index: CatalogueIndex, fitted: Fitted) -> None:
    assert carried(fitted, NO_TEXTS, index, CONFIG) is fitted
    texts = Texts.of(_grown(index).newcomers)
    assert not texts.beside(texts).items and texts.beside(NO_TEXTS).items == texts.items


def test_items_that_nothing_is_told_of_are_refused(index: CatalogueIndex, fitted: Fitted) -> None:
    with pytest.raises(ArtifactError, match="the reward knows 3 items, the catalogue has 4"):
        carried(fitted, NO_TEXTS, _grown(index), CONFIG)
