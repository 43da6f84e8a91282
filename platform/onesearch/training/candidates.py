"""The generator's own lists for held-out queries: what the reward learns to order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from onesearch.training.evidence import ListPlan, plan_lists
from onesearch.training.lists import RankedLists

if TYPE_CHECKING:
    from onesearch.data.store import Store

BATCH = 8
"""Queries searched at once."""


def make_lists(
    store: Store,
    pairs: pl.DataFrame,
    context: ServingContext,
    server: Callable[[Role], Server],
    training: TrainingConfig,
    held_out_share: float,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Search held-out queries as serving would, and write lists, gains and evidence to ``out``.

    The catalogue is that of the evidence's period: its popularity does not know the slice that is held out.

    Returns:
        Figures: lists, candidates a list, how many of the good items the beams reached.
    """
    plan = plan_lists(
        store,
        pairs,
        held_out_share,
        training.reward_queries,
        training.relevant_grade,
        training.half_life_days,
        training.seed,
    )
    index = context.index
    of_then = CatalogueIndex.build(
        index.items, index.sids, index.vectors, plan.popularity, index.live.tree.levels, index.live.generation
    )
    pipeline = Pipeline(
        replace(context, index=of_then),
        cast(TokenizerServer, server("tokenizer")),
        cast(UserEncoderServer, server("user_encoder")),
        cast(GeneratorServer, server("generator")),
        None,
        beams=training.reward_beams,
    )
    vectors, found = _search(pipeline, plan.queries, progress)
    gain = gains_of(plan, found.items)
    rows = np.repeat(np.arange(len(plan.queries)), plan.times)
    save_file(
        {
            "rows": rows.astype(np.int32),
            "query_vecs": vectors,
            "items": found.items,
            "log_probs": found.log_probs,
            "gain": gain,
            "popularity": plan.popularity,
        },
        out / "lists.safetensors",
    )
    pl.DataFrame({"query": plan.queries}, schema={"query": pl.String}).write_parquet(out / "queries.parquet")
    plan.evidence.write_parquet(out / "evidence.parquet")
    reached = float((gain > 0).sum()) / max(1, len(plan.gains))
    return {
        "split": plan.split,
        "queries": len(plan.queries),
        "lists": len(rows),
        "candidates": int((found.items >= 0).sum() / max(1, len(found.items))),
        "reached": round(reached, 4),
    }


def load_lists(
    folder: Path, items: pl.DataFrame, index: CatalogueIndex, pairs: pl.DataFrame, siblings: dict[str, Path]
) -> RankedLists:
    """What :func:`make_lists` wrote. Raises ArtifactError naming the folder that does not fit."""
    try:
        arrays = load_file(folder / "lists.safetensors")
        queries = pl.read_parquet(folder / "queries.parquet")["query"].to_list()
        evidence = pl.read_parquet(folder / "evidence.parquet")
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


def gains_of(plan: ListPlan, items: np.ndarray) -> np.ndarray:
    """The gain of each candidate i32[Q, K], f32[Q, K]; 0 where nothing is known."""
    rows = pl.DataFrame({"query": plan.queries}, schema={"query": pl.String}).with_row_index("row")
    known = plan.gains.join(rows, on="query", how="inner").sort("row", "item")
    width = int(max(items.max(initial=0), known["item"].max() or 0)) + 1
    keys = known["row"].to_numpy().astype(np.int64) * width + known["item"].to_numpy()
    wanted = np.arange(len(items), dtype=np.int64)[:, None] * width + items
    if not len(keys):
        return np.zeros(items.shape, np.float32)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    gain = known["gain"].to_numpy().astype(np.float32)[at]
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
