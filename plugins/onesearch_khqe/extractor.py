"""Finding keywords by the pool: what any extractor is, and the one by dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from onesearch.contracts.tokenizer import Keyword
from onesearch.progress import Progress

from onesearch_khqe.automaton import KeywordMatcher
from onesearch_khqe.items import structured_keywords
from onesearch_khqe.pool import KeywordPool

if TYPE_CHECKING:
    from onesearch_khqe.config import KhqeConfig


class KeywordExtractor:
    """Finds keywords by the pool. Derive from it to find them otherwise; name your class in
    ``keywords.extractor``.

    It is used in both environments: :meth:`keywords` while learning and serving, :meth:`read_items` while
    learning only. Its module must import without torch.
    """

    def __init__(self, config: KhqeConfig) -> None:
        self.config = config
        self.pool: KeywordPool | None = None

    def use(self, pool: KeywordPool) -> None:
        """Take the mined pool; called before :meth:`keywords`."""
        self.pool = pool
        self._matcher = KeywordMatcher(pool.by_text())

    def read_items(
        self, items: pl.DataFrame, texts: Sequence[str], views: Sequence[int], work: Path, progress: Progress
    ) -> list[list[tuple[str, str]]]:
        """Per item ``(text, attribute type)`` before there is a pool: what the pool is mined from.

        The default reads structured attributes. ``views`` are page views by item; ``work`` is a folder for
        caches.
        """
        return structured_keywords(items)

    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        """Keywords of query or item texts, left to right; those that are in the pool can be fused."""
        assert self.pool is not None, "use(pool) comes first"
        pool = self.pool
        return [
            [Keyword(pool.texts[entry], pool.attribute(entry)) for entry in self._matcher.find(text)]
            for text in texts
        ]
