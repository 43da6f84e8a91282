"""Triton's inference messages to and from numpy arrays."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np
from tritonclient.grpc import service_pb2

from onesearch.errors import ServingError

_NUMPY = {"BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "FP64": np.float64}
ANSWER = (
    "GENERATION", "PART_NAMES", "COUNT", "ITEM_ID", "TITLE", "CATEGORY", "BRAND", "PRICE", "IN_STOCK", "SID",
    "SCORE", "LOG_PROB", "SCORE_PARTS",
)  # fmt: skip
"""Tensors that an answer is made of."""
EXPLANATION = (
    "NOTES", "SHOPPER", "QUERY_SID", "BEAM_SIDS", "BEAM_LOG_PROBS", "MISSING", "FOUND", "EXACT", "DROPPED",
    "BRANCHES", "WIDTH",
)  # fmt: skip
"""Tensors that an explanation is made of."""
_TRITON = {np.dtype(dtype): name for name, dtype in _NUMPY.items()}


def write_request(
    model: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] = ()
) -> service_pb2.ModelInferRequest:
    """A request of named arrays; arrays of objects hold bytes. No outputs named asks for all of them."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = "BYTES" if array.dtype == object else _TRITON[array.dtype]
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(pack(array) if array.dtype == object else array.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def read_response(response: service_pb2.ModelInferResponse) -> dict[str, np.ndarray]:
    """The named arrays of a response. Raises ServingError where sizes do not fit."""
    arrays = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        shape = tuple(output.shape)
        try:
            if output.datatype == "BYTES":
                flat = np.array(unpack(raw), dtype=object)
            else:
                flat = np.frombuffer(raw, dtype=_NUMPY[output.datatype])
            arrays[output.name] = flat.reshape(shape)
        except (KeyError, ValueError, struct.error) as error:
            raise ServingError(
                f"output {output.name} ({output.datatype}, {shape}) came as {len(raw)} bytes ({error})"
            ) from error
    return arrays


def write_response(arrays: Mapping[str, np.ndarray]) -> service_pb2.ModelInferResponse:
    """A response of named arrays, as :func:`read_response` reads it."""
    response = service_pb2.ModelInferResponse()
    for name, array in arrays.items():
        datatype = "BYTES" if array.dtype == object else _TRITON[array.dtype]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(pack(array) if array.dtype == object else array.tobytes())
    return response


def pack(array: np.ndarray) -> bytes:
    """Bytes of an array of objects, each behind its length."""
    return b"".join(struct.pack("<I", len(text)) + text for text in array.ravel())


def unpack(raw: bytes) -> list[bytes]:
    """What :func:`pack` wrote. Raises struct.error where it is cut short."""
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise struct.error("text is cut short")
        texts.append(raw[at : at + length])
        at += length
    return texts
