"""What of an item is read: its text, and its structured attributes as keywords."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from onesearch_khqe.attributes import NUMBER
from onesearch_khqe.words import normalise


def item_texts(items: pl.DataFrame, detail_words: int = 32) -> list[str]:
    """Title, finest category, attribute values that the title does not name, start of the description."""
    columns = {
        name: items[name].to_list() if name in items.columns else [None] * len(items) for name in _READ
    }
    texts: list[str] = []
    for title, category, attributes, detail, ocr in zip(*columns.values(), strict=True):
        parts = [title or ""]
        known = normalise(parts[0])
        for value in [*(category or [])[-1:], *(row["value"] for row in attributes or [] if row)]:
            plain = normalise(value or "")
            if plain and plain not in known:
                parts.append(value)
                known = f"{known} {plain}"
        for long in (detail, ocr):
            if long and detail_words:
                # A description in Chinese has no spaces: its words are counted as two characters.
                parts.append(" ".join(long.split()[:detail_words])[: 8 * detail_words])
        texts.append(" ".join(parts))
    return texts


_READ = ("title", "category", "attributes", "detail_text", "ocr_text")


def structured_keywords(items: pl.DataFrame) -> list[list[tuple[str, str]]]:
    """``(normalised value, attribute type)`` of each item's structured attributes, known types only."""
    if "attributes" not in items.columns:
        return [[] for _ in range(len(items))]
    rows: list[list[tuple[str, str]]] = []
    for attributes in items["attributes"].to_list():
        found: dict[tuple[str, str], None] = {}
        for row in attributes or []:
            if row and row["type"] in NUMBER:
                text = normalise(row["value"] or "")
                if text:
                    found[(text, row["type"])] = None
        rows.append(list(found))
    return rows


def text_keys(texts: list[str]) -> np.ndarray:
    """u64[N], a hash of each text: tells whether an item is still the one that was fitted."""
    digests = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
