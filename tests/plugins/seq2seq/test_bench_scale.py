"""The scale study runs, in small; its SIDs lie as a real catalogue's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onesearch.semantic_ids import PrefixTree
from onesearch_seq2seq.bench_scale import branching_sids, run
from onesearch_seq2seq.bench_world import LEVELS
from onesearch_seq2seq.native import library


def test_rows(tmp_path: Path) -> None:
    try:
        library.library()
    except library.LibraryError as error:
        pytest.skip(str(error))
    found = run((400, 300), size="tiny", beams=8, tokens=16, repeats=2, threads=1, plot=tmp_path / "s.png")
    assert [row["items"] for row in found["rows"]] == [300, 400] and found["ratio"] > 0
    for row in found["rows"]:
        assert row["sids"] == row["items"] and row["nodes"] >= row["items"]
        assert row["p99_ms"] >= row["p50_ms"] > 0 and row["insert_ms"] > 0
        parts = {**row["bytes_per_item"]}
        assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=0.2)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_the_tree_branches_as_home_depots() -> None:
    counts = PrefixTree.build(branching_sids(54_667), LEVELS).node_counts
    assert np.array(counts) == pytest.approx(np.array([4096, 41_453, 49_872, 52_797, 54_667]), rel=0.03)
