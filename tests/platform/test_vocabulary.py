"""The id space of prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError
from onesearch.vocabulary import NONE, PAD, POPULAR, SPECIALS, UNK, Vocabulary, pad

LEVELS = (7, 5, 3)
TEXTS = ["red lamp", "blue lamp", "oak chair", "红色 台灯", "蓝色 椅子"] * 4


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(TEXTS, LEVELS, size=320)


def test_layout(vocabulary: Vocabulary) -> None:
    assert (PAD, NONE, POPULAR, len(SPECIALS)) == (0, 9, 12, 13)
    assert [vocabulary.text.token_to_id(special) for special in SPECIALS] == list(range(13))
    assert vocabulary.size == vocabulary.text_size + 15
    assert [vocabulary.level_offset(level) - vocabulary.text_size for level in range(3)] == [0, 7, 12]
    ids = vocabulary.sid_ids(np.array([[0, 0, 0], [6, 4, 2]]))
    assert (ids - vocabulary.text_size).tolist() == [[0, 7, 12], [6, 11, 14]]
    assert ids.dtype == np.int32


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_has_ids_and_no_unknown(vocabulary: Vocabulary, text: str) -> None:
    [ids] = vocabulary.text_ids([text], limit=200)
    assert all(0 <= i < vocabulary.text_size for i in ids)
    assert UNK not in ids or "<unk>" in text.lower()


def test_text_comes_back_normalised(vocabulary: Vocabulary) -> None:
    texts = ["red lamp", "Red LAMP", "红色 台灯", "ﬁne Ⅳ", "naïve café"]
    ids = vocabulary.text_ids(texts, limit=100)
    assert [vocabulary.text_of(row) for row in ids] == [
        "red lamp",
        "red lamp",
        "红色 台灯",
        "fine iv",
        "naïve café",
    ]


def test_limit_and_foreign_ids(vocabulary: Vocabulary) -> None:
    [ids] = vocabulary.text_ids(["red lamp " * 50], limit=4)
    assert len(ids) == 4
    code = int(vocabulary.sid_ids(np.array([1, 1, 1]))[0])
    assert vocabulary.text_of([PAD, *ids[:1], code, NONE]) == vocabulary.text_of(ids[:1])
    assert vocabulary.text_ids([], limit=4) == []


def test_save_and_load(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert (loaded.levels, loaded.size) == (LEVELS, vocabulary.size)
    assert loaded.text_ids(TEXTS, 50) == vocabulary.text_ids(TEXTS, 50)


@pytest.mark.parametrize("file", ["tokenizer.json", "layout.json"])
@pytest.mark.parametrize("damage", [None, b"", b"{}", b'{"levels": ["x"]}'])
def test_damaged_file_is_named(
    vocabulary: Vocabulary, tmp_path: Path, file: str, damage: bytes | None
) -> None:
    vocabulary.save(tmp_path)
    (tmp_path / file).unlink()
    if damage is not None:
        (tmp_path / file).write_bytes(damage)
    with pytest.raises(ArtifactError, match=file):
        Vocabulary.load(tmp_path)


def test_pad() -> None:
    ids, mask = pad([[5, 6, 7], [], [8]])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)
    assert pad([])[0].shape == (0, 1)
    assert pad([[]])[0].shape == (1, 1)
