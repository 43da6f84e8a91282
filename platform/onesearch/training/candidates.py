"""The generator's own lists for held-out searches: what the reward learns to order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from onesearch.config import TrainingConfig
from onesearch.contracts.generator import GeneratorServer
from onesearch.contracts.offers import Role, Server, ServingContext
from onesearch.contracts.reward import Candidates
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderServer
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex
from onesearch.progress import Progress
from onesearch.serving.pipeline import Pipeline
from onesearch.training.lists import RankedLists
from onesearch.training.split import Split

BATCH = 8
"""Queries searched at once."""


def make_lists(
    split: Split,
    context: ServingContext,
    server: Callable[[Role], Server],
    training: TrainingConfig,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Draw held-out searches, search them as serving would, and write lists and gains to ``out``.

    The catalogue's popularity is that of the trained part: it does not know the answers.

    Returns:
        Figures: lists, candidates a list, how many of the good items the beams reached.
    """
    queries, times = draw(split.held_out, training.reward_queries, training.seed)
    gains = scaled_gains(split.held_out)
    index = context.index
    of_then = CatalogueIndex.build(
        index.items,
        index.sids,
        index.vectors,
        split.popularity,
        index.live.tree.levels,
        index.live.generation,
    )
    pipeline = Pipeline(
        replace(context, index=of_then),
        cast(TokenizerServer, server("tokenizer")),
        cast(UserEncoderServer, server("user_encoder")),
        cast(GeneratorServer, server("generator")),
        None,
        beams=training.reward_beams,
    )
    vectors, found = _search(pipeline, queries, progress)
    gain = gains_of(queries, gains, found.items)
    rows = np.repeat(np.arange(len(queries)), times)
    save_file(
        {
            "rows": rows.astype(np.int32),
            "query_vecs": vectors,
            "items": found.items,
            "log_probs": found.log_probs,
            "gain": gain,
            "popularity": split.popularity,
        },
        out / "lists.safetensors",
    )
    asked = pl.DataFrame({"query": queries}, schema={"query": pl.String})
    asked.write_parquet(out / "queries.parquet")
    good = gains.join(asked, on="query", how="semi")
    return {
        "split": split.kind,
        "queries": len(queries),
        "lists": len(rows),
        "candidates": int((found.items >= 0).sum() / max(1, len(found.items))),
        "reached": round(float((gain > 0).sum()) / max(1, len(good)), 4),
    }


def load_lists(
    folder: Path,
    items: pl.DataFrame,
    index: CatalogueIndex,
    evidence: pl.DataFrame,
    pairs: pl.DataFrame,
    siblings: dict[str, Path],
) -> RankedLists:
    """What :func:`make_lists` wrote, with the pairs known meanwhile (evidence) and in serving (pairs).

    Raises ArtifactError naming the folder that does not fit.
    """
    try:
        arrays = load_file(folder / "lists.safetensors")
        queries = pl.read_parquet(folder / "queries.parquet")["query"].to_list()
    except Exception as error:  # safetensors raises its own type, which derives from Exception
        raise ArtifactError(f"{folder}: not candidate lists ({error})") from error
    rows = arrays["rows"]
    return RankedLists(
        queries=[queries[row] for row in rows],
        query_vecs=arrays["query_vecs"][rows],
        candidates=Candidates(arrays["items"][rows], arrays["log_probs"][rows]),
        gain=arrays["gain"][rows],
        pairs=evidence,
        items=items,
        vectors=index.vectors,
        popularity=arrays["popularity"],
        siblings=siblings,
        serving_pairs=pairs,
    )


def draw(held_out: pl.DataFrame, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Draw at most ``count`` held-out searches, none twice: their queries, and how often each was drawn.

    A query that was only judged counts as searched once.
    """
    asked = held_out.group_by("query").agg(pl.col("searches").sum().clip(lower_bound=1)).sort("query")
    rows = np.repeat(np.arange(len(asked)), asked["searches"].to_numpy().astype(np.int64))
    if len(rows) > count:
        rows = np.random.default_rng([seed, 0x11]).choice(rows, count, replace=False)
    drawn, times = np.unique(rows, return_counts=True)
    return asked["query"].gather(drawn).to_list(), times.astype(np.int32)


def scaled_gains(held_out: pl.DataFrame) -> pl.DataFrame:
    """query, item, gain in (0, 1]: the weight over the query's greatest, or over 1 where that is more."""
    greatest = pl.max_horizontal(pl.lit(1.0), pl.col("weight").max().over("query"))
    return held_out.select("query", "item", gain=(pl.col("weight") / greatest).cast(pl.Float32))


def gains_of(queries: list[str], gains: pl.DataFrame, items: np.ndarray) -> np.ndarray:
    """The gain of each candidate i32[Q, K], f32[Q, K]; 0 where nothing is known."""
    rows = pl.DataFrame({"query": queries}, schema={"query": pl.String}).with_row_index("row")
    known = gains.join(rows, on="query", how="inner").sort("row", "item")
    if not len(known):
        return np.zeros(items.shape, np.float32)
    width = int(max(items.max(initial=0), cast(int, known["item"].max()))) + 1
    keys = known["row"].to_numpy().astype(np.int64) * width + known["item"].to_numpy()
    wanted = np.arange(len(items), dtype=np.int64)[:, None] * width + items
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    gain = known["gain"].to_numpy()[at]
    return np.where((items >= 0) & (keys[at] == wanted), gain, np.float32(0.0)).astype(np.float32)


def _search(pipeline: Pipeline, queries: list[str], progress: Progress) -> tuple[np.ndarray, Candidates]:
    vectors: list[np.ndarray] = []
    found: list[Candidates] = []
    with progress.task("searching held-out queries", total=len(queries)) as task:
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            retrieved = pipeline.candidates(batch)
            vectors.append(retrieved.query_vecs)
            found.append(retrieved.candidates)
            task.advance(len(batch))
    width = max([1, *(batch.items.shape[1] for batch in found)])
    items = np.full((len(queries), width), -1, np.int32)
    log_probs = np.full((len(queries), width), -np.inf, np.float32)
    for start, batch_found in zip(range(0, len(queries), BATCH), found, strict=True):
        rows, columns = batch_found.items.shape
        items[start : start + rows, :columns] = batch_found.items
        log_probs[start : start + rows, :columns] = batch_found.log_probs
    dim = pipeline.tokenizer.dim
    joined = np.concatenate(vectors) if vectors else np.zeros((0, dim), np.float32)
    return joined.astype(np.float32), Candidates(items, log_probs)
