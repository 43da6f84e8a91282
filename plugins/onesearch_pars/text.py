"""Texts → terms, for matching queries with items: stems for spaced scripts, character bigrams for Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import Stemmer
from onesearch.errors import ConfigError

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECE = re.compile(rf"[{_CJK}]+|\d+(?:[./]\d+)*|[^\W\d_{_CJK}]+")
_IS_CJK = re.compile(rf"[{_CJK}]")

# fmt: off
STOP_WORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no",
    "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to",
    "was", "will", "with",
))
# fmt: on


class Analyser:
    """Splits texts into terms.

    Letters, digits and Chinese or Japanese characters are pieces of their own (``12ft`` is ``12`` and
    ``ft``). A word is stemmed unless it is a stop word, which is dropped; a run of Chinese is cut into
    overlapping pairs of characters.
    """

    def __init__(self, language: str = "english") -> None:
        """``language``: a Snowball stemmer's name, or ``none`` for no stemming.

        Raises:
            ConfigError: there is no such stemmer.
        """
        if language != "none" and language not in Stemmer.algorithms():
            known = ", ".join(Stemmer.algorithms())
            raise ConfigError(f"there is no stemmer for '{language}'; known are none, {known}")
        self.language = language
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language)
        self._stems: dict[str, str] = {}

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, repeats included."""
        found: list[str] = []
        for piece in _PIECE.findall(unicodedata.normalize("NFKC", text).lower()):
            if piece[0].isdigit():
                found.append(piece)
            elif _IS_CJK.match(piece):
                found += [piece[at : at + 2] for at in range(max(1, len(piece) - 1))]
            elif piece not in STOP_WORDS:
                found.append(self._stem(piece))
        return found

    def _stem(self, word: str) -> str:
        if self._stemmer is None:
            return word
        stem = self._stems.get(word)
        if stem is None:
            stem = self._stemmer.stemWord(word)
            if len(self._stems) < 200_000:
                self._stems[word] = stem
        return stem


def phrases(terms: Sequence[str]) -> list[str]:
    """Neighbouring pairs of terms."""
    return [f"{left} {right}" for left, right in pairwise(terms)]


def fragments(text: str) -> list[str]:
    """Triples of letters of each word with its ends (``<ab``, ``abc``, ``bc>``); single characters of
    Chinese.

    So a misspelt word still matches in part.
    """
    found: list[str] = []
    for piece in _PIECE.findall(unicodedata.normalize("NFKC", text).lower()):
        if _IS_CJK.match(piece):
            found += piece
        else:
            word = f"<{piece}>"
            found += [word[at : at + 3] for at in range(len(word) - 2)]
    return found
