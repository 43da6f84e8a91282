"""Mining the keyword pool from clicked and judged query–item pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl

from onesearch_khqe.attributes import guess_attribute
from onesearch_khqe.config import KeywordConfig
from onesearch_khqe.pool import KeywordPool
from onesearch_khqe.words import PIECE, STOP_WORDS, is_cjk, joins, normalise

MAX_WORDS = 3
CJK_LENGTHS = (2, 3, 4, 5, 6)
BETWEEN = ("", " ", "-", ". ")
"""What may stand between two words of one keyword: ``3 in. pipe``, ``sc-141``."""


def page_views(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs with a click, an order or a positive judgement, and how often each was looked at.

    Returns columns query, item, views: impressions + clicks + orders, 1 at least (a judgement is one look).
    """
    looked = pl.col("impressions").cast(pl.Int64) + pl.col("clicks") + pl.col("orders")
    positive = pairs.filter(pl.col("weight") > 0)
    return positive.select("query", "item", views=pl.max_horizontal(looked, pl.lit(1, pl.Int64)))


def mine_pool(
    item_keywords: Sequence[Sequence[tuple[str, str]]],
    titles: Sequence[str],
    pairs: pl.DataFrame,
    config: KeywordConfig,
) -> KeywordPool:
    """Mine the pool.

    Args:
        item_keywords: per item its ``(text, attribute type)``: structured attributes, or what a model found.
            Each joins the pool with the page views of the item's positive pairs, none included.
        titles: item titles, in item-number order.
        pairs: columns of ``query_item_pairs``, without held-out queries.
        config: what to mine, thresholds and sizes.
    """
    seen = page_views(pairs)
    by_item = np.zeros(len(titles), np.int64)
    np.add.at(by_item, seen["item"].to_numpy(), seen["views"].to_numpy())
    views: Counter[tuple[str, str]] = Counter()
    for keywords, count in zip(item_keywords, by_item.tolist(), strict=True):
        for keyword in keywords:
            views[keyword] += count
    covered = sum(1 for keywords in item_keywords if keywords)
    if config.mine_titles == "always" or (config.mine_titles == "auto" and 2 * covered < len(titles)):
        known = {text for text, _ in views}
        for text, attribute, count in mine_phrases(titles, seen, config.min_views):
            if text not in known:
                views[(text, attribute)] = count
    rows = ((text, attribute, count) for (text, attribute), count in views.items())
    return KeywordPool.ranked(rows, config.pool_size, config.core_share)


def mine_phrases(titles: Sequence[str], seen: pl.DataFrame, min_views: int) -> list[tuple[str, str, int]]:
    """Words and phrases that a query shares with the title of an item it led to.

    A phrase of several words must be seen at least a tenth as often as its rarest word, so that chance
    neighbours stay out. Returns ``(text, guessed attribute type, page views)``.
    """
    views: Counter[str] = Counter()
    at_end: Counter[str] = Counter()
    in_titles: Counter[str] = Counter()
    first: Counter[str] = Counter()
    grams_of: dict[int, set[str]] = {}
    starts: dict[int, str] = {}
    by_query: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for query, item, count in seen.iter_rows():
        by_query[query].append((item, count))
    for query, rows in by_query.items():
        query = normalise(query)
        wanted = phrases(query)
        for item, count in rows:
            if item not in grams_of:
                title = normalise(titles[item])
                grams_of[item] = set(phrases(title))
                starts[item] = title
                for gram in grams_of[item]:
                    in_titles[gram] += 1
                    first[gram] += title.startswith(gram)
            for gram in wanted:
                if gram in grams_of[item]:
                    views[gram] += count
                    at_end[gram] += count * query.endswith(gram)
    found: list[tuple[str, str, int]] = []
    for gram, count in views.items():
        words = gram.split(" ")
        parts = (
            words
            if len(words) > 1
            else ([gram[at : at + 2] for at in range(len(gram) - 1)] if is_cjk(gram) else [])
        )
        if count < min_views or (len(parts) > 1 and 10 * count < min(views[part] for part in parts)):
            continue
        kind = guess_attribute(gram, at_end[gram] / count, first[gram] / in_titles[gram])
        found.append((gram, kind, count))
    return found


def phrases(text: str) -> list[str]:
    """Candidate keywords of a normalised text: one to three neighbouring words as they stand there, and CJK
    substrings of 2 to 6 characters.

    A phrase begins and ends at word boundaries, so that the automaton can find it again; it neither starts
    nor ends with a stop word, and a single character alone is none.
    """
    found: dict[str, None] = {}
    spans = [(match.start(), match.end()) for match in PIECE.finditer(text)]
    for at, (start, end) in enumerate(spans):
        if is_cjk(text[start]):
            for length in CJK_LENGTHS:
                for first in range(start, end - length + 1):
                    found[text[first : first + length]] = None
            continue
        if (start and joins(text[start - 1], text[start])) or _is_stop_word(text, start, end):
            continue
        words = 1
        for number in range(at, len(spans)):
            first, last = spans[number]
            if number > at:
                between = text[spans[number - 1][1] : first]
                words += between != ""
                if between not in BETWEEN or words > MAX_WORDS or is_cjk(text[first]):
                    break
            if last < len(text) and joins(text[last - 1], text[last]):
                continue
            if not _is_stop_word(text, first, last) and last - start > 1:
                found[text[start:last]] = None
    return list(found)


def _is_stop_word(text: str, start: int, end: int) -> bool:
    """Whether a piece is a stop word: the ``a`` of ``a 12`` is, that of ``a12`` is not."""
    alone = (not start or not joins(text[start - 1], text[start])) and (
        end == len(text) or not joins(text[end - 1], text[end])
    )
    return alone and text[start:end] in STOP_WORDS
