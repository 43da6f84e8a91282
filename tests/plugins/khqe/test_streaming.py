"""Codebooks of vectors that are never in memory together."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from onesearch.errors import UsageError
from onesearch_khqe.config import QuantiserConfig
from onesearch_khqe.quantiser import fit_codebooks
from onesearch_khqe.streaming import chunks_of, fit_streaming

CONFIG = QuantiserConfig(code_sizes=(64, 32, 16), opq_sizes=(16, 16), fit_sample=3_000)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    found = random.normal(size=(80, 32))[random.integers(0, 80, 40_000)]
    found += 0.5 * random.normal(size=found.shape)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_nearly_as_good_as_all_at_once(vectors: np.ndarray) -> None:
    streamed = fit_streaming(chunks_of(vectors, 5_000), len(vectors), CONFIG)
    whole = fit_codebooks(vectors, CONFIG)
    sample = fit_codebooks(vectors[:: len(vectors) // CONFIG.fit_sample], CONFIG)
    by = [books.distortion(vectors, books.encode(vectors)) for books in (streamed, whole, sample)]
    assert streamed.levels == whole.levels
    assert by[0] <= 1.04 * by[1], "within 4 % of the fit in memory, from 7.5 % of the vectors"
    assert by[0] < by[2], "the passes over all vectors bring something"


def test_memory_does_not_grow_with_the_vectors(vectors: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.concatenate([vectors] * 3))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    fit_streaming(
        chunks_of(vectors[:4_000], 1_000), 4_000, CONFIG
    )  # what is imported counts as no memory of it
    peaks = []
    for count in (20_000, 120_000):
        tracemalloc.start()
        fit_streaming(chunks_of(mapped[:count], 1_000), count, CONFIG)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = mapped[20_000:].nbytes
    assert peaks[1] - peaks[0] < 0.15 * grown, "beside the numbers that the sample is drawn from"


def test_a_source_that_ends_early(vectors: np.ndarray) -> None:
    with pytest.raises(UsageError, match="gives 4000 of them, not 5000"):
        fit_streaming(chunks_of(vectors[:4_000]), 5_000, CONFIG)
