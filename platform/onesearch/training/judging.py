"""What each stage of the generator does to held-out searches: the same ones for every stage, each in turn.

The searches are some of those that the reward's lists are made of: requests of the slice that nobody learns
from, each asked as it was then, good is what the shopper chose. Differences are paired by search.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from onesearch.errors import ArtifactError
from onesearch.evaluation.metrics import Relevant, per_query
from onesearch.index import Candidates
from onesearch.training.drawing import DrawnSearches

FILE = "judged.safetensors"
NAMES = ("HR@10", "R@10", "NDCG@10")
CHANCE = 1.96
"""Standard errors that a mean may fall by chance alone: one time in forty."""
DECIDES = ("R@10", "NDCG@10")


@dataclass(frozen=True)
class Judged:
    """S searches as one stage answers them, in the generator's order.

    Attributes:
        metrics: f64[S] by name, of :data:`NAMES`.
        vectors: f32[S, D], e° of the queries. found: what the beams reached.
    """

    metrics: dict[str, np.ndarray]
    vectors: np.ndarray
    found: Candidates

    @classmethod
    def of(cls, drawn: DrawnSearches, rows: np.ndarray, vectors: np.ndarray, found: Candidates) -> Judged:
        """Of the searches ``rows`` of those drawn."""
        by_row = {row: part for (row,), part in drawn.gains.sort("row", "item").group_by("row")}
        relevant = [
            Relevant(by_row[row]["item"].to_numpy(), by_row[row]["gain"].to_numpy()) for row in rows.tolist()
        ]
        metrics = per_query(found.items, relevant, cutoffs=(10,))
        return cls({name: metrics[name] for name in NAMES}, vectors, found)

    def save(self, folder: Path) -> None:
        """Write :data:`FILE`."""
        arrays = {"vectors": self.vectors, "items": self.found.items, "log_probs": self.found.log_probs}
        save_file(arrays | {name: np.ascontiguousarray(self.metrics[name]) for name in NAMES}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Judged:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        try:
            arrays = load_file(folder / FILE)
            metrics = {name: arrays[name] for name in NAMES}
            return cls(metrics, arrays["vectors"], Candidates(arrays["items"], arrays["log_probs"]))
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{folder / FILE}: not judged searches ({error})") from error

    def figures(self) -> dict[str, Any]:
        """Means, and of how many searches."""
        means = {name: round(float(values.mean()), 5) for name, values in self.metrics.items()}
        return {"searches": len(self.vectors), **means}

    def change(self, before: Judged) -> dict[str, Any]:
        """What became of each mean since another stage: mean change and its standard error."""
        told: dict[str, Any] = {}
        for name in NAMES:
            apart = self.metrics[name] - before.metrics[name]
            error = float(apart.std()) / np.sqrt(len(apart))
            told[name] = {"change": round(float(apart.mean()), 5), "error": round(error, 5)}
        return told

    def worse_than(self, before: Judged) -> bool:
        """Whether recall or NDCG fell by more than chance explains."""
        told = self.change(before)
        return any(told[name]["change"] < -CHANCE * told[name]["error"] for name in DECIDES)


def judged_rows(drawn: DrawnSearches, limit: int, seed: int) -> np.ndarray:
    """Which of the drawn searches stages are judged by, i64, rising: those of which good items are known."""
    rows = np.unique(drawn.gains["row"].to_numpy()).astype(np.int64)
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng([seed, 0xC1]).choice(rows, limit, replace=False))
    return rows
