"""The same fits by faiss, on CPU or GPU: for comparison, and where faiss' GPU kernels are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import torch
from onesearch.errors import ConfigError
from torch import Tensor

ITERATIONS = 25
OPQ_ITERATIONS = 50


def gpus() -> int:
    """Number of GPUs that faiss can use; 0 for the CPU build."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def kmeans(points: Tensor, size: int, seed: int, gpu: bool) -> Tensor:
    """faiss.Kmeans on all points: centroids f32[K, D]."""
    fitter = faiss.Kmeans(
        points.shape[1],
        size,
        niter=ITERATIONS,
        seed=seed + 1234,
        gpu=gpu,
        min_points_per_centroid=1,
        max_points_per_centroid=max(256, len(points) // size + 1),
    )
    fitter.train(np.ascontiguousarray(points.cpu().numpy()))
    return torch.from_numpy(np.array(fitter.centroids, dtype=np.float32))


def opq(residuals: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, list[Tensor]]:
    """faiss.OPQMatrix, then faiss.ProductQuantizer: rotation f32[D, D] and one codebook per sub-space
    (CPU)."""
    size = sizes[0]
    if len(set(sizes)) > 1 or size & (size - 1):
        raise ConfigError("engine 'faiss' wants opq_sizes that are equal powers of two")
    points = np.ascontiguousarray(residuals.cpu().numpy())
    dim, parts = points.shape[1], len(sizes)
    # With fewer points than dimensions faiss 1.15 writes past its memory.
    points = np.tile(points, (-(-2 * dim // len(points)), 1)) if len(points) < 2 * dim else points
    turn = faiss.OPQMatrix(dim, parts)
    turn.niter = OPQ_ITERATIONS
    quantizer = faiss.ProductQuantizer(dim, parts, size.bit_length() - 1)
    quantizer.cp.seed = seed + 1234
    turn.pq = quantizer
    turn.train(points)
    rotation = faiss.vector_to_array(turn.A).reshape(dim, dim).T.copy()
    quantizer.train(np.ascontiguousarray(points @ rotation))
    books = faiss.vector_to_array(quantizer.centroids).reshape(parts, size, dim // parts)
    return torch.from_numpy(rotation), [torch.from_numpy(book.copy()) for book in books]
