from __future__ import annotations

import numpy as np
import pytest
import torch
from onesearch_khqe import faiss_engine
from onesearch_khqe.kmeans import (
    fit_kmeans,
    hierarchical_start,
    lloyd,
    means,
    nearest,
    parted_search,
    quick_search,
)


def clusters(count: int, dim: int = 12, centres: int = 40, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dim)) * 2
    share = rng.dirichlet(np.full(centres, 0.5))
    points = middle[rng.choice(centres, count, p=share)] + rng.normal(size=(count, dim)) * 0.6
    return torch.from_numpy(points.astype(np.float32))


def distortion(points: torch.Tensor, centroids: torch.Tensor) -> float:
    return float(nearest(points, centroids)[1].mean())


def test_nearest_is_the_nearest() -> None:
    points, centroids = clusters(500), clusters(30, seed=1)
    ids, squared = nearest(points, centroids)
    gaps = torch.cdist(points.double(), centroids.double()).square()
    assert torch.equal(ids, gaps.argmin(1))
    assert torch.allclose(squared.double(), gaps.min(1).values, atol=1e-4)


def test_the_search_of_a_fit_is_close_to_exact() -> None:
    """In bfloat16 where the CPU has units for it; the same thing elsewhere."""
    points, centroids = clusters(5000), clusters(60, seed=1)
    ids, squared = quick_search(points)(centroids)
    _, exact = nearest(points, centroids)
    gaps = (points - centroids[ids]).square().sum(1)
    assert float(gaps.mean()) <= 1.001 * float(exact.mean())
    assert float(squared.mean()) == pytest.approx(float(exact.mean()), rel=0.01)


def test_the_search_by_parts_seldom_misses() -> None:
    start, points, lengths = hierarchical_start(clusters(4000), 256, torch.Generator().manual_seed(0))
    ids, squared = parted_search(points, lengths)(start)
    best, exact = nearest(points, start)
    assert torch.allclose(squared, (points - start[ids]).square().sum(1), atol=1e-3)
    assert float((ids == best).float().mean()) > 0.95
    assert bool((squared >= exact - 1e-3).all())


def test_means_of_a_centroid_without_points_is_the_old_one() -> None:
    moved, counts = means(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), torch.tensor([[9.0], [7.0]]))
    assert moved.tolist() == [[2.0], [7.0]] and counts.tolist() == [2.0, 0.0]


def test_equal_points_leave_no_centroid_idle_among_others() -> None:
    points = torch.cat([torch.zeros(400, 4), clusters(400, 4)])
    generator = torch.Generator().manual_seed(0)
    found = lloyd(points, torch.zeros(32, 4), 12, generator)
    assert len(torch.unique(nearest(points, found)[0])) >= 28


@pytest.mark.parametrize(("count", "size"), [(3000, 256), (3000, 40), (300, 256)])
def test_as_good_as_faiss(count: int, size: int) -> None:
    points = clusters(count)
    ours = fit_kmeans(points, size, 4, torch.Generator().manual_seed(0))
    theirs = faiss_engine.kmeans(points, size, 0, gpu=False)
    assert ours.shape == (size, 12) and bool(torch.isfinite(ours).all())
    assert distortion(points, ours) <= 1.06 * distortion(points, theirs)


def test_hierarchical_start_is_close_already() -> None:
    points = clusters(4000)
    generator = torch.Generator().manual_seed(0)
    start, parted, lengths = hierarchical_start(points, 256, generator)
    assert sum(lengths) == 4000 and min(lengths) > 0
    assert torch.equal(parted.sort(0).values, points.sort(0).values)
    random = points[torch.randperm(4000, generator=generator)[:256]]
    assert start.shape == (256, 12)
    assert distortion(points, start) < 0.8 * distortion(points, random)


def test_the_same_seed_gives_the_same() -> None:
    points = clusters(800)
    first, second = (fit_kmeans(points, 64, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_as_many_centroids_as_points() -> None:
    points = clusters(10)
    found = fit_kmeans(points, 10, 3, torch.Generator().manual_seed(0))
    assert distortion(points, found) == pytest.approx(0.0, abs=1e-4)
