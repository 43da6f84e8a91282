"""What benchmarks search in and ask: a synthetic catalogue, networks of random weights, random prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.index import CatalogueIndex, LiveTree

from onesearch_seq2seq.config import Seq2SeqConfig
from onesearch_seq2seq.model import LowRank, Seq2Seq
from onesearch_seq2seq.server import Seq2SeqServer
from onesearch_seq2seq.shape import Shape

LEVELS, TEXT, DIMENSION = (4096, 1024, 512, 256, 256), 16_000, 384
# How far each level's codes crowd together; gives the node counts of Home Depot's tree.
_SKEW = (1.6, 1.9, 3.0, 6.0, 6.0)


@dataclass(frozen=True)
class Question:
    """Queries, one where nothing is said: ids i32[B, T] and e_q° f32[B, D]."""

    ids: np.ndarray
    vector: np.ndarray


def synthetic_sids(items: int, seed: int = 0) -> np.ndarray:
    """SIDs i32[N, L] as residual codes make them: skewed first codes, thin below, most prefixes of 3
    unique."""
    draws = np.random.default_rng(seed).random((items, len(LEVELS))) ** _SKEW
    sids = np.zeros((items, len(LEVELS)), np.int64)
    sids[:, 0] = draws[:, 0] * LEVELS[0]
    prefix = sids[:, 0].copy()
    for level, size in enumerate(LEVELS[1:], start=1):
        # Below every prefix a few codes of its own hold most of the items.
        rank = (size ** draws[:, level]).astype(np.int64) - 1
        prefix = (prefix * 7919 + 13) % 1_000_003
        sids[:, level] = (prefix + rank) % size
        prefix = prefix * size + sids[:, level]
    return sids.astype(np.int32)


def synthetic_tree(items: int, seed: int = 0) -> LiveTree:
    """A catalogue of such SIDs, with vectors that are sums of the codes' centroids."""
    import polars as pl

    random = np.random.default_rng(seed + 1)
    sids = synthetic_sids(items, seed)
    vectors = np.zeros((items, DIMENSION), np.float32)
    for level, size in enumerate(LEVELS):
        centroids = random.normal(size=(size, DIMENSION)).astype(np.float32)
        vectors += centroids[sids[:, level]] * np.float32(0.7**level)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = pl.Series("item_id", np.arange(items)).cast(pl.String)
    table = pl.DataFrame({"item_id": names, "title": names}).with_columns(
        category=pl.lit(None, pl.List(pl.String)), brand=pl.lit(""), price=pl.lit(1.0), in_stock=pl.lit(True)
    )
    popularity = random.pareto(1.5, items).astype(np.float32) + 1
    return CatalogueIndex.build(table, sids, vectors, popularity, LEVELS).live


def random_network(size: str) -> tuple[Seq2Seq, Seq2SeqConfig]:
    """A network with heads that are not zero any more, and weights as a trained one has."""
    torch.manual_seed(0)
    config = Seq2SeqConfig(size=size)  # type: ignore[arg-type]
    model = Seq2Seq(Shape(TEXT + sum(LEVELS), TEXT, LEVELS, DIMENSION), config).eval()
    with torch.no_grad():
        for head in (*model.heads, *model.steer):
            (head.up if isinstance(head, LowRank) else head).weight.normal_(std=0.05)
        model.served.copy_(torch.tensor([1.0, 1.0, 25.0, 0.5, 25.0, 0.5])[:, None].expand(-1, len(LEVELS)))
    return model, config


def opened(folder: Path, live: LiveTree, threads: int, config: Seq2SeqConfig) -> Seq2SeqServer:
    """A server of what was exported to a folder, over a tree."""
    context = SimpleNamespace(
        vocabulary=SimpleNamespace(levels=LEVELS),
        runtime=Runtime(threads),
        index=SimpleNamespace(live=live),
        release=folder,
    )
    return Seq2SeqServer.open(folder, context, config)  # type: ignore[arg-type]


def asked_of(leaf_vectors: np.ndarray, tokens: int, random: np.random.Generator, count: int = 1) -> Question:
    """Random prompts, and vectors near those of items."""
    near = leaf_vectors[random.integers(len(leaf_vectors), size=count)]
    near = near + random.normal(size=near.shape) * 0.03
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return Question(random.integers(10, TEXT, (count, tokens)).astype(np.int32), vectors)
