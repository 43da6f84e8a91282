from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from onesearch_khqe.automaton import KeywordMatcher
from onesearch_khqe.config import KeywordConfig
from onesearch_khqe.mining import mine_phrases, mine_pool, page_views, phrases
from onesearch_khqe.words import normalise


def pairs(*rows: tuple[str, int, int, int, int, float]) -> pl.DataFrame:
    names = ["query", "item", "impressions", "clicks", "orders", "weight"]
    return pl.DataFrame(rows, schema=names, orient="row")


LOG = pairs(("red lamp", 0, 10, 3, 1, 5.0), ("lamp", 1, 0, 0, 0, 0.8), ("lamp", 2, 99, 0, 0, 0.0))


def test_page_views_count_positive_pairs_only() -> None:
    assert page_views(LOG).rows() == [("red lamp", 0, 14), ("lamp", 1, 1)]


def test_attributes_take_the_views_of_their_items() -> None:
    keywords = [[("red", "Color"), ("lamp", "Entity")], [("lamp", "Entity")], [("rug", "Entity")]]
    pool = mine_pool(keywords, ["Red lamp", "Lamp", "Rug"], LOG, KeywordConfig())
    views = {(pool.texts[at], pool.attribute(at)): int(pool.views[at]) for at in range(len(pool))}
    assert views == {("lamp", "Entity"): 15, ("red", "Color"): 14, ("rug", "Entity"): 0}


def test_words_are_mined_from_titles_when_there_are_no_attributes() -> None:
    titles = ["Acme Red Lamp with shade", "Acme blue lamp", "Oak rug"]
    pool = mine_pool([[], [], []], titles, LOG, KeywordConfig(min_views=1))
    views = dict(zip(pool.texts, pool.views.tolist(), strict=True))
    assert views == {"lamp": 15, "red": 14, "red lamp": 14}
    assert pool.attribute(pool.texts.index("lamp")) == "Entity"
    assert pool.attribute(pool.texts.index("red")) == "Color"
    never = mine_pool([[], [], []], titles, LOG, KeywordConfig(mine_titles="never"))
    assert len(never) == 0


def test_chance_neighbours_are_no_phrase() -> None:
    log = pl.DataFrame({"query": ["a1 b1", "a1", "b1"], "item": [0, 1, 2], "views": [1, 50, 50]})
    found = mine_phrases(["a1 b1 c", "a1 x", "b1 y"], log, 1)
    assert {text for text, _, _ in found} == {"a1", "b1"}


def test_phrases() -> None:
    assert phrases("shower head in chrome") == ["shower", "shower head", "head", "head in chrome", "chrome"]
    assert phrases("3 in. pipe") == ["3 in. pipe", "pipe"]
    assert phrases("sc-141 12ft") == ["sc", "sc-141", "sc-141 12ft", "141", "141 12ft", "12ft"]
    assert phrases("pvc, pipe") == ["pvc", "pipe"]
    assert phrases("貂皮衣") == ["貂皮", "皮衣", "貂皮衣"]
    assert phrases("5 x") == []


@given(st.text(alphabet="ab1-. 皮衣", max_size=20))
def test_what_is_mined_can_be_found(text: str) -> None:
    text = normalise(text)
    for phrase in phrases(text):
        assert KeywordMatcher({phrase: 7}).find(text), phrase
