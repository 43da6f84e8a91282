"""The picture of calibration, and what a release without towers is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onesearch_pars.measures import calibration
from onesearch_pars.next_day import TOWERS, draw


def test_a_panel_a_tower_even_where_nothing_was_observed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.001, 0.3, 4_000)
    tables = {tower: calibration(predicted, rng.random(4_000) < predicted) for tower in TOWERS[:2]}
    tables["ctcvr"] = calibration(predicted, np.zeros(4_000, bool))
    made = draw(tables, tmp_path / "deep" / "calibration.png", "a day")
    assert made.read_bytes().startswith(b"\x89PNG")
    assert not list(made.parent.glob("*.tmp.png"))
    for tower in TOWERS[:2]:
        for entry in tables[tower]:
            assert entry["observed"] == pytest.approx(entry["predicted"], abs=0.08)
