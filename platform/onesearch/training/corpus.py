"""The texts that examples are made from, with their vectors, SIDs and served prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from onesearch.contracts.tokenizer import TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import ShopperState, UserEncoderServer
from onesearch.index import CatalogueIndex
from onesearch.progress import Progress
from onesearch.training.examples import Ragged
from onesearch.training.pairs import normalise_queries
from onesearch.training.pseudo import pseudo_queries
from onesearch.vocabulary import Vocabulary

EMBED_BATCH = 4_096
PAIR_LIMIT = 1_000_000
"""Pairs that a corpus holds at most; of more, a sample by weight is drawn."""


@dataclass(frozen=True)
class Corpus:
    """Texts with their vectors and SIDs: what the tasks of both stages are made from.

    Attributes:
        queries: Q different real queries. held_out: bool[Q], no trained pair is of this query.
        pseudo: P pseudo-queries. pseudo_item: i32[P], the item that each was cut from.
        pairs: query (row of ``queries``), item, weight > 0 and held_out of every positive pair.
        vectors: f16[Q + P + N, D], e° of queries, pseudo-queries, items.
        query_sids: i32[Q, L], the queries' own SIDs.
        query_leaf: i32[Q], the leaf of the query's own SID, the nearest item's where that SID is not legal.
        item_leaf: i32[N].
        query_prompts: Q + P served prompts, of a shopper and a query that nothing is known of.
    """

    vocabulary: Vocabulary
    index: CatalogueIndex
    items: pl.DataFrame
    queries: list[str]
    held_out: np.ndarray
    pseudo: list[str]
    pseudo_item: np.ndarray
    pairs: pl.DataFrame
    vectors: np.ndarray
    query_sids: np.ndarray
    query_leaf: np.ndarray
    item_leaf: np.ndarray
    query_prompts: Ragged

    @classmethod
    def build(
        cls,
        items: pl.DataFrame,
        positives: pl.DataFrame,
        index: CatalogueIndex,
        vocabulary: Vocabulary,
        learner: TokenizerLearner,
        tokenizer: TokenizerServer,
        user_encoder: UserEncoderServer,
        pseudo_each: int,
        seed: int,
        progress: Progress,
    ) -> Corpus:
        """Embed all texts and lay out the served prompts.

        Args:
            items: the catalogue in item-number order.
            positives: query, item, weight > 0, held_out: :meth:`onesearch.training.split.Split.positives`.
            index: the catalogue with SIDs and vectors.
            vocabulary: the id space.
            learner: embeds texts. tokenizer: its serving half, quantises the vectors.
            user_encoder: lays out prompts, as it does in serving.
            pseudo_each: pseudo-queries an item.
            seed: of the pseudo-queries and of the sample of pairs.
            progress: is told how many texts are embedded.
        """
        if len(positives) > PAIR_LIMIT:
            positives = _sample(positives, PAIR_LIMIT, seed)
        asked = positives.group_by("query").agg(pl.col("held_out").all()).sort("query")
        queries, held_out = asked["query"].to_list(), asked["held_out"].to_numpy()
        hidden = {query for query, out in zip(queries, held_out, strict=True) if out}
        pseudo, pseudo_item = _unlike(*pseudo_queries(items, pseudo_each, seed), hidden)
        vectors = embedded(learner, [*queries, *pseudo], progress)
        sids = _quantise(tokenizer, vectors)
        prompts = _served_prompts(user_encoder, [*queries, *pseudo], sids)
        query_leaf = _legal_leaves(index, sids[: len(queries)], vectors[: len(queries)])
        rows = pl.DataFrame({"query": queries}, schema={"query": pl.String}).with_row_index("row")
        numbered = positives.join(rows, on="query", how="left", maintain_order="left")
        numbered = numbered.select(pl.col("row").alias("query"), "item", "weight", "held_out")
        return cls(
            vocabulary=vocabulary,
            index=index,
            items=items,
            queries=queries,
            held_out=held_out,
            pseudo=pseudo,
            pseudo_item=pseudo_item,
            pairs=numbered,
            vectors=np.concatenate([vectors.astype(np.float16), index.vectors]),
            query_sids=sids[: len(queries)],
            query_leaf=query_leaf,
            item_leaf=index.live.tree.find_leaves(index.sids),
            query_prompts=prompts,
        )

    def vector_of_item(self, items: np.ndarray) -> np.ndarray:
        """Rows of ``vectors`` that hold these items' vectors."""
        return (items + (len(self.vectors) - len(self.items))).astype(np.int32)


def _unlike(texts: list[str], items: np.ndarray, hidden: set[str]) -> tuple[list[str], np.ndarray]:
    """Pseudo-queries that are not, by chance, a held-out query."""
    keep = [at for at, text in enumerate(normalise_queries(texts)) if text not in hidden]
    return [texts[at] for at in keep], items[keep]


def embedded(learner: TokenizerLearner, queries: Sequence[str], progress: Progress) -> np.ndarray:
    """e° f32[Q, D] of queries, batch by batch."""
    vectors = np.zeros((len(queries), learner.dim), dtype=np.float32)
    with progress.task("embedding queries", total=len(queries)) as task:
        for start in range(0, len(queries), EMBED_BATCH):
            batch = queries[start : start + EMBED_BATCH]
            vectors[start : start + len(batch)] = learner.embed(batch, "query")
            task.advance(len(batch))
    return vectors


def _quantise(tokenizer: TokenizerServer, vectors: np.ndarray) -> np.ndarray:
    batches = [
        tokenizer.quantise(vectors[start : start + EMBED_BATCH])
        for start in range(0, len(vectors), EMBED_BATCH)
    ]
    return np.concatenate(batches) if batches else np.zeros((0, len(tokenizer.levels)), np.int32)


def _served_prompts(user_encoder: UserEncoderServer, queries: Sequence[str], sids: np.ndarray) -> Ragged:
    """The prompts that serving would make for these queries of a shopper it does not know.

    Nor does anything stand in for the shopper: what is most clicked for a query would tell the answers.
    """
    parts: list[Ragged] = []
    nothing = np.zeros(0, np.int32)
    for start in range(0, len(queries), EMBED_BATCH):
        batch, own = queries[start : start + EMBED_BATCH], sids[start : start + EMBED_BATCH]
        raw = user_encoder.raw([ShopperState()] * len(batch), batch, own, [nothing] * len(batch))
        parts.append(Ragged.of_mask(raw.ids, raw.mask))
    return Ragged.joined(parts)


def _legal_leaves(index: CatalogueIndex, sids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The leaf of each SID where it is legal, else the leaf of the item whose vector is nearest."""
    leaves = index.live.tree.find_leaves(sids)
    illegal = np.flatnonzero(leaves < 0)
    if not len(illegal) or not len(index):
        return leaves
    item_leaf = index.live.tree.find_leaves(index.sids)
    items = index.vectors.astype(np.float32).T
    for start in range(0, len(illegal), 512):
        rows = illegal[start : start + 512]
        leaves[rows] = item_leaf[np.argmax(vectors[rows] @ items, axis=1)]
    return leaves


def _sample(pairs: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """``count`` pairs without repetition, the heavier the likelier (Gumbel's top k over log weights)."""
    rng = np.random.default_rng([seed, 0x5A])
    keys = np.log(pairs["weight"].to_numpy()) + rng.gumbel(size=len(pairs))
    return pairs[np.sort(np.argpartition(-keys, count)[:count])]
