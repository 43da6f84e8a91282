"""The benchmark runs, in small, and gives the rows that are relied upon."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onesearch.errors import UsageError
from onesearch.semantic_ids import PrefixTree
from onesearch_seq2seq.bench import run
from onesearch_seq2seq.bench_world import LEVELS, synthetic_sids

KEYS = {
    "engine",
    "size",
    "beams",
    "items",
    "constrained",
    "p50_ms",
    "p99_ms",
    "illegal",
    "certified",
    "over_ctranslate2",
    "cpu_ms",
    "cpu_over_ctranslate2",
}


def test_rows():
    found = run(sizes=("tiny",), beams=(4, 16), items=300, tokens=16, repeats=2, threads=1, peers=False)
    names = ["onesearch-int8", "onesearch-fp32", "onesearch-onnx-int8"]
    assert [(row["engine"], row["beams"]) for row in found["rows"]] == [
        (n, k) for k in (4, 16) for n in names
    ]
    for row in found["rows"]:
        assert set(row) >= KEYS and row["illegal"] == 0 and row["p99_ms"] >= row["p50_ms"] > 0
        assert 0 <= row["certified"] <= 1
    assert found["matmul_ms"] > 0
    for phases in found["phases"]:
        assert len(phases["decoder_ms"]) == len(phases["decoder_rows"]) == 5
        assert phases["encoder_ms"] + phases["rest_ms"] > 0 and phases["decoder_rows"][0] == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the benchmark itself is what to run")
def test_without_a_gpu_it_says_what_was_left_out():
    found = run(
        sizes=("tiny",), beams=(4,), items=300, tokens=16, repeats=1, threads=1, gpu=True, batch=(1, 2)
    )
    assert set(found["left_out"]) == {"tensorrt", "torch-cuda-graph", "transformers"}
    assert all(found["left_out"].values()) and found["gpu"] is None
    [row] = found["rows"]
    assert row["engine"] == "torch-fp32 (processor)" and row["batch"] == 1
    assert row["same_10"] == 1 and row["illegal"] == 0 and row["queries_per_s"] > 0


def test_engines_are_named():
    found = run(sizes=("tiny",), beams=(4,), items=300, repeats=1, threads=1, peers=False, engine=("torch",))
    assert [row["engine"] for row in found["rows"]] == ["onesearch-torch-fp32"]
    with pytest.raises(UsageError, match="--engine gpu: known are auto, onnx, torch"):
        run(engine=("gpu",), items=10)


def test_synthetic_tree_is_as_thin_as_a_real_one():
    tree = PrefixTree.build(synthetic_sids(54_667), LEVELS)
    counts = tree.node_counts
    # Home Depot's tree has 4,096, 37,749, 47,711, 49,854 and 51,202 nodes (plain assignment).
    assert counts[0] == LEVELS[0] and 30_000 < counts[1] < 44_000 < counts[2] <= counts[4] <= 54_667
    assert np.diff(tree.first_child[1]).max() > 20
