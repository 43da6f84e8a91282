"""A search's request and its answer as one tensor each.

Triton and its Python backend take tens of microseconds a tensor, on either side: with a dozen of them as long
as the cheap steps of a search take.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from onesearch.errors import ServingError, UsageError
from onesearch.serving.answers import read_explanation
from onesearch.serving.conversion import explanation_to
from onesearch.serving.message import write_hits
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.requests import places_before

REQUEST = "REQUEST"
"""The tensor that holds all of a request's."""
PACKED = "PACKED"
"""The tensor that holds all of an answer's."""

_TEXTS = ("QUERY", "STATE", "FILTERS", "GUIDE", "SHOWN")
_NUMBERS = ("BEAMS", "CERTIFY", "K", "OFFSET")
_FLAGS = ("RERANK", "EXPLAIN")
_HEAD = struct.Struct("<4i 2? 2q 5I")  # numbers, flags, CATALOGUE, lengths of the texts that follow


def pack_request(values: Mapping[str, Any]) -> bytes:
    """What the models read of one search (:func:`onesearch.serving.engine.search_values`) in one text."""
    texts = [values[name] for name in _TEXTS]
    numbers = [values[name] for name in (*_NUMBERS, *_FLAGS)]
    return _HEAD.pack(*numbers, *values["CATALOGUE"], *map(len, texts)) + b"".join(texts)


def unpack_request(raw: bytes) -> dict[str, np.ndarray]:
    """What :func:`pack_request` wrote, as tensors of a batch of one.

    Raises UsageError where it is something else.
    """
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


def pack_answer(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The tensors of one search's request and answer, as the answer that the gateway passes on.

    Made where the tensors are, so that nothing between them and the shop takes it apart again. Who asked for
    it adds release, request and page.
    """
    explain = bool(tensors["EXPLAIN"][0, 0])
    told = pb.SearchResponse(
        generation=int(tensors["GENERATION"][0, 0]),
        explanation=explanation_to(read_explanation(tensors)) if explain else None,
    )
    before = places_before(int(tensors["OFFSET"][0, 0]), tensors["SHOWN"][0, 0])
    # Messages one behind the other are one message with the fields of both.
    packed: bytes = told.SerializeToString() + write_hits(tensors, before)
    return packed


def unpack_answer(raw: bytes) -> pb.SearchResponse:
    """What :func:`pack_answer` wrote. Raises ServingError where it is something else."""
    try:
        return pb.SearchResponse.FromString(raw)
    except DecodeError as error:
        raise ServingError(f"{PACKED}: {len(raw)} bytes are no answer ({error})") from error
