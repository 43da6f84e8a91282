from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onesearch_khqe.ngrams import NgramHasher

BUCKETS = 1 << 17


def crc(gram: str) -> int:
    return zlib.crc32(gram.encode()) % BUCKETS


def test_grams_of_words() -> None:
    got = NgramHasher(BUCKETS).ids("Oak rug")
    grams = ["\x01oak", "<oa", "oak", "ak>", "<oak", "oak>", "<oak>"]
    grams += ["\x01rug", "<ru", "rug", "ug>", "<rug", "rug>", "<rug>", "oak\x02rug"]
    assert got == [crc(gram) for gram in grams]


def test_ids_never_change() -> None:
    """Saved tables depend on them: these numbers must stay as they are."""
    assert NgramHasher(BUCKETS).ids("ox")[:3] == [15683, 84864, 113498]


def test_grams_of_chinese() -> None:
    got = NgramHasher(BUCKETS).ids("貂皮衣")
    assert got == [crc(gram) for gram in ("貂", "皮", "衣", "貂皮", "皮衣", "貂皮衣")]


def test_nothing_to_read() -> None:
    assert NgramHasher(BUCKETS).ids("") == [0] == NgramHasher(BUCKETS).ids("!?\x00")


@given(st.lists(st.text(max_size=40), max_size=5))
def test_bag_is_the_texts_one_by_one(texts: list[str]) -> None:
    hasher = NgramHasher(64)
    bag = hasher.bag(texts)
    assert len(bag) == len(texts)
    for at, text in enumerate(texts):
        assert bag.row(at).tolist() == NgramHasher(64).ids(text)
    assert np.all((bag.values >= 0) & (bag.values < 64))
