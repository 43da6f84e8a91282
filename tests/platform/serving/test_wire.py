from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ServingError
from onesearch.serving.wire import pack, read_response, unpack, write_request
from tritonclient.grpc import service_pb2


def _answered(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """A server that returns its inputs."""
    response = service_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_bytes_come_back(texts: list[bytes]) -> None:
    array = np.empty((1, len(texts)), dtype=object)
    array[0] = texts
    assert unpack(pack(array)) == texts
    found = read_response(_answered(write_request("m", {"X": array})))["X"]
    assert found.shape == (1, len(texts)) and found[0].tolist() == texts


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.int64, np.float32, np.float64])
def test_numbers_come_back(dtype: type[np.generic]) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = read_response(_answered(write_request("m", {"X": array}, ["X"])))["X"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_outputs_are_named() -> None:
    request = write_request("m", {}, ["A", "B"])
    assert request.model_name == "m" and [output.name for output in request.outputs] == ["A", "B"]


def test_tensors_of_no_bytes_are_noticed() -> None:
    """What a backend with the wrong numpy makes."""
    for datatype in ("INT32", "BYTES"):
        response = service_pb2.ModelInferResponse(raw_output_contents=[b""])
        response.outputs.add(name="X", datatype=datatype, shape=[1, 2])
        with pytest.raises(ServingError, match=r"output X .* came as 0 bytes"):
            read_response(response)


def test_a_text_that_is_cut_short_is_noticed() -> None:
    response = service_pb2.ModelInferResponse(raw_output_contents=[b"\x05\x00\x00\x00abc"])
    response.outputs.add(name="X", datatype="BYTES", shape=[1, 1])
    with pytest.raises(ServingError, match="cut short"):
        read_response(response)
