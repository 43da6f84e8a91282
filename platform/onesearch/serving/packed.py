"""A search's request and its answer as one tensor each.

Triton and its Python backend take tens of microseconds a tensor, on either side: with a dozen of them as long
as the cheap steps of a search take.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from onesearch.errors import ServingError, UsageError
from onesearch.serving.wire import read_response, write_response

REQUEST = "REQUEST"
"""The tensor that holds all of a request's."""
PACKED = "PACKED"
"""The tensor that holds all of an answer's."""

_HEAD_LENGTH = struct.Struct("<I")
_TEXTS = ("QUERY", "STATE", "FILTERS", "GUIDE", "SHOWN")
_NUMBERS = ("BEAMS", "CERTIFY", "K", "OFFSET")
_FLAGS = ("RERANK", "EXPLAIN")
_HEAD = struct.Struct("<4i 2? 2q 5I")  # numbers, flags, CATALOGUE, lengths of the texts that follow


def pack_request(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The tensors of one search (see :func:`onesearch.serving.engine.search_inputs`) in one text."""
    texts = [tensors[name][0, 0] for name in _TEXTS]
    numbers = [int(tensors[name][0, 0]) for name in _NUMBERS]
    flags = [bool(tensors[name][0, 0]) for name in _FLAGS]
    head = _HEAD.pack(*numbers, *flags, *tensors["CATALOGUE"][0].tolist(), *map(len, texts))
    return head + b"".join(texts)


def unpack_request(raw: bytes) -> dict[str, np.ndarray]:
    """What :func:`pack_request` wrote. Raises UsageError where it is something else."""
    try:
        values = _HEAD.unpack_from(raw)
    except struct.error as error:
        raise UsageError(f"{REQUEST}: {len(raw)} bytes are no request") from error
    lengths = values[8:]
    if _HEAD.size + sum(lengths) != len(raw):
        raise UsageError(f"{REQUEST}: {len(raw)} bytes, where {_HEAD.size + sum(lengths)} are told")
    tensors = {name: np.array([[value]], np.int32) for name, value in zip(_NUMBERS, values, strict=False)}
    tensors |= {name: np.array([[value]]) for name, value in zip(_FLAGS, values[4:6], strict=True)}
    tensors["CATALOGUE"] = np.array([values[6:8]], np.int64)
    at = _HEAD.size
    for name, length in zip(_TEXTS, lengths, strict=True):
        tensors[name] = np.empty((1, 1), dtype=object)
        tensors[name][0, 0] = raw[at : at + length]
        at += length
    return tensors


def pack_answer(tensors: Mapping[str, np.ndarray], names: Sequence[str]) -> bytes:
    """The named tensors of an answer in one text."""
    head, body = write_response({name: tensors[name] for name in names})
    return _HEAD_LENGTH.pack(head) + body


def unpack_answer(raw: bytes) -> dict[str, np.ndarray]:
    """What :func:`pack_answer` wrote. Raises ServingError where it is something else."""
    try:
        (head,) = _HEAD_LENGTH.unpack_from(raw)
    except struct.error as error:
        raise ServingError(f"{PACKED}: {len(raw)} bytes are no answer") from error
    return read_response(head, raw[_HEAD_LENGTH.size :])
