"""Optimised product quantisation: a rotation after which sub-spaces can be coded one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onesearch.errors import ConfigError
from torch import Tensor

from onesearch_khqe.kmeans import lloyd, quick_search


def fit_opq(
    residuals: Tensor, sizes: Sequence[int], iterations: int, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """Fit a rotation and one codebook per sub-space.

    Starts from the eigenvectors of the residuals, dealt out so that each sub-space gets an equal product of
    eigenvalues, then alternates one k-means step in each sub-space with the orthogonal Procrustes solution
    ``R = U·Vᵀ, U·S·Vᵀ = svd(Xᵀ·Ŷ)``. The points are never rotated: they are compared with the centroids
    rotated back, and ``Xᵀ·Ŷ`` comes from the sums of each code's points. A step looks at a quarter of the
    points, each in turn, and has the other three as it last saw them (Neal and Hinton's incremental EM): as
    codes change little from step to step, that goes on nearly as far as a step over all.

    Returns:
        rotation f32[D, D], a point's code being that of ``x @ rotation``, and per sub-space f32[K, D / M].
    """
    dim = residuals.shape[1]
    parts = len(sizes)
    if dim % parts:
        raise ConfigError(
            f"tokenizer.khqe.quantiser.opq_sizes: dimension {dim} cannot be cut into {parts} sub-spaces"
        )
    width = dim // parts
    columns = [slice(at * width, (at + 1) * width) for at in range(parts)]
    rotation = _balanced_axes(residuals, parts)
    codebooks: list[Tensor] = []
    for size, own in zip(sizes, columns, strict=True):
        turned = residuals @ rotation[:, own]
        picks = torch.randperm(len(turned), generator=generator)[:size].to(turned.device)
        codebooks.append(lloyd(turned, turned[picks].clone(), FIRST, generator, refill=False))
    quarters = [residuals[at::QUARTERS].contiguous() for at in range(QUARTERS)]
    searches = [quick_search(quarter) for quarter in quarters]
    seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in quarters]
    for step in range(-1, iterations + LAST):
        looked = range(QUARTERS) if step < 0 else [step % QUARTERS]
        back = [book @ rotation[:, own].T for book, own in zip(codebooks, columns, strict=True)]
        for at in looked:
            seen[at] = [_sums(quarters[at], searches[at](book)[0], len(book)) for book in back]
        cross = []
        for at, own in enumerate(columns):
            total = torch.stack([sums[at][0] for sums in seen]).sum(0)
            counts = torch.stack([sums[at][1] for sums in seen]).sum(0)
            moved = (total @ rotation[:, own]) / counts.clamp(min=1)[:, None]
            codebooks[at] = torch.where(counts[:, None] > 0, moved, codebooks[at])
            cross.append(total.T @ codebooks[at])
        # The last steps leave the rotation alone, so that the codebooks are the means under the final one.
        if step < iterations:
            left, _, right = torch.linalg.svd(torch.cat(cross, dim=1))
            rotation = left @ right
    return rotation, codebooks


QUARTERS = 4
"""Parts that the points are looked at in."""
FIRST = 8
"""Lloyd steps of each sub-space before the first rotation. Without refilling: that would lower the distortion
by 1 % more and take the codes from where items lie close, so that fewer of them are told apart."""
LAST = QUARTERS
"""Steps after the last rotation."""


def _sums(points: Tensor, ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    total = torch.zeros(size, points.shape[1], device=points.device).index_add_(0, ids, points)
    return total, torch.bincount(ids, minlength=size).to(points.dtype)


def _balanced_axes(residuals: Tensor, parts: int) -> Tensor:
    """Eigenvectors f32[D, D], each dealt to the sub-space with the smallest product so far that still has
    room."""
    values, vectors = torch.linalg.eigh(residuals.T @ residuals / len(residuals))
    room = residuals.shape[1] // parts
    logs = [0.0] * parts
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for axis in reversed(range(len(values))):
        at = min((at for at in range(parts) if len(dealt[at]) < room), key=lambda at: logs[at])
        dealt[at].append(axis)
        logs[at] += float(values[axis].clamp(min=1e-12).log())
    return vectors[:, [axis for axes in dealt for axis in axes]].contiguous()
