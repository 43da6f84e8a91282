"""The baseline that the CTR tower has to beat: LightGBM on counters and similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onesearch_pars.features import MATCHING
from onesearch_pars.samples import Rows
from onesearch_pars.space import SCALARS
from onesearch_pars.trees import FIRST

_COUNTERS = ("log_popularity", "pair_", "item_")
COLUMNS = [
    at for at, name in enumerate(SCALARS) if name in (*MATCHING, "similar") or name.startswith(_COUNTERS)
]
"""Everything that is known of query and item without the shopper."""
_PARAMETERS = {
    "objective": "binary",
    "metric": "auc",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "verbose": -1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 0,
}
_MOST_ROUNDS, _PATIENCE = 400, 30


@dataclass(frozen=True)
class ClickBaseline:
    """LightGBM fitted to clicks; ``placed``: it knows where an item stood."""

    model: Any
    placed: bool

    def score(self, rows: Rows, at: np.ndarray, first: bool = False) -> np.ndarray:
        """f64[n], how likely the rows ``at`` are clicked; ``first``: had all stood first."""
        columns = _columns(rows, at, self.placed, first)
        return np.asarray(self.model.predict(columns, num_threads=0))


def click_baseline(rows: Rows, train: np.ndarray, valid: np.ndarray, placed: bool) -> ClickBaseline | None:
    """Fit it; None where LightGBM is missing.

    ``train`` and ``valid`` i64 are the rows that the towers had, to learn from and to stop by. ``placed``: it
    knows where an item stood, as the towers do while they learn.
    """
    try:
        import lightgbm
    except ImportError:
        return None

    def data(at: np.ndarray) -> lightgbm.Dataset:
        return lightgbm.Dataset(_columns(rows, at, placed, first=False), rows.clicked[at])

    model = lightgbm.train(
        _PARAMETERS,
        data(train),
        _MOST_ROUNDS,
        valid_sets=[data(valid)] if len(valid) else None,
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)] if len(valid) else None,
    )
    return ClickBaseline(model, placed)


def _columns(rows: Rows, at: np.ndarray, placed: bool, first: bool) -> np.ndarray:
    counted = rows.scalars[at][:, COLUMNS]
    if not placed:
        return counted
    return np.column_stack([counted, np.full(len(at), FIRST) if first else rows.place[at]])
