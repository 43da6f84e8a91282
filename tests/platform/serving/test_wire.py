from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ServingError
from onesearch.serving.wire import pack, read_response, read_text, unpack, write_request, write_text


def _answered(head: int, body: bytes) -> tuple[int, bytes]:
    """A server that returns its inputs."""
    told = json.loads(body[:head])
    answer = json.dumps({"model_name": "m", "outputs": told["inputs"]}).encode()
    return len(answer), answer + body[head:]


def _answer(raw: bytes, **tensor: Any) -> tuple[int, bytes]:
    head = json.dumps({"outputs": [{"name": "X", "parameters": {"binary_data_size": len(raw)}, **tensor}]})
    return len(head), head.encode() + raw


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_bytes_come_back(texts: list[bytes]) -> None:
    array = np.empty((1, len(texts)), dtype=object)
    array[0] = texts
    assert unpack(pack(array)) == texts
    found = read_response(*_answered(*write_request({"X": array})))["X"]
    assert found.shape == (1, len(texts)) and found[0].tolist() == texts


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.int64, np.float32, np.float64])
def test_numbers_come_back(dtype: type[np.generic]) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = read_response(*_answered(*write_request({"X": array}, ["X"])))["X"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_outputs_are_named_and_nothing_named_asks_for_all() -> None:
    head, body = write_request({}, ["A", "B"])
    assert [output["name"] for output in json.loads(body[:head])["outputs"]] == ["A", "B"]
    head, body = write_request({})
    assert "outputs" not in json.loads(body[:head])


def test_tensors_of_no_bytes_are_noticed() -> None:
    """What a backend with the wrong numpy makes."""
    for datatype in ("INT32", "BYTES"):
        with pytest.raises(ServingError, match=r"output X .* came as 0 bytes"):
            read_response(*_answer(b"", datatype=datatype, shape=[1, 2]))


@given(st.binary(max_size=40), st.integers(0, 50))
def test_other_bytes_are_no_response(raw: bytes, head: int) -> None:
    with pytest.raises(ServingError, match="cannot be read as tensors"):
        read_response(head, raw)


def test_a_text_that_is_cut_short_is_noticed() -> None:
    with pytest.raises(ServingError, match="cut short"):
        read_response(*_answer(b"\x05\x00\x00\x00abc", datatype="BYTES", shape=[1, 1]))


@given(st.binary(max_size=300))
def test_one_text_is_asked_and_answered_as_any_tensor(text: bytes) -> None:
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = text
    asked, expected = write_text("X", text, "Y"), write_request({"X": array}, ["Y"])
    assert json.loads(asked[1][: asked[0]]) == json.loads(expected[1][: expected[0]])
    assert asked[1][asked[0] :] == expected[1][expected[0] :]
    assert read_text(*_answered(*asked)) == text


@pytest.mark.parametrize("raw", [b"", b"\x05\x00\x00", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00abc"])
def test_what_is_no_single_text_is_noticed(raw: bytes) -> None:
    with pytest.raises(ServingError, match="cannot be read as a text"):
        read_text(*_answer(raw))
