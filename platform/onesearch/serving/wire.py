"""Named numpy arrays to and from bytes, in the form of Triton's inference over HTTP.

A head of JSON tells name, type and shape of every tensor, and how many bytes of what follows are its own (the
binary tensor data extension of the protocol).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

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
_LENGTH = struct.Struct("<I")
_TRITON = {np.dtype(dtype): name for name, dtype in _NUMPY.items()}


def write_request(inputs: Mapping[str, np.ndarray], outputs: Iterable[str] = ()) -> tuple[int, bytes]:
    """The body of a request of named arrays, and how many bytes of it are its head.

    Arrays of objects hold bytes. No outputs named asks for all of them.
    """
    tensors, raw = _written(inputs)
    asked: dict[str, Any] = {"inputs": tensors}
    if names := [{"name": name, "parameters": {"binary_data": True}} for name in outputs]:
        asked["outputs"] = names
    else:
        asked["parameters"] = {"binary_data_output": True}
    head = json.dumps(asked).encode()
    return len(head), head + raw


def write_text(name: str, text: bytes, output: str) -> tuple[int, bytes]:
    """The body of a request of one text, answered with one, and how many bytes of it are its head."""
    size = _LENGTH.size + len(text)
    head = (
        f'{{"inputs":[{{"name":"{name}","datatype":"BYTES","shape":[1,1],'
        f'"parameters":{{"binary_data_size":{size}}}}}],'
        f'"outputs":[{{"name":"{output}","parameters":{{"binary_data":true}}}}]}}'
    ).encode()
    return len(head), head + _LENGTH.pack(len(text)) + text


def read_text(head: int, body: bytes) -> bytes:
    """The one text of a response whose first ``head`` bytes are its head. Raises ServingError for others."""
    start = head + _LENGTH.size
    if len(body) < start or _LENGTH.unpack_from(body, head)[0] != len(body) - start:
        raise ServingError(f"{len(body)} bytes cannot be read as a text")
    return body[start:]


def read_response(head: int, body: bytes) -> dict[str, np.ndarray]:
    """The named arrays of a response whose first ``head`` bytes are its head.

    Raises ServingError where sizes do not fit, or it is no response.
    """
    arrays = {}
    at = head
    try:
        for tensor in json.loads(body[:head])["outputs"]:
            size = tensor["parameters"]["binary_data_size"]
            raw, at = body[at : at + size], at + size
            arrays[tensor["name"]] = _array(tensor["name"], tensor["datatype"], tensor["shape"], raw)
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(f"{len(body)} bytes cannot be read as tensors ({error})") from error
    return arrays


def _written(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], bytes]:
    tensors, raws = [], []
    for name, array in arrays.items():
        texts = array.dtype == object
        raw = pack(array) if texts else array.tobytes()
        tensors.append(
            {
                "name": name,
                "datatype": "BYTES" if texts else _TRITON[array.dtype],
                "shape": array.shape,
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        raws.append(raw)
    return tensors, b"".join(raws)


def _array(name: str, datatype: str, shape: list[int], raw: bytes) -> np.ndarray:
    try:
        if datatype == "BYTES":
            return np.array(unpack(raw), dtype=object).reshape(shape)
        return np.frombuffer(raw, dtype=_NUMPY[datatype]).reshape(shape)
    except (KeyError, ValueError, struct.error) as error:
        raise ServingError(
            f"output {name} ({datatype}, {tuple(shape)}) came as {len(raw)} bytes ({error})"
        ) from error


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
