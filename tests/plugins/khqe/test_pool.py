from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError
from onesearch_khqe.attributes import ATTRIBUTES, guess_attribute
from onesearch_khqe.pool import KeywordPool
from onesearch_khqe.selection import KeywordSelection

ROWS = [("lamp", "Entity", 60), ("rug", "Entity", 30), ("desk", "Entity", 10), ("red", "Color", 0)]


def test_ranked_by_page_views_within_a_type() -> None:
    pool = KeywordPool.ranked(reversed(ROWS), core_share=0.9)
    assert pool.texts == ("lamp", "rug", "desk", "red")
    assert [pool.attribute(at) for at in range(4)] == ["Entity", "Entity", "Entity", "Color"]
    assert pool.core.tolist() == [True, True, False, False]
    assert KeywordPool.ranked(ROWS, size=2).texts == ("lamp", "rug", "red")


def test_a_text_of_two_types_goes_to_the_more_viewed() -> None:
    pool = KeywordPool.ranked([("orange", "Color", 5), ("orange", "Entity", 9)])
    assert pool.attribute(pool.by_text()["orange"]) == "Entity"


def test_selection_prefers_core_then_views() -> None:
    pool = KeywordPool.ranked(ROWS, core_share=0.5)
    select = KeywordSelection(pool, 2)
    assert [pool.texts[at] for at in select.entries(["desk", "red", "lamp", "lamp", "sofa"])] == [
        "lamp",
        "desk",
    ]


keyword = st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(ATTRIBUTES), st.integers(0, 99))


@given(st.lists(keyword, max_size=12, unique_by=lambda row: row[:2]))
def test_saved_and_loaded(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]) -> None:
    path = tmp_path_factory.mktemp("pool") / "pool.json"
    pool = KeywordPool.ranked(rows)
    pool.save(path)
    again = KeywordPool.load(path)
    assert again.texts == pool.texts and again.types.tolist() == pool.types.tolist()
    assert again.views.tolist() == pool.views.tolist() and again.core.tolist() == pool.core.tolist()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"Entity": 3}', '{"Nothing": [["a", 1, true]]}', '{"Entity": [["a"]]}']
)
def test_a_broken_pool_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pool.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"pool\.json"):
        KeywordPool.load(path)


@pytest.mark.parametrize(
    ("text", "last", "first", "kind"),
    [
        ("12 ft", 0.1, 0.0, "Specifications"),
        ("$ 30", 0.1, 0.0, "Price"),
        ("199元", 0.1, 0.0, "Price"),
        ("dark red", 0.1, 0.0, "Color"),
        ("不锈钢", 0.2, 0.0, "Material"),
        ("sc-141", 0.3, 0.0, "Model"),
        ("delta", 0.1, 0.9, "Brand"),
        ("faucet", 0.7, 0.1, "Entity"),
        ("single handle", 0.1, 0.1, "Modifier"),
    ],
)
def test_guess(text: str, last: float, first: float, kind: str) -> None:
    assert guess_attribute(text, last, first) == kind
