from __future__ import annotations

import numpy as np
import pytest
from onesearch_khqe.fusion import fuse, normalised

VECTORS = np.array([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]], np.float32)
KEYWORDS = np.array([[0.0, 1.0], [0.6, 0.8]], np.float16)


def test_the_papers_formula() -> None:
    fused = fuse(VECTORS, KEYWORDS, [[0, 1], [], [1]], 0.5)
    # ½·([1, 0] + mean([0, 1], [.6, .8])) = [.65, .45], length .790569
    assert fused[0] == pytest.approx([0.822192, 0.569210], abs=1e-3)
    assert fused[1] == pytest.approx([0.0, 1.0])
    assert fused[2] == pytest.approx([0.6, 0.8], abs=1e-3)
    assert fused.dtype == np.float32 and np.allclose(np.linalg.norm(fused, axis=1), 1)


def test_share_zero_leaves_the_text() -> None:
    assert fuse(VECTORS, KEYWORDS, [[0], [0], [0]], 0.0) == pytest.approx(normalised(VECTORS))
    assert fuse(VECTORS, KEYWORDS, [[], [], []], 0.5) == pytest.approx(normalised(VECTORS))
    assert VECTORS[1, 1] == 2.0, "the input is left as it was"


def test_many_rows_at_once() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9000, 4)).astype(np.float32)
    entries = [rng.integers(0, 2, rng.integers(0, 4)).tolist() for _ in range(9000)]
    fused = fuse(vectors, KEYWORDS[:, [0, 1, 0, 1]], entries, 0.3)
    for at in (0, 4095, 4096, 8999):
        own = KEYWORDS[:, [0, 1, 0, 1]][entries[at]].astype(np.float32)
        want = 0.7 * vectors[at] + 0.3 * own.mean(0) if entries[at] else vectors[at]
        assert fused[at] == pytest.approx(want / np.linalg.norm(want), abs=1e-5)
