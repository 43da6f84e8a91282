"""Texts → normalised text and its words. Spaced scripts have words; runs of Chinese or Japanese have
characters."""

from __future__ import annotations

import re
import unicodedata

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
PIECE = re.compile(rf"[{CJK}]+|\d+(?:[./]\d+)*|[^\W\d_{CJK}]+")
_CJK_CHARACTER = re.compile(f"[{CJK}]")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
TEXT_LIMIT = 2_000
"""Characters of a text that are looked at: no title is longer, and a 100 kB query must not cost more."""

_STOP = (
    "a an and are as at be but by for from if in into is it no not of on or per such that the their then "
    "there these they this to was will with w x"
)
STOP_WORDS = frozenset(_STOP.split())


def normalise(text: str) -> str:
    """NFKC, lower case, control characters and runs of space → one space; at most :data:`TEXT_LIMIT`
    characters."""
    cut = text[:TEXT_LIMIT]
    if not cut.isascii():
        cut = unicodedata.normalize("NFKC", cut)[:TEXT_LIMIT]
    return _SPACE.sub(" ", cut.lower()).strip()


def pieces(text: str) -> list[str]:
    """Words, numbers and runs of CJK characters of a normalised text, in order."""
    return PIECE.findall(text)


def is_cjk(piece: str) -> bool:
    """Whether a piece (or character) is of a script that is written without spaces."""
    return bool(piece) and _CJK_CHARACTER.match(piece) is not None


def joins(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word, so that no word boundary lies between them."""
    return left.isalnum() and right.isalnum() and not is_cjk(left) and not is_cjk(right)
