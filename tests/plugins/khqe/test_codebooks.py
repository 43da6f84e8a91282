from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onesearch.errors import ArtifactError, ConfigError
from onesearch_khqe.balanced import balanced_assignment
from onesearch_khqe.codebooks import Codebooks, code_sizes, opq_sizes
from onesearch_khqe.config import QuantiserConfig
from onesearch_khqe.kmeans import lloyd, nearest
from onesearch_khqe.opq import fit_opq
from onesearch_khqe.quantiser import encode_catalogue, fit_codebooks
from scipy.optimize import linear_sum_assignment


def vectors(count: int = 1500, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(30, dim))[rng.integers(0, 30, count)] + 0.5 * rng.normal(size=(count, dim))
    found *= np.linspace(1.5, 0.3, dim)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_sizes_by_catalogue() -> None:
    assert code_sizes(54_667) == (4096, 1024, 512) == code_sizes(40_960)
    assert code_sizes(20_000) == (2048, 512, 256)
    assert code_sizes(200) == (16, 4, 4) and code_sizes(1) == (4, 4, 4)
    assert opq_sizes(54_667) == (256, 256) == opq_sizes(2_048)
    assert opq_sizes(200) == (16, 16) and opq_sizes(1) == (4, 4)


@pytest.fixture(scope="module")
def fitted() -> Codebooks:
    return fit_codebooks(vectors(), QuantiserConfig(code_sizes=(32, 16, 8), opq_sizes=(16, 16)))


def test_codes_are_nearest_level_by_level(fitted: Codebooks) -> None:
    points = vectors(200, seed=3)
    sids, residuals = fitted.encode_with_residuals(points)
    rest = points.astype(np.float64)
    for level, layer in enumerate(fitted.layers):
        gaps = np.square(rest[:, None] - layer[None]).sum(2)
        assert np.array_equal(sids[:, level], gaps.argmin(1))
        rest = rest - layer[sids[:, level]]
    assert residuals == pytest.approx(rest, abs=1e-5)
    turned = rest @ fitted.rotation
    for at, part in enumerate(fitted.parts):
        gaps = np.square(turned[:, None, at * 8 : (at + 1) * 8] - part[None]).sum(2)
        assert np.array_equal(sids[:, 3 + at], gaps.argmin(1))
        assert fitted.part_distances(residuals)[at] == pytest.approx(gaps, abs=1e-4)


def test_a_sid_stands_for_the_sum_of_its_centroids(fitted: Codebooks) -> None:
    points = vectors(200, seed=4)
    sids = fitted.encode(points)
    assert sids.dtype == np.int32 and fitted.levels == (32, 16, 8, 16, 16)
    assert fitted.rotation @ fitted.rotation.T == pytest.approx(np.eye(16), abs=1e-4)
    decoded = fitted.decode(sids)
    assert decoded == pytest.approx(sum(book[sids[:, at]] for at, book in enumerate(fitted.full)), abs=1e-5)
    by_level = [fitted.distortion(points, sids, depth) for depth in (1, 2, 3, 5)]
    assert by_level == sorted(by_level, reverse=True)
    assert by_level[-1] == pytest.approx(np.square(points - decoded).sum(1).mean(), rel=1e-4)


def test_as_good_as_faiss(fitted: Codebooks) -> None:
    points = vectors()
    theirs = fit_codebooks(
        points, QuantiserConfig(code_sizes=(32, 16, 8), opq_sizes=(16, 16), engine="faiss")
    )
    ours = fitted.distortion(points, fitted.encode(points))
    assert ours <= 1.05 * theirs.distortion(points, theirs.encode(points))


def test_opq_beats_cutting_without_a_rotation() -> None:
    points = torch.from_numpy(vectors(2000))
    rotation, books = fit_opq(points, (32, 32), 8, torch.Generator().manual_seed(0))
    plain = fit_codebooks(points.numpy(), QuantiserConfig(code_sizes=(4,), opq_sizes=[]))
    assert rotation.shape == (16, 16) and [tuple(book.shape) for book in books] == [(32, 8), (32, 8)]
    turned = Codebooks(
        (np.zeros((1, 16), np.float32),), rotation.numpy(), tuple(book.numpy() for book in books)
    )
    halves = [part.contiguous() for part in points.split(8, dim=1)]
    without = sum(
        float(nearest(half, lloyd(half, half[:32].clone(), 12, torch.Generator(), refill=False))[1].mean())
        for half in halves
    )
    assert turned.distortion(points.numpy(), turned.encode(points.numpy())) < without
    assert plain.levels == (4,)
    with pytest.raises(ConfigError, match="sub-spaces"):
        fit_opq(points, (4, 4, 4), 1, torch.Generator())


def test_saved_and_loaded(fitted: Codebooks, tmp_path: Path) -> None:
    fitted.save(tmp_path / "books.safetensors")
    again = Codebooks.load(tmp_path / "books.safetensors")
    points = vectors(50, seed=8)
    assert np.array_equal(again.encode(points), fitted.encode(points))
    data = (tmp_path / "books.safetensors").read_bytes()
    for broken in (b"", data[:100], data[:-10]):
        (tmp_path / "broken.safetensors").write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"broken\.safetensors"):
            Codebooks.load(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("seed", range(4))
def test_balanced_assignment(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(60, 3)).astype(np.float32) * [1, 1, 4]).float()
    centroids = torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32))
    ids = balanced_assignment(points, centroids, 11)
    assert int(torch.bincount(ids, minlength=6).max()) <= 11
    gaps = torch.cdist(points, centroids).square().numpy()
    rows, columns = linear_sum_assignment(np.repeat(gaps, 11, axis=1))
    best = np.repeat(gaps, 11, axis=1)[rows, columns].sum()
    assert best - 1e-3 <= gaps[np.arange(60), ids.numpy()].sum() <= 1.08 * best
    with pytest.raises(ValueError, match="cannot hold"):
        balanced_assignment(points, centroids, 9)


def test_balanced_layer_is_one_global_codebook() -> None:
    points = vectors()
    config = QuantiserConfig(code_sizes=(16, 8, 8), opq_sizes=(8, 8), balanced=True, balance_slack=1.1)
    books = fit_codebooks(points, config)
    sids, residuals = encode_catalogue(books, points, config)
    assert books.levels == (16, 8, 8, 8, 8)
    assert np.bincount(sids[:, 2], minlength=8).max() <= np.ceil(1.1 * len(points) / 8)
    plain, _ = books.encode_with_residuals(points)
    assert np.bincount(plain[:, 2], minlength=8).max() > np.ceil(1.1 * len(points) / 8)
    assert np.array_equal(sids[:, :2], plain[:, :2])
    assert residuals == pytest.approx(points - books.decode(sids, 3), abs=1e-5)


def test_tiny_and_empty_catalogues() -> None:
    books = fit_codebooks(vectors(3), QuantiserConfig())
    assert books.levels == (3, 3, 3, 3, 3) and len(books.encode(vectors(3))) == 3
    assert books.encode(np.zeros((0, 16), np.float32)).shape == (0, 5)
    with pytest.raises(ConfigError, match="empty"):
        fit_codebooks(np.zeros((0, 16), np.float32), QuantiserConfig())


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for engine in ("lloyd", "faiss"):
        with pytest.raises(ConfigError, match="'gpu'"):
            fit_codebooks(vectors(30), QuantiserConfig(device="gpu", engine=engine))
