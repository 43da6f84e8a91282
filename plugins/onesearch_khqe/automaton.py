"""Aho-Corasick matching of the keyword pool: longest matches, left to right."""

from __future__ import annotations

from collections.abc import Mapping

import ahocorasick

from onesearch_khqe.words import joins, normalise


class KeywordMatcher:
    """Finds known keywords in texts.

    Of the matches that start first the longest wins, and the next one starts after it. In spaced scripts a
    match begins and ends at a word boundary; between CJK characters there is always one.
    """

    def __init__(self, entries: Mapping[str, int]) -> None:
        """``entries``: normalised surface form → number that :meth:`find` returns."""
        self._automaton = ahocorasick.Automaton()
        for text, entry in entries.items():
            if text:
                self._automaton.add_word(text, (entry, len(text)))
        self._empty = len(self._automaton) == 0
        if not self._empty:
            self._automaton.make_automaton()

    def find(self, text: str) -> list[int]:
        """Entries found in a text, in the order of their appearance; one that appears twice is told twice."""
        if self._empty:
            return []
        text = normalise(text)
        longest: dict[int, tuple[int, int]] = {}
        for last, (entry, length) in self._automaton.iter(text):
            start, end = last + 1 - length, last + 1
            if start and joins(text[start - 1], text[start]):
                continue
            if end < len(text) and joins(text[last], text[end]):
                continue
            if end > longest.get(start, (0, 0))[0]:
                longest[start] = (end, entry)
        found: list[int] = []
        free = 0
        for start in sorted(longest):
            if start >= free:
                free, entry = longest[start]
                found.append(entry)
        return found
