"""What was shown, and how well it could be seen."""

from __future__ import annotations

import numpy as np
import pytest
from onesearch_pars.exposed import PLACES, Exposed, looks
from onesearch_pars.sim import FOLDS, fold_of


def test_looks_by_hand() -> None:
    first = np.array([0.4, 0.2, 0.2, 0.1, 0.3], np.float32)
    placed = np.array([0.4, 0.1, 0.1, 0.05, 0.3], np.float32)
    found = looks(first, placed, np.array([0, 1, 1, 3, -1]))
    assert found[:4] == pytest.approx([1, 0.5, 0.5, 0.5]), "nothing stood at the third: like the second"
    assert len(found) == PLACES and found[-1] == pytest.approx(0.5)
    assert min(looks(first, np.zeros(5, np.float32), np.array([0, 1, 2, 3, 4]))) > 0


def test_what_searches_showed(shop) -> None:
    made = shop.impressions()
    searches = np.arange(600, 700)
    chances = np.array(looks(np.ones(8), (1.0 + np.arange(8)) ** -0.5, np.arange(8)))
    found = Exposed.of_searches(made, searches, chances)
    items = np.tile(np.arange(len(shop.items), dtype=np.int32), (2, 1))
    shown, times = found.of(["lamp", "never asked"], items)
    rows = np.isin(made.request, searches)
    asked = np.array([made.queries[at] == "lamp" for at in made.query[made.request]])
    assert set(np.flatnonzero(shown[0])) == set(made.item[rows & asked].tolist())
    assert not shown[1].any() and (times[1] == 1).all()
    clicked = np.unique(made.item[rows & asked & made.clicked])
    assert (times[0, clicked] >= 1).all() and times[0].max() <= 8**0.5 + 1e-3
    assert not Exposed.of_searches(made, searches[:0], chances).of(["lamp"], items[:1])[0].any()


def test_a_query_belongs_to_one_part_of_what_is_held_out() -> None:
    parts = [fold_of(f"query {number}") for number in range(200)]
    assert set(parts) == set(range(FOLDS)) and 60 < sum(parts) < 140
    assert parts == [fold_of(f"query {number}") for number in range(200)]
