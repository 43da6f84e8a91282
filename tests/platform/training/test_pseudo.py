from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from onesearch.training.pseudo import item_texts, pseudo_queries, title_words

ITEMS = pl.DataFrame(
    {
        "title": ["Acme 12-Gauge Steel Angle (2-Pack)", "新款女士羊毛连衣裙 XL", "", "Lamp"],
        "attributes": [
            [{"type": "Brand", "value": "Acme"}, {"type": "Color", "value": "Silver"}],
            [],
            [],
            [{"type": "Entity", "value": "lamp"}],
        ],
    }
)


def test_pseudo_queries_are_words_of_the_item() -> None:
    texts, items = pseudo_queries(ITEMS, 8, seed=1)
    assert len(texts) == len(items)
    allowed = {"acme", "12-gauge", "steel", "angle", "2-pack", "silver"}
    assert {
        word for text, item in zip(texts, items, strict=True) if item == 0 for word in text.split()
    } <= allowed
    chinese = [text for text, item in zip(texts, items, strict=True) if item == 1]
    assert chinese and all(set(text) <= set("新款女士羊毛连衣裙 xl") for text in chinese)
    assert not (items == 2).any()
    assert [text for text, item in zip(texts, items, strict=True) if item == 3] == ["lamp"]
    assert all(1 <= (items == item).sum() <= 8 for item in (0, 1, 3))


def test_the_seed_decides() -> None:
    assert pseudo_queries(ITEMS, 3, seed=1)[0] == pseudo_queries(ITEMS, 3, seed=1)[0]
    assert pseudo_queries(ITEMS, 8, seed=1)[0] != pseudo_queries(ITEMS, 8, seed=2)[0]


def test_words_of_titles() -> None:
    assert title_words("A/C Unit, 9,000 BTU | White!") == ["A/C", "Unit", "9,000", "BTU", "White"]
    assert title_words("新款女士羊毛裙2023") == ["新款", "女士", "羊毛", "裙", "2023"]


def test_an_items_text_adds_what_its_title_lacks() -> None:
    assert item_texts(ITEMS)[0] == "Acme 12-Gauge Steel Angle (2-Pack) Silver"


@given(st.text(max_size=80))
def test_any_title_is_cut_without_error(title: str) -> None:
    items = pl.DataFrame({"title": [title]}).with_columns(attributes=pl.lit([], ITEMS.schema["attributes"]))
    texts, _ = pseudo_queries(items, 2)
    assert all(text == text.lower() and text.strip() for text in texts)
