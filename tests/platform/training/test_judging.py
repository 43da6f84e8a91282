"""Held-out searches: metrics by hand, what changed, and what counts as worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.errors import ArtifactError
from onesearch.index import Candidates
from onesearch.training.drawing import DrawnSearches
from onesearch.training.judging import FILE, NAMES, Judged, judged_rows

GAINS = pl.DataFrame(
    {"row": [0, 0, 2], "item": [4, 7, 1], "gain": [1.0, 0.5, 1.0]},
    schema={"row": pl.UInt32, "item": pl.Int32, "gain": pl.Float32},
)
DRAWN = DrawnSearches(["a", "b", "c"], [], [], np.arange(3, dtype=np.int32), GAINS)


def judged(*items: list[int]) -> Judged:
    found = np.array(items, np.int32)
    return Judged.of(DRAWN, np.array([0, 2]), np.zeros((2, 4), np.float32), Candidates(found, -found * 1.0))


def test_metrics_by_hand() -> None:
    found = judged([7, 3, 4], [0, 5, -1])
    # 7 (½) first and 4 (1) third: ½ + 1/2 over 1 + ½/log2(3).
    assert found.metrics["NDCG@10"].tolist() == pytest.approx([1 / (1 + 0.5 / np.log2(3)), 0])
    assert found.metrics["R@10"].tolist() == [1, 0] and found.metrics["HR@10"].tolist() == [1, 0]
    assert found.figures() == {"searches": 2, "HR@10": 0.5, "R@10": 0.5, "NDCG@10": 0.38009}


def test_searches_without_a_known_good_item_judge_nobody() -> None:
    assert judged_rows(DRAWN, 500, 0).tolist() == [0, 2]
    assert len(judged_rows(DRAWN, 1, 0)) == 1 and not len(judged_rows(DRAWN, 0, 0))


def test_saved_and_loaded(tmp_path: Path) -> None:
    found = judged([7, 3, 4], [0, 5, -1])
    found.save(tmp_path)
    again = Judged.load(tmp_path)
    assert again.figures() == found.figures() and np.array_equal(again.found.items, found.found.items)
    (tmp_path / FILE).write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=FILE):
        Judged.load(tmp_path)


def varied(shift: float, noise: float, count: int = 400) -> Judged:
    values = 0.5 + shift + noise * np.random.default_rng(9).normal(size=count)
    nothing = Candidates(np.zeros((count, 1), np.int32), np.zeros((count, 1), np.float32))
    return Judged(dict.fromkeys(NAMES, values), np.zeros((count, 1), np.float32), nothing)


def test_worse_is_what_chance_does_not_explain() -> None:
    base = varied(0.0, 0.0)
    assert varied(-0.05, 0.1).worse_than(base), "ten standard errors"
    assert not varied(-0.002, 0.1).worse_than(base), "less than one"
    assert not varied(0.05, 0.1).worse_than(base)
    assert not base.worse_than(base)
    told = varied(-0.05, 0.1).change(base)["NDCG@10"]
    assert told["change"] == pytest.approx(-0.05, abs=0.015) and told["error"] == pytest.approx(0.005, 0.1)
