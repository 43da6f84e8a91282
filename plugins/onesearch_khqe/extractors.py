"""Who finds keywords: the dictionary in the box, a multimodal model, or a class of your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onesearch.errors import ConfigError, PluginError

from onesearch_khqe.extractor import KeywordExtractor
from onesearch_khqe.multimodal import MultimodalExtractor

if TYPE_CHECKING:
    from onesearch_khqe.config import KhqeConfig


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
