"""A keyword extractor: slogans in brackets are keywords of the type Marketing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from onesearch.contracts import Keyword
from onesearch.progress import Progress
from onesearch_khqe.extractor import KeywordExtractor

_SLOGAN = re.compile(r"[\[【]\s*([^\]】]{1,40}?)\s*[\]】]")


def slogans(text: str) -> list[str]:
    """What stands in brackets, in lower case."""
    return [found.lower() for found in _SLOGAN.findall(text)]


class SloganExtractor(KeywordExtractor):
    """The dictionary in the box, and slogans first."""

    def read_items(
        self, items: pl.DataFrame, texts: Sequence[str], views: Sequence[int], work: Path, progress: Progress
    ) -> list[list[tuple[str, str]]]:
        """Structured attributes, and the slogans of the title."""
        structured = super().read_items(items, texts, views, work, progress)
        titles = items["title"].to_list()
        return [
            [*row, *((slogan, "Marketing") for slogan in slogans(title))]
            for row, title in zip(structured, titles, strict=True)
        ]

    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        """Slogans, then what the dictionary finds elsewhere."""
        plain = super().keywords([_SLOGAN.sub(" ", text) for text in texts])
        return [
            [*(Keyword(slogan, "Marketing") for slogan in slogans(text)), *found]
            for text, found in zip(texts, plain, strict=True)
        ]
