from __future__ import annotations

import sys
import types
from collections.abc import Sequence

import polars as pl
import pytest
from onesearch.contracts.tokenizer import Keyword
from onesearch.errors import ConfigError, PluginError
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.extractor import KeywordExtractor
from onesearch_khqe.extractors import make_extractor
from onesearch_khqe.items import item_texts, structured_keywords, text_keys
from onesearch_khqe.pool import KeywordPool


def named(name: str) -> KhqeConfig:
    return KhqeConfig(keywords={"extractor": name})  # type: ignore[arg-type]


def test_by_the_pool() -> None:
    extractor = make_extractor(KhqeConfig())
    extractor.use(KeywordPool.ranked([("red", "Color", 3), ("table lamp", "Entity", 9)]))
    assert extractor.keywords(["Red table lamp", "rug"]) == [
        [Keyword("red", "Color"), Keyword("table lamp", "Entity")],
        [],
    ]


class Shouting(KeywordExtractor):
    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        return [[Keyword(text.upper(), "Marketing")] for text in texts]


def test_a_class_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("someones_words")
    module.Shouting = Shouting  # type: ignore[attr-defined]
    module.other = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "someones_words", module)
    assert make_extractor(named("someones_words:Shouting")).keywords(["a"]) == [[Keyword("A", "Marketing")]]
    with pytest.raises(PluginError, match="not a KeywordExtractor"):
        make_extractor(named("someones_words:other"))
    with pytest.raises(PluginError, match="cannot be imported"):
        make_extractor(named("someones_words:Missing"))
    with pytest.raises(ConfigError, match="dictionary"):
        make_extractor(named("dictionery"))


ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b"],
        "title": ["Red Lamp", "Rug"],
        "category": [["home", "lamps"], []],
        "attributes": [[{"type": "Color", "value": "Red"}, {"type": "Brand", "value": "Acme"}], []],
        "detail_text": [None, "soft wool " * 100],
        "ocr_text": ["SALE", None],
    }
)


def test_an_items_text() -> None:
    texts = item_texts(ITEMS, detail_words=3)
    assert texts == ["Red Lamp lamps Acme SALE", "Rug soft wool soft"]
    assert item_texts(ITEMS, detail_words=0) == ["Red Lamp lamps Acme", "Rug"]
    assert item_texts(ITEMS.select("title")) == ["Red Lamp", "Rug"]
    assert len(set(text_keys([*texts, texts[0]]).tolist())) == 2


def test_structured_attributes() -> None:
    assert structured_keywords(ITEMS) == [[("red", "Color"), ("acme", "Brand")], []]
    assert structured_keywords(ITEMS.select("title")) == [[], []]
