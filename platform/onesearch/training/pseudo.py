"""Pseudo-queries: what a shopper might have typed to find an item, cut from its title and attributes.

Sets with few logs teach a generator little about most items (Home Depot: 10,795 queries for 54,667 items); a
few words of an item's own text are a query that the item surely answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

WORD_COUNTS = (1, 2, 3, 4, 5)
WORD_SHARES = (0.05, 0.25, 0.35, 0.2, 0.15)
"""How many words a pseudo-query has; about as many as real ones."""
CONTIGUOUS_SHARE = 0.5
"""Share cut as one run of words; the others pick words anywhere in the title."""
SHUFFLED_SHARE = 0.2
"""Share whose words are not in the title's order."""
ATTRIBUTE_SHARE = 0.5
"""Share made of attribute values, where an item has two or more."""

_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}")
_HAS_WORD = re.compile(r"\w")


def item_texts(items: pl.DataFrame) -> list[str]:
    """What prompts say of each item: its title, then the attribute values that the title does not hold."""
    texts: list[str] = []
    for title, values in zip(items["title"].to_list(), attribute_values(items), strict=True):
        known = title.lower()
        texts.append(" ".join([title, *(value for value in values if value.lower() not in known)]))
    return texts


def attribute_values(items: pl.DataFrame) -> list[list[str]]:
    """Values of each item's attributes, in their order, each once."""
    lists = items["attributes"].to_list() if "attributes" in items.columns else [[]] * len(items)
    return [
        list(dict.fromkeys(entry["value"] for entry in entries or () if entry["value"])) for entries in lists
    ]


def pseudo_queries(items: pl.DataFrame, each: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """At most ``each`` different pseudo-queries an item.

    Returns:
        The texts, and the item number of each, i32[P].
    """
    rng = np.random.default_rng([seed, 0x9E])
    texts: list[str] = []
    numbers: list[int] = []
    for number, (title, values) in enumerate(
        zip(items["title"].to_list(), attribute_values(items), strict=True)
    ):
        words = title_words(title)
        drawn = dict.fromkeys(_draw(rng, words, values) for _ in range(each))
        for text in drawn:
            if text:
                texts.append(text)
                numbers.append(number)
    return texts, np.array(numbers, dtype=np.int32)


def title_words(title: str) -> list[str]:
    """Words of a title; a run of Chinese or Japanese characters counts as words of two."""
    words: list[str] = []
    for piece in title.split():
        at = 0
        for run in _UNSPACED.finditer(piece):
            words.append(piece[at : run.start()])
            words += [run[0][start : start + 2] for start in range(0, len(run[0]), 2)]
            at = run.end()
        words.append(piece[at:])
    stripped = (word.strip(".,;:!?()[]{}\"'|·，。、；：！？（）【】") for word in words)
    return [word for word in stripped if _HAS_WORD.search(word)]


def _draw(rng: np.random.Generator, words: Sequence[str], values: Sequence[str]) -> str:
    count = int(rng.choice(WORD_COUNTS, p=WORD_SHARES))
    if len(values) >= 2 and rng.random() < ATTRIBUTE_SHARE:
        chosen = rng.permutation(len(values))[: min(3, (count + 1) // 2 + 1)].tolist()
        return _join([values[at] for at in chosen])
    count = min(count, len(words))
    if not count:
        return ""
    if rng.random() < CONTIGUOUS_SHARE:
        start = int(rng.integers(0, len(words) - count + 1))
        picked = np.arange(start, start + count)
    else:
        picked = np.sort(rng.permutation(len(words))[:count])
    if rng.random() < SHUFFLED_SHARE:
        picked = rng.permutation(picked)
    return _join([words[at] for at in picked.tolist()])


def _join(words: Sequence[str]) -> str:
    """Words with spaces between, none between two that are written without."""
    text = ""
    for word in words:
        glue = "" if not text or (_UNSPACED.fullmatch(text[-2:]) and _UNSPACED.match(word)) else " "
        text += glue + word
    return text.lower()
