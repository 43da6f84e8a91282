from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from onesearch_khqe.automaton import KeywordMatcher
from onesearch_khqe.words import joins, normalise


def find(text: str, *keywords: str) -> list[str]:
    matcher = KeywordMatcher({keyword: at for at, keyword in enumerate(keywords)})
    return [keywords[at] for at in matcher.find(text)]


def test_longest_match_left_to_right() -> None:
    assert find("Shower head, rain", "shower", "shower head", "head", "rain") == ["shower head", "rain"]
    assert find("red red", "red") == ["red", "red"]


def test_word_boundaries_in_spaced_scripts_only() -> None:
    assert find("starred lamps red", "red", "lamp") == ["red"]
    assert find("法式貂皮大衣", "貂皮", "大衣", "皮大") == ["貂皮", "大衣"]
    assert find("貂皮XL码", "xl", "码") == ["xl", "码"]


def test_a_longer_match_that_ends_inside_a_word_does_not_hide_a_shorter_one() -> None:
    assert find("red lampshade", "red", "red lamp") == ["red"]


def test_empty() -> None:
    assert find("anything") == [] and find("", "red") == []


def slowly(text: str, keywords: list[str]) -> list[str]:
    text, found, at = normalise(text), [], 0
    while at < len(text):
        best = ""
        for keyword in keywords:
            end = at + len(keyword)
            free_left = at == 0 or not joins(text[at - 1], text[at])
            free_right = end >= len(text) or not joins(text[end - 1], text[end])
            if text.startswith(keyword, at) and free_left and free_right and len(keyword) > len(best):
                best = keyword
        found += [best] if best else []
        at += len(best) or 1
    return found


letters = st.text(alphabet="ab 皮衣1", max_size=24)


@given(letters, st.lists(st.text(alphabet="ab 皮衣1", min_size=1, max_size=5), max_size=8, unique=True))
def test_equals_a_plain_search(text: str, keywords: list[str]) -> None:
    keywords = sorted({normalise(keyword) for keyword in keywords} - {""})
    assert find(text, *keywords) == slowly(text, keywords)
