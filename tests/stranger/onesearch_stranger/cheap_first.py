"""The reward: log-probability plus ``weight · log2(median price / price)``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from onesearch.contracts import Candidates, RewardLearner, RewardServer, ServingContext, ShopperState
from onesearch.errors import ArtifactError
from onesearch.progress import Progress
from pydantic import BaseModel

from onesearch_stranger.plugin import CheapFirst

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

FILE = "cheap-first.json"


def cheapness(prices: np.ndarray, median: float) -> np.ndarray:
    """``log2(median / price)`` f32[N]; 0 where the price is unknown (NaN) or not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = np.log2(median / prices)
    return np.where(np.isfinite(worth), worth, 0.0).astype(np.float32)


def read(folder: Path) -> tuple[float, float]:
    """Weight and median price. Raises ArtifactError naming the file where it does not fit."""
    path = folder / FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return float(about["weight"]), float(about["median"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not what cheap-first wrote ({error})") from error


class CheapFirstLearner(RewardLearner):
    """Picks the weight whose order finds the most good items early."""

    Config = CheapFirst
    weight, median = 0.0, 1.0

    def fit(
        self, lists: RankedLists, work: Path, progress: Progress, impressions: Impressions | None = None
    ) -> dict[str, Any]:
        """Try every weight on the lists; return the mean gain of the first ten by weight."""
        prices = lists.items["price"].cast(float).fill_null(np.nan).to_numpy()
        known = prices[np.isfinite(prices) & (prices > 0)]
        self.median = float(np.median(known)) if len(known) else 1.0
        bonus = cheapness(prices, self.median)[lists.candidates.items]
        gains = {}
        for weight in CheapFirst.model_validate(self.config.model_dump()).weights:
            totals = np.where(
                lists.candidates.items >= 0, lists.candidates.log_probs + weight * bonus, -np.inf
            )
            first = np.argsort(-totals, axis=1, kind="stable")[:, :10]
            gains[weight] = float(np.take_along_axis(lists.gain, first, axis=1).sum(axis=1).mean())
        self.weight = max(gains, key=lambda weight: (gains[weight], -weight))
        return {"weight": self.weight, "gain_of_ten": gains[self.weight]}

    def save(self, folder: Path) -> None:
        """Write ``cheap-first.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"weight": self.weight, "median": self.median})
        (folder / FILE).write_text(about, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read ``cheap-first.json``."""
        learner = cls(config)
        learner.weight, learner.median = read(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``cheap-first.json``; prices are in the release's index."""
        self.save(folder)


class CheapFirstServer(RewardServer):
    """Adds the bonus."""

    parts = ("generator", "cheapness")

    def __init__(self, bonus: np.ndarray) -> None:
        self._bonus = bonus

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Read ``cheap-first.json`` and the catalogue's prices."""
        weight, median = read(folder)
        prices = context.index.items["price"].cast(float).fill_null(np.nan).to_numpy()
        return cls(np.float32(weight) * cheapness(prices, median))

    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Totals and the two parts."""
        real = candidates.items >= 0
        parts = np.zeros((*real.shape, 2), dtype=np.float32)
        parts[..., 0] = np.where(real, candidates.log_probs, 0)
        parts[..., 1] = np.where(real, self._bonus[candidates.items], 0)
        return np.where(real, parts.sum(axis=-1), -np.inf).astype(np.float32), parts
