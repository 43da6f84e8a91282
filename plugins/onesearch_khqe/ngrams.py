"""Texts → ids of hashed n-grams: what the embedded default encoder reads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from onesearch.training.examples import Ragged

from onesearch_khqe.words import is_cjk, normalise, pieces

CHARACTER_SIZES = (3, 4, 5)
CJK_SIZES = (1, 2, 3)
_CACHE_LIMIT = 200_000


class NgramHasher:
    """Hashes a text's n-grams into buckets with CRC-32.

    A word gives itself, its character 3- to 5-grams with ``<`` and ``>`` as its ends, and a pair with the
    word after it; a run of CJK characters gives its character 1- to 3-grams. Repeats stay.
    """

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self._words: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Bucket of every n-gram of a text; ``[0]`` when it has none."""
        found: list[int] = []
        before = ""
        for piece in pieces(normalise(text)):
            grams = self._words.get(piece)
            if grams is None:
                grams = self._piece(piece)
                if len(self._words) < _CACHE_LIMIT:
                    self._words[piece] = grams
            found += grams
            if before and not is_cjk(piece):
                found.append(self._bucket(f"{before}\x02{piece}"))
            before = "" if is_cjk(piece) else piece
        return found or [0]

    def bag(self, texts: Sequence[str]) -> Ragged:
        """The ids of many texts."""
        return Ragged.of([self.ids(text) for text in texts])

    def _piece(self, piece: str) -> list[int]:
        if is_cjk(piece):
            return [
                self._bucket(piece[at : at + size])
                for size in CJK_SIZES
                for at in range(len(piece) - size + 1)
            ]
        closed = f"<{piece}>"
        return [self._bucket(f"\x01{piece}")] + [
            self._bucket(closed[at : at + size])
            for size in CHARACTER_SIZES
            for at in range(len(closed) - size + 1)
        ]

    def _bucket(self, gram: str) -> int:
        return zlib.crc32(gram.encode("utf-8", "surrogatepass")) % self.buckets
