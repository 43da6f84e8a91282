"""Hits written as bytes are what the protocol's own library reads, and would have written."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onesearch.serving import codecs
from onesearch.serving.answers import read_hits
from onesearch.serving.conversion import answer_to
from onesearch.serving.message import write_hits
from onesearch.serving.models import strings
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.requests import SearchAnswer

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=codecs.CATEGORY_SEPARATOR))
NUMBERS = st.floats(width=32)
PRICES = st.none() | st.floats(allow_nan=False)
NAMES = st.lists(TEXTS, min_size=1, max_size=4, unique=True)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Tensors of an answer, as the models make them: an empty page has one row of blanks."""
    names, count, levels = draw(NAMES), draw(st.integers(0, 4)), draw(st.integers(1, 5))
    rows = max(count, 1)

    def text(one: st.SearchStrategy[str]) -> np.ndarray:
        return strings([[draw(one).encode() for _ in range(rows)]])

    def numbers(*shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array([draw(NUMBERS) for _ in range(size)], np.float32).reshape(1, *shape)

    prices = [draw(PRICES) for _ in range(rows)]
    sids = [[draw(st.integers(0, 2**31 - 1)) for _ in range(levels)] for _ in range(rows)]
    return {
        "COUNT": np.array([[count]], np.int32),
        "PART_NAMES": strings([[name.encode() for name in names]]),
        "ITEM_ID": text(TEXTS),
        "TITLE": text(TEXTS),
        "CATEGORY": text(st.lists(TEXTS.filter(bool), max_size=3).map(codecs.CATEGORY_SEPARATOR.join)),
        "BRAND": text(TEXTS),
        "PRICE": np.array([[np.nan if price is None else price for price in prices]]),
        "IN_STOCK": np.array([[draw(st.booleans()) for _ in range(rows)]]),
        "SID": np.array([sids], np.int32),
        "SCORE": numbers(rows),
        "LOG_PROB": numbers(rows),
        "SCORE_PARTS": numbers(rows, len(names)),
    }


@given(answers(), st.integers(0, 1_000))
def test_hits_are_those_that_the_library_would_have_written(
    arrays: dict[str, np.ndarray], before: int
) -> None:
    read = pb.SearchResponse.FromString(write_hits(arrays, before))
    expected = answer_to(SearchAnswer(read_hits(arrays, before), "", 0))
    # Not by equality: what is not a number equals nothing.
    assert read.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
