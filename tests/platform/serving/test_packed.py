"""Requests and answers as one tensor each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.contracts import ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.index import Filters
from onesearch.serving.engine import search_inputs
from onesearch.serving.packed import pack_answer, pack_request, unpack_answer, unpack_request
from onesearch.serving.requests import SearchRequest

REQUESTS = st.builds(
    SearchRequest,
    query=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    k=st.integers(1, 1_000),
    offset=st.integers(0, 1_000),
    filters=st.builds(Filters, category=st.tuples(st.text("ab\U0001f6cb", max_size=3))),
    beams=st.none() | st.integers(1, 3_840),
    explain=st.booleans(),
    rerank=st.booleans(),
    certify=st.none() | st.integers(0, 3_840),
    generation=st.none() | st.integers(0, 2**62),
    shown=st.binary(max_size=64),
)


@given(REQUESTS, st.integers(-1, 2**62))
def test_a_request_comes_back_as_it_was(request: SearchRequest, coming: int) -> None:
    given = search_inputs(request, ShopperState(), 128, 0, coming)
    back = unpack_request(pack_request(given))
    assert sorted(back) == sorted(given)
    for name, array in given.items():
        assert back[name].dtype == array.dtype, name
        np.testing.assert_array_equal(back[name], array, name)


@given(st.binary(max_size=80))
def test_other_bytes_are_no_request(raw: bytes) -> None:
    whole = pack_request(search_inputs(SearchRequest("lamp"), ShopperState(), 128, 0))
    for cut in (raw, whole[:-1], whole + b"x"):
        with pytest.raises(UsageError, match="REQUEST: "):
            unpack_request(cut)


def test_an_answer_comes_back_as_it_was() -> None:
    tensors = {
        "COUNT": np.array([[2]], np.int32),
        "TITLE": np.array([["Bücherregal".encode(), b""]], object),
        "SCORE": np.array([[0.5, -np.inf]], np.float32),
    }
    back = unpack_answer(pack_answer(tensors, ["TITLE", "SCORE"]))
    assert sorted(back) == ["SCORE", "TITLE"]
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name])
    for wrong in (b"something else", b"", b"\x00"):
        with pytest.raises(ServingError, match=r"no answer|cannot be read"):
            unpack_answer(wrong)
