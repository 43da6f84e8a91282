"""Which keywords of a text are fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onesearch.contracts.tokenizer import Keyword

from onesearch_khqe.pool import KeywordPool


class KeywordSelection:
    """Maps found keywords to entries of the pool: core ones first, then by page views, ``limit`` at most."""

    def __init__(self, pool: KeywordPool, limit: int) -> None:
        self._by_text = pool.by_text()
        self._rank = list(zip((~pool.core).tolist(), (-pool.views).tolist(), strict=True))
        self._limit = limit

    def entries(self, texts: Iterable[str]) -> list[int]:
        """Entries of the surface forms that the pool holds, each once."""
        known = self._by_text
        found = list(dict.fromkeys(known[text] for text in texts if text in known))
        if len(found) > self._limit:
            found = sorted(found, key=self._rank.__getitem__)[: self._limit]
        return found

    def of_keywords(self, rows: Sequence[Sequence[Keyword]]) -> list[list[int]]:
        """Entries of each text's keywords."""
        return [self.entries(keyword.text for keyword in row) for row in rows]
