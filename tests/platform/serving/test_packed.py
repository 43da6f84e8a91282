"""Requests and answers as one tensor each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.index import Filters
from onesearch.serving.answers import read_answer
from onesearch.serving.conversion import answer_from
from onesearch.serving.engine import search_inputs, search_values
from onesearch.serving.packed import pack_answer, pack_request, unpack_answer, unpack_request
from onesearch.serving.requests import SearchRequest
from onesearch.serving.together import SearchModel

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
    asked = request, ShopperState(), 128, 0, coming
    given, back = search_inputs(*asked), unpack_request(pack_request(search_values(*asked)))
    assert sorted(back) == sorted(given)
    for name, array in given.items():
        assert back[name].dtype == array.dtype, name
        np.testing.assert_array_equal(back[name], array, name)


@given(st.binary(max_size=80))
def test_other_bytes_are_no_request(raw: bytes) -> None:
    whole = pack_request(search_values(SearchRequest("lamp"), ShopperState(), 128, 0))
    for cut in (raw, whole[:-1], whole + b"x"):
        with pytest.raises(UsageError, match="REQUEST: "):
            unpack_request(cut)


@pytest.mark.parametrize("explain", [False, True])
def test_an_answer_is_the_one_that_its_tensors_make(toy_release: Any, explain: bool) -> None:
    model = SearchModel()
    model.open(toy_release, Runtime(threads=1))
    shown = np.arange(2, dtype="<u8").tobytes()
    request = SearchRequest("red lamp", k=3, explain=explain, shown=shown)
    [tensors] = model.answers([search_inputs(request, ShopperState(), 16, 0)])
    assert not isinstance(tensors, Exception)
    response = unpack_answer(pack_answer(tensors))
    assert [hit.rank for hit in response.hits] == [3, 4, 5]
    assert answer_from(response) == read_answer(tensors, "", 2, explain)


def test_other_bytes_are_no_answer() -> None:
    with pytest.raises(ServingError, match="14 bytes are no answer"):
        unpack_answer(b"something else")
