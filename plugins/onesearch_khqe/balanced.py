"""The balanced last layer: capacity-constrained assignment to one global codebook, by an auction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onesearch_khqe.kmeans import fit_kmeans, means

CANDIDATES = 64
ROUNDS = 200


def balanced_kmeans(
    points: Tensor, size: int, iterations: int, slack: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """k-means whose codes hold at most ``⌈slack·N/K⌉`` points each.

    Starts from plain k-means, then alternates balanced assignment and means.

    Returns:
        centroids f32[K, D] and the balanced assignment i64[N].
    """
    capacity = math.ceil(slack * len(points) / size)
    centroids = fit_kmeans(points, size, iterations, generator)
    ids = balanced_assignment(points, centroids, capacity)
    for _ in range(2):
        centroids, _ = means(points, ids, centroids)
        ids = balanced_assignment(points, centroids, capacity)
    return centroids, ids


def balanced_assignment(points: Tensor, centroids: Tensor, capacity: int) -> Tensor:
    """Assign points to centroids, at most ``capacity`` each (``capacity·K ≥ N``), at a low sum of squared
    distances.

    An auction over each point's nearest candidates: every free point bids for the code whose distance plus
    price is lowest; a code keeps the bidders that would lose most by leaving and raises its price for the
    others. What is left after the rounds goes to the nearest code with room. i64[N].
    """
    count, size = len(points), len(centroids)
    if capacity * size < count:
        raise ValueError(f"{size} codes of capacity {capacity} cannot hold {count} points")
    near = min(CANDIDATES, size)
    distances, candidates = _candidates(points, centroids, near)
    price = torch.zeros(size, device=points.device)
    ids = torch.full((count,), -1, dtype=torch.long, device=points.device)
    free = torch.arange(count, device=points.device)
    step = float(distances[:, : min(8, near)].std()) / 8 + 1e-9
    for _ in range(ROUNDS):
        if not len(free):
            return ids
        costs = distances[free] + price[candidates[free]]
        best = costs.argmin(1)
        ids[free] = candidates[free].gather(1, best[:, None])[:, 0]
        counts = torch.bincount(ids, minlength=size)
        over = counts > capacity
        if not bool(over.any()):
            return ids
        free = _evicted(ids, over, counts, capacity, distances, candidates, price)
        # A code sought by many rises faster, so that the number of rounds stays small.
        price[over] += step * (1 + counts[over].float() / capacity).log2()
        ids[free] = -1
    return _place(points, centroids, ids, capacity)


def _candidates(points: Tensor, centroids: Tensor, near: int) -> tuple[Tensor, Tensor]:
    half = centroids.square().sum(1)
    distances = torch.empty(len(points), near, device=points.device)
    numbers = torch.empty(len(points), near, dtype=torch.long, device=points.device)
    for start in range(0, len(points), 8192):
        some = points[start : start + 8192]
        gaps = half[None] - 2 * some @ centroids.T
        distances[start : start + 8192], numbers[start : start + 8192] = gaps.topk(near, 1, largest=False)
    return distances, numbers


def _evicted(
    ids: Tensor,
    over: Tensor,
    counts: Tensor,
    capacity: int,
    distances: Tensor,
    candidates: Tensor,
    price: Tensor,
) -> Tensor:
    """Of the codes that are too full, the points that lose least by going to their second choice; i64[E]."""
    members = torch.nonzero(over[ids.clamp(min=0)] & (ids >= 0)).flatten()
    costs = distances[members] + price[candidates[members]]
    own = candidates[members] == ids[members, None]
    at_own = costs.masked_fill(~own, float("inf")).min(1).values
    elsewhere = costs.masked_fill(own, float("inf")).min(1).values
    regret = elsewhere - at_own
    order = torch.argsort(regret, descending=True, stable=True)
    order = order[torch.argsort(ids[members[order]], stable=True)]
    code = ids[members[order]]
    first = torch.searchsorted(code, code)
    place = torch.arange(len(code), device=code.device) - first
    return members[order[place >= capacity]]


def _place(points: Tensor, centroids: Tensor, ids: Tensor, capacity: int) -> Tensor:
    room = capacity - torch.bincount(ids[ids >= 0], minlength=len(centroids))
    for point in torch.nonzero(ids < 0).flatten().tolist():
        gaps = (points[point] - centroids).square().sum(1).masked_fill(room <= 0, float("inf"))
        ids[point] = int(gaps.argmin())
        room[ids[point]] -= 1
    return ids
