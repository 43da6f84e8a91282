"""Hits in the form in which the protocol sends them, written straight from the tensors of an answer.

An answer of ten hits has a hundred small messages inside it; to make each of them as an object, only to have
it written, takes longer than to look the items up.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from onesearch.serving import codecs

# What stands before each field: its number and kind, in the wire form of protocol buffers.
_HITS = b"\x12"
_RANK, _ITEM, _SCORE, _LOG_PROB, _PARTS, _PROPENSITY = (
    b"\x08",
    b"\x12",
    b"\x1d",
    b"\x25",
    b"\x2a",
    b"\xa5\x01",
)
_PART_NAME, _PART_VALUE = b"\x0a", b"\x15"
_ITEM_ID, _TITLE, _CATEGORY, _BRAND, _PRICE, _IN_STOCK, _SID = (
    b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x29", b"\x30\x01", b"\x3a",
)  # fmt: skip
_NUMBER = struct.Struct("<d")
_SEPARATOR = codecs.CATEGORY_SEPARATOR.encode()


class _Numbers(NamedTuple):
    """Everything of a hit that takes the same room in each: what stands between its numbers, and where."""

    form: struct.Struct
    marks: tuple[bytes, ...]

    def write(self, *values: float) -> bytes:
        """The numbers, each behind its mark."""
        return self.form.pack(*(one for pair in zip(self.marks, values, strict=True) for one in pair))


def write_hits(arrays: Mapping[str, np.ndarray], before: int) -> bytes:
    """The hits of a ``SearchResponse``, serialised; ``before``: places before the first.

    ``arrays`` are the tensors that the models answer one request with.
    """
    count = int(arrays["COUNT"][0, 0])
    numbers = _numbers(tuple(arrays["PART_NAMES"][0]))
    prices, stocks, sids, scores, log_probs, parts = (
        arrays[name][0, :count].tolist()
        for name in ("PRICE", "IN_STOCK", "SID", "SCORE", "LOG_PROB", "SCORE_PARTS")
    )
    texts = [arrays[name][0] for name in ("ITEM_ID", "TITLE", "CATEGORY", "BRAND")]
    written = []
    for at in range(count):
        item_id, title, category, brand = (column[at] for column in texts)
        item = _item(item_id, title, category, brand, prices[at], stocks[at], sids[at])
        told = numbers.write(scores[at], log_probs[at], *parts[at], 1.0)
        written += [_HITS, _sized(_RANK + _varint(before + at + 1) + _ITEM + _sized(item) + told)]
    return b"".join(written)


def _item(
    item_id: bytes, title: bytes, category: bytes, brand: bytes, price: float, stock: bool, sid: list[int]
) -> bytes:
    written = [_ITEM_ID, _sized(item_id), _TITLE, _sized(title), _BRAND, _sized(brand)]
    for name in category.split(_SEPARATOR) if category else ():
        written += [_CATEGORY, _sized(name)]
    if price == price:
        written += [_PRICE, _NUMBER.pack(price)]
    if stock:
        written.append(_IN_STOCK)
    written += [_SID, _sized(b"".join(map(_varint, sid)))]
    return b"".join(written)


@lru_cache(maxsize=16)
def _numbers(names: tuple[bytes, ...]) -> _Numbers:
    """Score, log-probability, the parts of these names, propensity."""
    marks = [_SCORE, _LOG_PROB]
    for name in names:
        head = _PART_NAME + _sized(name) + _PART_VALUE
        marks.append(_PARTS + _varint(len(head) + 4) + head)
    marks.append(_PROPENSITY)
    return _Numbers(struct.Struct("<" + "".join(f"{len(mark)}sf" for mark in marks)), tuple(marks))


def _sized(raw: bytes) -> bytes:
    return _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


_SMALL = [bytes((value,)) for value in range(0x80)]
