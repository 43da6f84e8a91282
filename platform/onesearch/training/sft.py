"""The examples of supervised training, stage by stage (DESIGN 8).

Stage 1, alignment: query text → SID, item text → SID, pseudo-query → item SID, SID → query text,
SID → item text, query text → category, item text → category.
Stage 2, co-occurrence: query text → item SID (what is served), pseudo-query → item SID, item text → query
SID, query SID → item SID, item SID → query SID, query text → item text, item text → query text.
Stage 3, personalisation, stands in :mod:`onesearch.training.personal`.

The prompt of ``query text → item SID`` is the served one, made by the user encoder itself. All other prompts
start ``[MASK] [wanted] [given]``, where wanted and given are the marks of query, item and category: no served
prompt starts with MASK, so the tasks cannot be confused.

What is held out occurs in one place only: the ``held_out`` examples of SID tasks, for early stopping.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from onesearch.training.corpus import PAIR_LIMIT, Corpus
from onesearch.training.examples import Examples, Ragged, SidTask, TextTask
from onesearch.training.pseudo import item_texts
from onesearch.vocabulary import CATEGORY, EOS, ITEM, MASK, QUERY, Vocabulary

SERVED_TASK = "query text → item SID"
PSEUDO_TASK = "pseudo-query → item SID"
TEXT_LIMIT = 40
"""Tokens of a text in prompts and targets, end mark aside."""
HEAVIEST = 2.0
"""An example weighs at most so many times as much as the median pair."""


def alignment(corpus: Corpus) -> Examples:
    """Stage 1."""
    trained = np.flatnonzero(~corpus.held_out)
    query_texts = _TextIds(corpus.vocabulary, corpus.queries)
    texts = _TextIds(corpus.vocabulary, item_texts(corpus.items))
    sids = corpus.vocabulary.sid_ids(corpus.index.live.tree.leaf_sids())
    items = np.arange(len(corpus.items))
    all_queries = np.arange(len(corpus.queries))
    query_category, item_category = _categories(corpus)
    sid_tasks = [
        _served_task(corpus, held_out_only=True),
        pseudo_task(corpus),
        SidTask(
            "query text → SID",
            query_texts.prompts(QUERY, QUERY),
            all_queries.astype(np.int32),
            corpus.query_leaf,
            np.ones(len(all_queries), np.float32),
            corpus.held_out,
        ),
        SidTask(
            "item text → SID",
            texts.prompts(ITEM, ITEM),
            corpus.vector_of_item(items),
            corpus.item_leaf,
            np.ones(len(items), np.float32),
            np.zeros(len(items), bool),
        ),
    ]
    named_queries = trained[[bool(query_category[at]) for at in trained]] if len(trained) else trained
    named_items = np.flatnonzero([bool(name) for name in item_category])
    text_tasks = [
        _text_task(
            "SID → query text",
            _sid_prompts(sids, corpus.query_leaf[trained], QUERY, QUERY),
            query_texts,
            trained,
        ),
        _text_task("SID → item text", _sid_prompts(sids, corpus.item_leaf, ITEM, ITEM), texts, items),
        _text_task(
            "query text → category",
            query_texts.prompts(CATEGORY, QUERY).take(named_queries),
            _TextIds(corpus.vocabulary, query_category),
            named_queries,
        ),
        _text_task(
            "item text → category",
            texts.prompts(CATEGORY, ITEM).take(named_items),
            _TextIds(corpus.vocabulary, item_category),
            named_items,
        ),
    ]
    wanted = {
        PSEUDO_TASK: 0.45,
        "query text → SID": 0.1,
        "item text → SID": 0.2,
        "SID → query text": 0.05,
        "SID → item text": 0.1,
        "query text → category": 0.05,
        "item text → category": 0.05,
    }
    return assembled(corpus, sid_tasks, text_tasks, wanted)


def cooccurrence(corpus: Corpus) -> Examples:
    """Stage 2."""
    query, item, weight, held_out = _pairs(corpus)
    trained = ~held_out
    query_texts = _TextIds(corpus.vocabulary, corpus.queries)
    texts = _TextIds(corpus.vocabulary, item_texts(corpus.items))
    sids = corpus.vocabulary.sid_ids(corpus.index.live.tree.leaf_sids())
    query_row = query.astype(np.int32)

    def pair_task(name: str, prompts: Ragged, vector: np.ndarray, leaf: np.ndarray) -> SidTask:
        return SidTask(name, prompts, vector, leaf, weight, held_out)

    sid_tasks = [
        _served_task(corpus),
        pseudo_task(corpus),
        pair_task(
            "item text → query SID",
            texts.prompts(QUERY, ITEM).take(item),
            corpus.vector_of_item(item),
            corpus.query_leaf[query],
        ),
        pair_task(
            "query SID → item SID",
            _sid_prompts(sids, corpus.query_leaf[query], ITEM, QUERY),
            query_row,
            corpus.item_leaf[item],
        ),
        pair_task(
            "item SID → query SID",
            _sid_prompts(sids, corpus.item_leaf[item], QUERY, ITEM),
            corpus.vector_of_item(item),
            corpus.query_leaf[query],
        ),
    ]
    text_tasks = [
        _text_task(
            "query text → item text",
            query_texts.prompts(ITEM, QUERY).take(query[trained]),
            texts,
            item[trained],
            weight[trained],
        ),
        _text_task(
            "item text → query text",
            texts.prompts(QUERY, ITEM).take(item[trained]),
            query_texts,
            query[trained],
            weight[trained],
        ),
    ]
    # The fewer logs an item has, the more its pseudo-queries say: a fifth of the real ones up to as many.
    events = float(weight[trained].sum())
    pseudo = max(0.2, len(corpus.items) / (len(corpus.items) + events))
    wanted = {
        SERVED_TASK: 0.75 / (1 + pseudo),
        PSEUDO_TASK: 0.75 * pseudo / (1 + pseudo),
        "item text → query SID": 0.05,
        "query SID → item SID": 0.05,
        "item SID → query SID": 0.05,
        "query text → item text": 0.05,
        "item text → query text": 0.05,
    }
    return assembled(corpus, sid_tasks, text_tasks, wanted)


def _served_task(corpus: Corpus, held_out_only: bool = False) -> SidTask:
    """Query text → item SID. Stage 1 keeps only the held-out examples: to stop early by."""
    query, item, weight, held_out = _pairs(corpus)
    keep = np.flatnonzero(held_out) if held_out_only else np.arange(len(query))
    return SidTask(
        SERVED_TASK,
        corpus.query_prompts.take(query[keep]),
        query[keep].astype(np.int32),
        corpus.item_leaf[item[keep]],
        weight[keep],
        held_out[keep],
    )


def _pairs(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Query, item, weight, held_out of the pairs; one that weighs much is repeated and its weight shared out.

    A learner draws examples evenly and weighs their losses: a few very heavy ones would rule a batch.
    """
    query, item, weight, held_out = (corpus.pairs[name].to_numpy() for name in corpus.pairs.columns)
    if not len(weight):
        return query, item, weight.astype(np.float32), held_out
    most = max(HEAVIEST * float(np.median(weight)), float(weight.sum()) / PAIR_LIMIT)
    times = np.ceil(weight / most).astype(np.int64)
    rows = np.repeat(np.arange(len(weight)), times)
    return query[rows], item[rows], (weight / times).astype(np.float32)[rows], held_out[rows]


def pseudo_task(corpus: Corpus) -> SidTask:
    """Pseudo-query → item SID, with the served prompt; an item counts by the root of its popularity."""
    rows = np.arange(len(corpus.pseudo)) + len(corpus.queries)
    weight = np.sqrt(corpus.index.popularity[corpus.pseudo_item])
    return SidTask(
        PSEUDO_TASK,
        corpus.query_prompts.take(rows),
        rows.astype(np.int32),
        corpus.item_leaf[corpus.pseudo_item],
        (weight / (weight.mean() if len(weight) else 1.0)).astype(np.float32),
        np.zeros(len(rows), bool),
    )


class _TextIds:
    """Token ids of texts, tokenised once."""

    def __init__(self, vocabulary: Vocabulary, texts: Sequence[str]) -> None:
        self._ids = vocabulary.text_ids(texts, TEXT_LIMIT)

    def prompts(self, wanted: int, given: int) -> Ragged:
        """``[MASK] [wanted] [given] text`` of every text."""
        return Ragged.of([[MASK, wanted, given, *ids] for ids in self._ids])

    def targets(self) -> Ragged:
        """``text [EOS]`` of every text."""
        return Ragged.of([[*ids, EOS] for ids in self._ids])


def _sid_prompts(leaf_ids: np.ndarray, leaves: np.ndarray, wanted: int, given: int) -> Ragged:
    """``[MASK] [wanted] [given] SID`` of every leaf; leaf_ids i32[n_L, L] are ids of the vocabulary."""
    marks = np.broadcast_to(np.array([MASK, wanted, given], np.int32), (len(leaves), 3))
    ids = np.concatenate([marks, leaf_ids[leaves]], axis=1)
    return Ragged(ids.reshape(-1).astype(np.int32), np.arange(len(leaves) + 1, dtype=np.int64) * ids.shape[1])


def _text_task(
    name: str, prompts: Ragged, targets: _TextIds, rows: np.ndarray, weight: np.ndarray | None = None
) -> TextTask:
    weights = np.ones(len(rows), np.float32) if weight is None else weight
    return TextTask(name, prompts, targets.targets().take(rows), weights)


def assembled(
    corpus: Corpus, sid_tasks: Sequence[SidTask], text_tasks: Sequence[TextTask], wanted: dict[str, float]
) -> Examples:
    """Leave empty tasks out, and let the others share what those would have had."""
    sids = tuple(task for task in sid_tasks if len(task.prompts))
    texts = tuple(task for task in text_tasks if len(task.prompts))
    names = [task.name for task in sids] + [task.name for task in texts]
    share = {name: wanted.get(name, 0.0) for name in names}
    total = sum(share.values()) or 1.0
    share = {name: part / total for name, part in share.items()}
    return Examples(corpus.vocabulary, corpus.index.live, corpus.vectors, sids, texts, share)


def _categories(corpus: Corpus) -> tuple[list[str], list[str]]:
    """The category path of each trained query (its weightiest item's) and of each item, "" for none."""
    paths = [" > ".join(path or ()) for path in corpus.items["category"].to_list()]
    best = (
        corpus.pairs.filter(~pl.col("held_out"))
        .sort("weight", "item", descending=[True, False])
        .group_by("query", maintain_order=True)
        .first()
    )
    of_query = [""] * len(corpus.queries)
    for query, item in zip(best["query"].to_list(), best["item"].to_list(), strict=True):
        of_query[query] = paths[item]
    return of_query, paths
