"""The baseline that the CTR tower has to beat: LightGBM on counters and similarity."""

from __future__ import annotations

import numpy as np

from onesearch_pars.features import MATCHING
from onesearch_pars.samples import Rows
from onesearch_pars.space import SCALARS

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


def click_baseline(
    rows: Rows, train: np.ndarray, valid: np.ndarray, test: np.ndarray, placed: bool
) -> np.ndarray | None:
    """Scores f64[n] of the rows ``test`` by how likely they are clicked; None where LightGBM is missing.

    ``train`` and ``valid`` i64 are the rows that the towers had, to learn from and to stop by. ``placed``: it
    knows where an item stood, as the towers do while they learn.
    """
    try:
        import lightgbm
    except ImportError:
        return None

    def known(at: np.ndarray) -> np.ndarray:
        counted = rows.scalars[at][:, COLUMNS]
        return np.column_stack([counted, rows.place[at]]) if placed else counted

    def data(at: np.ndarray) -> lightgbm.Dataset:
        return lightgbm.Dataset(known(at), rows.clicked[at])

    model = lightgbm.train(
        _PARAMETERS,
        data(train),
        _MOST_ROUNDS,
        valid_sets=[data(valid)] if len(valid) else None,
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)] if len(valid) else None,
    )
    return np.asarray(model.predict(known(test), num_threads=0))
