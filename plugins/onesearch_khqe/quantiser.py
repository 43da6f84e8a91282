"""Fitting the codebooks with either engine on either device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from onesearch.errors import ConfigError
from onesearch.progress import Progress, SilentProgress

from onesearch_khqe import faiss_engine
from onesearch_khqe.balanced import balanced_assignment, balanced_kmeans
from onesearch_khqe.codebooks import Codebooks, code_sizes, opq_sizes
from onesearch_khqe.config import QuantiserConfig
from onesearch_khqe.kmeans import fit_kmeans, nearest
from onesearch_khqe.opq import fit_opq


def fit_codebooks(
    vectors: np.ndarray,
    config: QuantiserConfig,
    seed: int = 0,
    items: int | None = None,
    progress: Progress | None = None,
) -> Codebooks:
    """Fit residual layers and OPQ on vectors f32[N, D].

    ``items`` is the size of the catalogue that the sizes follow where the config leaves them open (the
    vectors may hold queries too). A codebook is never larger than the number of vectors.
    """
    count = len(vectors) if items is None else items
    if not len(vectors):
        raise ConfigError("the tokenizer cannot be fitted on an empty catalogue")
    sizes = config.code_sizes or code_sizes(count)
    parts = opq_sizes(count) if config.opq_sizes is None else config.opq_sizes
    sizes, parts = _fitting(sizes, len(vectors)), _fitting(parts, len(vectors))
    gpu = use_gpu(config)
    progress = progress or SilentProgress()
    with progress.task("Fitting the codebooks", len(sizes) + bool(parts)) as task, torch.inference_mode():
        generator = torch.Generator().manual_seed(seed)
        rest = torch.from_numpy(np.array(vectors, dtype=np.float32))
        if gpu and config.engine == "lloyd":
            rest = rest.cuda()
        layers: list[np.ndarray] = []
        for number, size in enumerate(sizes):
            if config.balanced and number == len(sizes) - 1:
                layer, ids = balanced_kmeans(rest, size, config.iterations, config.balance_slack, generator)
            elif config.engine == "faiss":
                layer = faiss_engine.kmeans(rest, size, seed, gpu)
                ids, _ = nearest(rest, layer)
            else:
                layer = fit_kmeans(rest, size, config.iterations, generator)
                ids, _ = nearest(rest, layer)
            rest -= layer[ids]
            layers.append(layer.cpu().numpy())
            task.advance()
        rotation = np.eye(vectors.shape[1], dtype=np.float32)
        books: tuple[np.ndarray, ...] = ()
        if parts:
            if config.engine == "faiss":
                turn, found = faiss_engine.opq(rest, parts, seed)
            else:
                turn, found = fit_opq(rest, parts, config.opq_iterations, generator)
            rotation = turn.cpu().numpy()
            books = tuple(book.cpu().numpy() for book in found)
            task.advance()
    return Codebooks(tuple(layers), rotation, books)


def encode_catalogue(
    codebooks: Codebooks, vectors: np.ndarray, config: QuantiserConfig
) -> tuple[np.ndarray, np.ndarray]:
    """SIDs i32[N, L] of a catalogue and residuals f32[N, D] before OPQ: nearest codes, the last residual
    layer balanced when the config says so (jointly for these items; queries and later items take the nearest
    code)."""
    if not config.balanced:
        return codebooks.encode_with_residuals(vectors)
    *first, last = codebooks.layers
    before = Codebooks(tuple(first), codebooks.rotation)
    sids, rest = (
        before.encode_with_residuals(vectors) if first else (np.zeros((len(vectors), 0), np.int32), vectors)
    )
    capacity = math.ceil(config.balance_slack * len(vectors) / len(last))
    ids = balanced_assignment(torch.from_numpy(rest), torch.from_numpy(last), capacity).numpy()
    rest = rest - last[ids]
    columns = [sids, ids.astype(np.int32)[:, None]]
    if codebooks.parts:
        columns += [table.argmin(1).astype(np.int32)[:, None] for table in codebooks.part_distances(rest)]
    return np.concatenate(columns, axis=1), rest


def use_gpu(config: QuantiserConfig) -> bool:
    """Whether fitting runs on a GPU. Raises ConfigError when one is asked for and the engine sees none."""
    there = torch.cuda.is_available() if config.engine == "lloyd" else faiss_engine.gpus() > 0
    if config.device == "gpu" and not there:
        lacks = (
            "torch sees none" if config.engine == "lloyd" else "this faiss has no GPU support or sees none"
        )
        raise ConfigError(f"tokenizer.khqe.quantiser.device is 'gpu', but {lacks}")
    return there and config.device != "cpu"


def _fitting(sizes: Sequence[int], limit: int) -> tuple[int, ...]:
    return tuple(min(size, limit) for size in sizes)
