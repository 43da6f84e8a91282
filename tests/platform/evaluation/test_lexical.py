import bm25s
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.evaluation.lexical import Bm25, item_texts, top

TEXTS = ["red oak lamp", "blue steel lamps for the desk", "green rug", "红色连衣裙 新款"]


def test_scores_are_bm25s_own() -> None:
    index = bm25s.BM25()
    index.index(bm25s.tokenize(TEXTS[:3], stopwords="en", show_progress=False), show_progress=False)
    words = bm25s.tokenize(["red lamp"], stopwords="en", return_ids=False, show_progress=False)[0]
    np.testing.assert_allclose(Bm25(TEXTS[:3]).scores("red lamp"), index.get_scores(words))


def test_stems_meet() -> None:
    assert Bm25(TEXTS).scores("lamp")[1] == 0
    assert Bm25(TEXTS, stem=True).scores("lamp")[1] > 0


def test_chinese_matches_by_pairs_of_characters() -> None:
    assert np.flatnonzero(Bm25(TEXTS).scores("连衣裙")).tolist() == [3]


@pytest.mark.parametrize("query", ["", "the", "xyzzy", "!!"])
def test_nothing_matches_nothing(query: str) -> None:
    assert not Bm25(TEXTS).scores(query).any()
    assert not Bm25(["", ""]).scores(query).any()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 40))
def test_top_is_a_stable_sort(values: list[int], k: int) -> None:
    scores = np.array(values, np.float32)
    expected = np.argsort(-scores, kind="stable")
    assert top(scores, k).tolist() == expected[:k].tolist()
    assert top(scores, k, floor=0.0).tolist() == [n for n in expected[:k] if scores[n] > 0]


def test_item_texts_join_what_there_is() -> None:
    items = pl.DataFrame(
        {
            "title": ["Lamp", "Rug"],
            "category": [["home", "light"], None],
            "attributes": [[{"type": "Color", "value": "red"}], None],
        }
    )
    assert item_texts(items) == ["Lamp home light red", "Rug"]
