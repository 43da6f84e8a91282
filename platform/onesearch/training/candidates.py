"""The generator's own lists for held-out searches: what the reward learns to order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from onesearch.contracts.generator import GeneratorServer, Guide
from onesearch.contracts.offers import Role, Server, ServingContext
from onesearch.contracts.reward import Candidates
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderServer
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex
from onesearch.progress import Progress
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.packing import pack, unpack
from onesearch.shoppers.state import ShopperState
from onesearch.training.drawing import DrawnSearches, gains_of
from onesearch.training.lists import RankedLists
from onesearch.training.split import Split

LISTS, SEARCHES = "lists.safetensors", "searches.parquet"
BATCH = 8
"""Queries searched at once."""


def make_lists(
    split: Split,
    drawn: DrawnSearches,
    context: ServingContext,
    server: Callable[[Role], Server],
    beams: int,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Search what was drawn as serving would have then, and write lists and gains to ``out``.

    The catalogue's popularity is that of the trained part: it does not know the answers.

    Returns:
        Figures: lists, lists of shoppers who are known, candidates a list, how many of the good items the
        beams reached.
    """
    pipeline = pipeline_of_then(split, context, server, beams)
    vectors, found = search_all(pipeline, drawn.queries, drawn.states, drawn.stand_ins, progress)
    gain = gains_of(drawn.gains, found.items)
    save_file(
        {
            "rows": drawn.rows,
            "query_vecs": vectors,
            "items": found.items,
            "log_probs": found.log_probs,
            "gain": gain,
            "popularity": split.popularity,
        },
        out / LISTS,
    )
    searches = {"query": drawn.queries, "state": [pack(state) for state in drawn.states]}
    pl.DataFrame(searches, schema={"query": pl.String, "state": pl.Binary}).write_parquet(out / SEARCHES)
    return {
        "split": split.kind,
        "queries": len(set(drawn.queries)),
        "lists": len(drawn.rows),
        "known_shoppers": sum(drawn.states[row].known for row in drawn.rows.tolist()),
        "candidates": int((found.items >= 0).sum() / max(1, len(found.items))),
        "reached": round(float((gain > 0).sum()) / max(1, len(drawn.gains)), 4),
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
        arrays = load_file(folder / LISTS)
        searches = pl.read_parquet(folder / SEARCHES)
        queries = searches["query"].to_list()
        states = [unpack(state) for state in searches["state"].to_list()]
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
        states=[states[row] for row in rows],
    )


def pipeline_of_then(
    split: Split, context: ServingContext, server: Callable[[Role], Server], beams: int
) -> Pipeline:
    """Recall over the catalogue with the trained part's popularity: it does not know what is held out."""
    index = context.index
    of_then = replace(index, popularity=np.asarray(split.popularity, np.float32))
    return recall(replace(context, index=of_then), server, beams)


def recall(context: ServingContext, server: Callable[[Role], Server], beams: int) -> Pipeline:
    """The search up to the generator's lists."""
    return Pipeline(
        context,
        cast(TokenizerServer, server("tokenizer")),
        cast(UserEncoderServer, server("user_encoder")),
        cast(GeneratorServer, server("generator")),
        None,
        beams=beams,
    )


def search_all(
    pipeline: Pipeline,
    queries: Sequence[str],
    states: Sequence[ShopperState],
    stand_ins: Sequence[np.ndarray],
    progress: Progress,
    guide: Guide = "guided",
) -> tuple[np.ndarray, Candidates]:
    """Search batch by batch: e° f32[S, D] of the queries, and what the beams reached."""
    vectors: list[np.ndarray] = []
    found: list[Candidates] = []
    with progress.task("searching", total=len(queries)) as task:
        for start in range(0, len(queries), BATCH):
            at = slice(start, start + BATCH)
            batch = queries[at]
            retrieved = pipeline.candidates(batch, states[at], guide=guide, stand_ins=stand_ins[at])
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
