import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ConfigError
from onesearch_pars.text import Analyser, fragments, phrases


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Angle Brackets for the walls", ["angl", "bracket", "wall"]),
        ("12ft x 3/4 in. pipe", ["12", "ft", "x", "3/4", "pipe"]),
        ("连衣裙 红色", ["连衣", "衣裙", "红色"]),
        ("裙", ["裙"]),
        ("LED灯5W", ["led", "灯", "5", "w"]),
        ("ｆｕｌｌ width", ["full", "width"]),
        ("the of and", []),
        ("", []),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert Analyser().terms(text) == terms


def test_language_none_keeps_words_as_they_are() -> None:
    assert Analyser("none").terms("Angle Brackets") == ["angle", "brackets"]


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"klingon.*english"):
        Analyser("klingon")


def test_phrases_and_fragments() -> None:
    assert phrases(["a", "b", "c"]) == ["a b", "b c"]
    assert phrases(["a"]) == []
    assert fragments("abc 裙子 7") == ["<ab", "abc", "bc>", "裙", "子", "<7>"]


@given(st.text(max_size=60))
def test_any_text_gives_terms_without_line_ends(text: str) -> None:
    for term in [*Analyser().terms(text), *fragments(text)]:
        assert term and "\n" not in term
