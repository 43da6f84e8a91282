"""Texts → ids of hashed n-grams: what the embedded default encoder reads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from onesearch.training.examples import Ragged

from onesearch_khqe.words import is_cjk, normalise, pieces

CHARACTER_SIZES = (3, 4, 5)
CJK_SIZES = (1, 2, 3)
PAIR = "\x02"
_CACHE_LIMIT = 200_000
_CHUNK = 1 << 18


class NgramHasher:
    """Hashes a text's n-grams into buckets with CRC-32.

    A word gives itself, its character 3- to 5-grams with ``<`` and ``>`` as its ends, and a pair with the
    word before it; a run of CJK characters gives its character 1- to 3-grams. Repeats stay.
    """

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Bucket of every n-gram of a text; ``[0]`` when it has none."""
        found: list[int] = []
        for part in _parts(text):
            found += self._ids(part)
        return found or [0]

    def bag(self, texts: Sequence[str]) -> Ragged:
        """The ids of many texts: words are looked up one by one, their ids are put together in bulk."""
        number: dict[str, int] = {}
        parts: list[int] = []
        ends = np.empty(len(texts), np.int64)
        for at, text in enumerate(texts):
            parts += [number.setdefault(part, len(number)) for part in _parts(text) or [""]]
            ends[at] = len(parts)
        words = Ragged.of([self._ids(part) if part else [0] for part in number])
        rows = np.array(parts, dtype=np.int64)
        counts = np.diff(words.offsets)[rows]
        after = np.cumsum(counts)
        values = np.empty(int(after[-1]) if len(after) else 0, np.int32)
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            first = after[some] - counts[some]
            at_word = np.repeat(words.offsets[rows[some]] - first, counts[some])
            values[first[0] : after[some][-1]] = words.values[at_word + np.arange(first[0], after[some][-1])]
        return Ragged(values, np.concatenate([[0], after[ends - 1]]).astype(np.int64))

    def _ids(self, part: str) -> list[int]:
        known = self._known.get(part)
        if known is None:
            known = self._hashed(part)
            if len(self._known) < _CACHE_LIMIT:
                self._known[part] = known
        return known

    def _hashed(self, part: str) -> list[int]:
        if is_cjk(part):
            return [
                self._bucket(part[at : at + size]) for size in CJK_SIZES for at in range(len(part) - size + 1)
            ]
        if PAIR in part:
            return [self._bucket(part)]
        closed = f"<{part}>"
        return [self._bucket(f"\x01{part}")] + [
            self._bucket(closed[at : at + size])
            for size in CHARACTER_SIZES
            for at in range(len(closed) - size + 1)
        ]

    def _bucket(self, gram: str) -> int:
        return zlib.crc32(gram.encode("utf-8", "surrogatepass")) % self.buckets


def _parts(text: str) -> list[str]:
    """Words, each followed by its pair with the word before it; runs of CJK characters, which form no
    pairs."""
    found: list[str] = []
    before = ""
    for piece in pieces(normalise(text)):
        found.append(piece)
        if is_cjk(piece):
            before = ""
            continue
        if before:
            found.append(f"{before}{PAIR}{piece}")
        before = piece
    return found
