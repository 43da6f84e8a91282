"""Boosted trees: the first stage of the towers, as arrays that need no LightGBM to be asked.

What a log of some thousand clicks tells is told best by trees over the scalars. They are fitted to clicks,
with the place where a candidate stood as one more column, and the towers learn what they leave over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST = 0
"""The place that serving asks for."""
_PARAMETERS = {
    "objective": "cross_entropy",
    "num_leaves": 8,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 0,
}
_PATIENCE = 30
FOLDS = 3


@dataclass(frozen=True)
class Trees:
    """T trees of n nodes altogether over S scalars and the place.

    Attributes:
        roots: i64[T]. feature: i64[n], -1 in a leaf. threshold: f32[n], what is not above it goes left.
        left, right: i64[n]. value: f32[n], log-odds of the leaves.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    @classmethod
    def none(cls) -> Trees:
        """No trees: log-odds of 0."""
        whole, real = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return cls(whole, whole, real, whole, whole, real)

    @classmethod
    def of_booster(cls, booster: Any) -> Trees:
        """Of a LightGBM booster over numbers alone."""
        roots: list[int] = []
        nodes: list[tuple[int, float, int, int, float]] = []

        def add(told: dict[str, Any]) -> int:
            at = len(nodes)
            if "leaf_value" in told:
                nodes.append((-1, 0.0, at, at, told["leaf_value"]))
                return at
            nodes.append((0, 0.0, 0, 0, 0.0))
            left, right = add(told["left_child"]), add(told["right_child"])
            nodes[at] = (told["split_feature"], told["threshold"], left, right, 0.0)
            return at

        for tree in booster.dump_model()["tree_info"]:
            roots.append(add(tree["tree_structure"]))
        feature, threshold, left, right, value = (list(column) for column in zip(*nodes, strict=True))
        return cls(
            np.array(roots, np.int64),
            np.array(feature, np.int64),
            _not_above(np.array(threshold, np.float64)),
            np.array(left, np.int64),
            np.array(right, np.int64),
            np.array(value, np.float32),
        )

    def log_odds(self, scalars: np.ndarray, place: np.ndarray) -> np.ndarray:
        """f32[M] of scalars f32[M, S] and places i[M]."""
        columns = _columns(scalars, place)
        rows = np.arange(len(columns))
        total = np.zeros(len(columns), np.float32)
        for root in self.roots:
            at = np.full(len(columns), root)
            while (self.feature[at] >= 0).any():
                goes_left = columns[rows, np.maximum(self.feature[at], 0)] <= self.threshold[at]
                at = np.where(goes_left, self.left[at], self.right[at])
            total += self.value[at]
        return total

    def both(self, scalars: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Log-odds f32[M, 2]: where the candidates stood, and as if all stood first."""
        first = np.full(len(place), FIRST)
        stood = self.log_odds(scalars, place)
        return np.stack([stood, stood if (place == FIRST).all() else self.log_odds(scalars, first)], axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return {f"trees.{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Trees:
        """Read what :meth:`arrays` gave; KeyError where one is missing."""
        return cls(**{name: arrays[f"trees.{name}"] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Boosted:
    """Trees fitted to rows, and what they say of them.

    Attributes:
        trees: fitted to all the rows learnt from. rounds: how many.
        unseen: f32[n, 2], :meth:`Trees.both` of the rows learnt from, each by trees that did not see it.
    """

    trees: Trees
    rounds: int
    unseen: np.ndarray


def boost(
    scalars: np.ndarray,
    place: np.ndarray,
    clicked: np.ndarray,
    request: np.ndarray,
    rounds: int,
    seed: int,
    valid: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Boosted:
    """Fit trees to clicks.

    Args:
        scalars: f32[n, S]. place: i[n]. clicked: f32[n], 0 to 1. request: i64[n]; what is of one request is
            unseen together.
        rounds: trees at most. valid: scalars, places and clicks that say when it is enough.
    """
    import lightgbm

    columns = _columns(scalars, place)

    def fitted(rows: np.ndarray, count: int, stopped: bool = False) -> Any:
        held = None if valid is None or not stopped else lightgbm.Dataset(_columns(*valid[:2]), valid[2])
        return lightgbm.train(
            {**_PARAMETERS, "seed": seed},
            lightgbm.Dataset(columns[rows], clicked[rows]),
            count,
            valid_sets=None if held is None else [held],
            callbacks=None if held is None else [lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )

    every = np.ones(len(columns), bool)
    booster = fitted(every, rounds, stopped=True)
    enough = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    fold = np.random.default_rng([seed, 0x7B]).integers(FOLDS, size=int(request.max(initial=0)) + 1)[request]
    unseen = np.zeros((len(columns), 2), np.float32)
    first = _columns(scalars, np.full(len(place), FIRST))
    for number in range(FOLDS):
        own, others = fold == number, fold != number
        if own.any() and others.any():
            part = fitted(others, enough)
            for at, asked in enumerate((columns, first)):
                unseen[own, at] = part.predict(asked[own], raw_score=True)
    if booster.num_trees() > enough:
        booster = fitted(every, enough)
    return Boosted(Trees.of_booster(booster), enough, unseen)


def _columns(scalars: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.column_stack([scalars, place]).astype(np.float32)


def _not_above(threshold: np.ndarray) -> np.ndarray:
    """The largest f32 that are not above f64: on f32 they part the same numbers."""
    near = threshold.astype(np.float32)
    return np.where(near.astype(np.float64) > threshold, np.nextafter(near, np.float32(-np.inf)), near)
