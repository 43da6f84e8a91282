import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError
from onesearch_pars.documents import Documents, pack_texts, unpack_texts

K1, B = 0.5, 0.5
WORDS = st.lists(st.sampled_from("abcdefg"), max_size=8).map(" ".join)


def test_weights_and_idf_are_bm25s() -> None:
    made = Documents.build(["a a b", "b c"], str.split, k1=1.2, b=0.75)
    a, b = made.vocabulary["a"], made.vocabulary["b"]
    assert made.idf[a] == pytest.approx(np.log(1 + (2 - 1 + 0.5) / 1.5))
    assert made.idf[b] == pytest.approx(np.log(1 + (2 - 2 + 0.5) / 2.5))
    matched = made.match(np.array([a, b]), np.array([0, 1]))
    norm = 1.2 * (0.25 + 0.75 * 3 / 2.5)
    assert matched[0] == pytest.approx([2 / (2 + norm), 1 / (1 + norm)], rel=1e-3)
    assert matched[1, 0] == 0 and matched[1, 1] > matched[0, 1]


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_match_equals_counting_by_hand(texts: list[str], query: str) -> None:
    made = Documents.build(texts, str.split, K1, B)
    numbers = made.numbers(query.split())
    items = np.arange(len(texts))[::-1]
    average = max(1.0, float(np.mean([len(text.split()) for text in texts])))
    terms = {number: term for term, number in made.vocabulary.items()}
    expected = np.zeros((len(items), len(numbers)))
    for row, item in enumerate(items):
        words = texts[item].split()
        for column, number in enumerate(numbers):
            count = words.count(terms[number])
            expected[row, column] = count / (count + K1 * (1 - B + B * len(words) / average))
    np.testing.assert_allclose(made.match(numbers, items), expected, atol=1e-3)


def test_arrays_round_trip_and_misfits_are_noticed() -> None:
    made = Documents.build(["red shirt", "", "blue shirt"], str.split, K1, B)
    arrays = made.arrays("title")
    again = Documents.of_arrays(arrays, "title")
    assert again.vocabulary == made.vocabulary and len(again) == 3
    for name, array in again.arrays("title").items():
        np.testing.assert_array_equal(array, arrays[name])
    with pytest.raises(ArtifactError, match="title"):
        Documents.of_arrays({**arrays, "title.idf": arrays["title.idf"][:1]}, "title")


def test_an_empty_catalogue_matches_nothing() -> None:
    made = Documents.build([], str.split, K1, B)
    assert len(made) == 0
    assert made.match(made.numbers(["a"]), np.zeros(0, np.int32)).shape == (0, 0)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n", codec="utf-8"), min_size=1)))
def test_texts_round_trip(texts: list[str]) -> None:
    assert unpack_texts(pack_texts(texts)) == texts
