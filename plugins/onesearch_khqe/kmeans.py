"""k-means in torch: hierarchical start, Lloyd iterations as matrix products, few of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

CHUNK = 1024
"""Points compared with all centroids at a time."""
MANY_POINTS = 4096
"""From so many points on the search of a fit is worth converting them."""
STALL = 2e-4
"""Lloyd stops when an iteration lowers the distortion by less than this share."""
SETTLE = 3
"""Last iterations of :func:`lloyd` that move no centroid but to its mean."""
NEAR = 3 / 16
"""Share of the centroids that :func:`parted_search` looks at."""
IDLE = 0.1
"""Share of centroids that the first refilling iteration moves; the later ones move fewer, down to none. More
of it lowers the distortion and the share of items told apart: at 0.1 neither is worse than the authors' code
on Home Depot."""

Search = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of given centroids f32[K, D] the nearest to each point: numbers i64[N] and squared distances f32[N]."""


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid of each point: numbers i64[N] and squared distances f32[N]."""
    return _search(points, squared_norms(points), centroids)


def quick_search(points: Tensor) -> Search:
    """:func:`nearest` with these points, for the steps of a fit.

    A CPU with matrix units for bfloat16 (AMX) computes it in that, more than twice as fast: the few points
    that lie between two centroids may go to the second best, which the means do not notice. Final codes are
    exact.
    """
    squares, small = squared_norms(points), _quick(points)
    return lambda centroids: _search(small, squares, centroids)


def parted_search(points: Tensor, lengths: Sequence[int]) -> Search:
    """A search that compares the points of a part, neighbours in ``points``, with the centroids nearest to
    the part's mean alone: :data:`NEAR` of them. For parts of points that lie close together: on Home Depot's
    titles, in 64 parts, 95 % of the points have their nearest centroid among those."""
    parts = list(
        zip(
            _quick(points).split(list(lengths)),
            squared_norms(points).split(list(lengths)),
            strict=True,
        )
    )
    middles = torch.stack([part.mean(0) for part in points.split(list(lengths))])

    def search(centroids: Tensor) -> tuple[Tensor, Tensor]:
        scores = middles @ centroids.T - 0.5 * squared_norms(centroids)
        ids, distances = [], []
        for (some, squares), near in zip(
            parts, scores.topk(math.ceil(NEAR * len(centroids))).indices, strict=True
        ):
            found, gaps = _search(some, squares, centroids[near])
            ids.append(near[found])
            distances.append(gaps)
        return torch.cat(ids), torch.cat(distances)

    return search


def _quick(points: Tensor) -> Tensor:
    quick = points.device.type == "cpu" and len(points) >= MANY_POINTS and _amx()
    return points.bfloat16() if quick else points


def squared_norms(points: Tensor) -> Tensor:
    """f32[N]; unlike ``square().sum(1)`` without an array as large as the points."""
    return torch.linalg.vector_norm(points, dim=1).square()


def _search(points: Tensor, squares: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    half = (0.5 * squared_norms(centroids)).to(points.dtype)
    columns = centroids.to(points.dtype).T.contiguous()
    ids = torch.empty(len(points), dtype=torch.long, device=points.device)
    best = torch.empty(len(points), device=points.device)
    # One small array of scores for all chunks: it stays in the cache, and no page of it is asked for twice.
    room = torch.empty(min(len(points), CHUNK), len(centroids), dtype=points.dtype, device=points.device)
    for start in range(0, len(points), CHUNK):
        some = points[start : start + CHUNK]
        scores = room[: len(some)]
        if points.dtype is torch.bfloat16:
            torch.addmm(half[None], some, columns, beta=-1, out=scores)  # rounded once
        else:
            torch.mm(some, columns, out=scores).sub_(half)
        found = _largest(scores)
        ids[start : start + CHUNK] = found
        best[start : start + CHUNK] = scores.gather(1, found[:, None])[:, 0]
    return ids, (squares - 2 * best).clamp(min=0)


def _largest(scores: Tensor) -> Tensor:
    """Column of each row's largest number, i64[n]. numpy's search is two to six times as fast as torch's on
    a CPU."""
    if scores.device.type == "cpu" and scores.dtype is torch.float32:
        return torch.from_numpy(scores.numpy().argmax(1))
    return scores.argmax(1)


@cache
def _amx() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))


def means(points: Tensor, ids: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the points of each centroid f32[K, D] (the old one where there are none), and their number
    f32[K]."""
    sums = torch.zeros_like(old).index_add_(0, ids, points)
    counts = torch.bincount(ids, minlength=len(old)).to(points.dtype)
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], old), counts


def lloyd(
    points: Tensor,
    centroids: Tensor,
    iterations: int,
    generator: torch.Generator,
    refill: bool = True,
    search: Search | None = None,
) -> Tensor:
    """Lloyd's iterations from given centroids f32[K, D]; returns the moved ones. ``search`` finds the nearest
    ones of the points; None: :func:`quick_search`.

    A centroid that has lost its points is moved beside the one with the largest share of the distortion. With
    ``refill`` so are, until the last few iterations, the centroids that are cheapest to do without (see
    :func:`_worthless`): the density of residuals is so uneven that plain Lloyd leaves many of them idle.
    Those iterations look at every other point, in turn at the even and the odd ones: where a centroid
    belongs shows in half of its points. On Home Depot's second layer that is faster than all points each
    time, and ends at a lower distortion.
    """
    best = float("inf")
    fresh = torch.zeros(len(centroids), dtype=torch.bool, device=centroids.device)
    search = search or quick_search(points)
    halves = []
    if refill and len(points) > 1:
        halves = [
            (half, quick_search(half)) for half in (points[0::2].contiguous(), points[1::2].contiguous())
        ]
    for iteration in range(iterations):
        settled = not halves or iteration >= iterations - SETTLE
        some, near = (points, search) if settled else halves[iteration % len(halves)]
        ids, distances = near(centroids)
        centroids, counts = means(some, ids, centroids)
        if iteration < iterations - 1:
            free = counts == 0
            if not settled:
                share = IDLE * (1 - iteration / (iterations - SETTLE))
                free |= _worthless(centroids, counts, fresh, share)
            centroids, fresh = _relocate(centroids, counts, distances, ids, free, generator)
        if settled:
            total = float(distances.sum())
            if total > best * (1 - STALL):
                break
            best = total
    return centroids


def _worthless(centroids: Tensor, counts: Tensor, fresh: Tensor, share: float) -> Tensor:
    """bool[K]: the centroids whose merging into a neighbour costs least (Ward: ``n·m/(n+m)·d²``).

    None of the ``fresh`` goes: those were split just now and have not parted yet.
    """
    many = int(share * len(centroids))
    chosen = torch.zeros(len(centroids), dtype=torch.bool, device=centroids.device)
    if not many:
        return chosen
    squares = centroids.square().sum(1)
    costs = torch.empty_like(squares)
    for start in range(0, len(centroids), CHUNK):
        rows = slice(start, start + CHUNK)
        gaps = squares[rows, None] + squares[None] - 2 * centroids[rows] @ centroids.T
        pair = counts[rows, None] * counts[None] / (counts[rows, None] + counts[None]).clamp(min=1)
        cost = gaps * pair
        at = torch.arange(len(cost), device=cost.device)
        cost[at, at + start] = float("inf")
        costs[rows] = cost.min(1).values
    costs[fresh] = float("inf")
    chosen[costs.argsort()[:many]] = True
    return chosen


def _relocate(
    centroids: Tensor,
    counts: Tensor,
    distances: Tensor,
    ids: Tensor,
    free: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Move the free centroids beside those with the largest share of the distortion; tells which have been
    split."""
    empty = torch.nonzero(free).flatten()
    split = torch.zeros_like(free)
    if not len(empty):
        return centroids, split
    error = torch.zeros_like(counts).index_add_(0, ids, distances)
    error[free] = -1.0
    full = error.argsort(descending=True)[: len(empty)]
    empty = empty[: len(full)]
    shift = torch.randn(len(full), centroids.shape[1], generator=generator).to(centroids.device)
    spread = (error[full].clamp(min=0) / counts[full].clamp(min=1)).sqrt()[:, None]
    shift = 0.1 * spread * shift / shift.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centroids = centroids.clone()
    centroids[empty] = centroids[full] + shift
    centroids[full] -= shift
    split[empty] = True
    split[full] = True
    return centroids, split


def hierarchical_start(
    points: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[int]]:
    """``size`` centroids by clustering twice: √size coarse ones, then within each as many as its points
    deserve.

    It costs a fraction of one full iteration and replaces about ten of them.

    Returns:
        the centroids f32[size, D]; the points, sorted by coarse centroid; and how many each of those has.
    """
    coarse = int(size**0.5)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centroids = lloyd(points, points[order[:coarse]].clone(), 8, generator, refill=False)
    ids, distances = nearest(points, centroids)
    counts = torch.bincount(ids, minlength=coarse).cpu()
    error = torch.zeros(coarse, device=points.device).index_add_(0, ids, distances)
    shares = _apportion(error.double().cpu(), counts, size)
    lengths = counts.tolist()
    points = points[ids.argsort(stable=True)]
    found: list[Tensor] = []
    for own, wanted in zip(points.split(lengths), shares.tolist(), strict=True):
        if wanted:
            start = torch.randperm(len(own), generator=generator)[:wanted].to(points.device)
            found.append(lloyd(own, own[start].clone(), 8, generator, refill=False))
    return torch.cat(found), points, [length for length in lengths if length]


def _apportion(weights: Tensor, limits: Tensor, total: int) -> Tensor:
    """Whole numbers i64 that sum to ``total``, in proportion to the weights, none above its limit."""
    shares = (weights / weights.sum().clamp(min=1e-30) * total).floor().long()
    shares = torch.minimum(shares.clamp(min=1), limits)
    while int(shares.sum()) > total:
        shares[int(shares.argmax())] -= 1
    while int(shares.sum()) < total:
        room = (weights + 1e-30) / (shares + 1) * (shares < limits)
        shares[int(room.argmax())] += 1
    return shares


def fit_kmeans(points: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """``size`` centroids f32[K, D] of points f32[N, D], N ≥ size.

    Few points a centroid: a hierarchical start, Lloyd among the centroids near to each coarse cluster, and
    one step among all. Many: iterations are cheap, so four times as many from random points, with refilling.
    """
    few = len(points) < MANY * size
    if few and size >= 64 and len(points) >= 4 * size:
        start, points, lengths = hierarchical_start(points, size, generator)
        near = parted_search(points, lengths)
        moved = lloyd(points, start, iterations, generator, refill=False, search=near)
        return lloyd(points, moved, 1, generator, refill=False)
    order = torch.randperm(len(points), generator=generator)[:size].to(points.device)
    start = points[order].clone()
    return lloyd(points, start, iterations if few else 4 * iterations, generator, refill=not few)


MANY = 32
"""Points a centroid from which :func:`fit_kmeans` refills."""
