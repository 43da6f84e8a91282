"""Who finds keywords: the dictionary in the box, a multimodal model, or a class of your own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from onesearch.contracts.tokenizer import Keyword
from onesearch.errors import ConfigError, PluginError
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


def make_extractor(config: KhqeConfig) -> KeywordExtractor:
    """The extractor that the configuration names.

    Raises:
        ConfigError: the name is none of the built-in ones and no ``package.module:Class``.
        PluginError: the class cannot be imported or is no KeywordExtractor.
    """
    name = config.keywords.extractor
    if name == "dictionary":
        return KeywordExtractor(config)
    if name == "multimodal":
        from onesearch_khqe.multimodal import MultimodalExtractor

        return MultimodalExtractor(config)
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"tokenizer.khqe.keywords.extractor: '{name}' is neither 'dictionary' nor 'multimodal' "
            "nor 'package.module:Class'"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"keyword extractor '{name}' cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, KeywordExtractor)):
        raise PluginError(f"keyword extractor '{name}' is not a KeywordExtractor")
    return found(config)
