"""Ablations of KHQE: the paper's tables 2 and 3, and what each of the five losses is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from onesearch.config import Config
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.progress import Progress
from onesearch.training.split import tokenizer_pairs

from onesearch_khqe.collisions import assign_last_codes
from onesearch_khqe.config import KhqeConfig, LossWeights
from onesearch_khqe.fusion import normalised
from onesearch_khqe.learner import KhqeLearner
from onesearch_khqe.measures import codebook_use, independent_rate, positive_ranks, spread
from onesearch_khqe.quantiser import encode_catalogue, fit_codebooks
from onesearch_khqe.samples import split_pairs

LOSSES = ("q2q", "i2i", "q2i", "rank", "relevance")
QUERIES = 2_000


@dataclass(frozen=True)
class Truth:
    """Held-out queries and the item numbers that are right for each."""

    queries: list[str]
    positives: list[np.ndarray]

    def per_query(self, queries: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """``R@10``, ``HR@10`` and reciprocal rank of each query, f64[Q]."""
        ranks = positive_ranks(queries, items, self.positives)
        first = np.array([row.min() for row in ranks])
        return {
            "R@10": np.array([(row < 10).mean() for row in ranks]),
            "HR@10": (first < 10).astype(np.float64),
            "MRR@10": np.where(first < 10, 1.0 / (first + 1), 0.0),
        }


def losses(store: Store, config: Config, work: Path, passes: int, progress: Progress) -> list[dict[str, Any]]:
    """Rows of the embedding with each of the five losses left out in turn, without keywords.

    ``change`` is of R@10 over the row of all five, items ranked by e° itself.
    """
    return _loss_rows(_Study(store, _settings(config, passes), work, progress))


def tables(store: Store, config: Config, work: Path, passes: int, progress: Progress) -> list[dict[str, Any]]:
    """Rows of the paper's tables 2 and 3: base, + keywords, + balanced; RQ alone, + OPQ, + collision-aware.

    Figures are those of SIDs: items ranked by what their SID stands for. Rows also have ``icr`` and ``cur``.
    The fusion of "+ keywords" is the configuration's (where that is 0, the paper's ½).
    """
    return _table_rows(_Study(store, _settings(config, passes), work, progress))


def _settings(config: Config, passes: int) -> KhqeConfig:
    offer, chosen = config.component("tokenizer")
    if not isinstance(chosen, KhqeConfig):
        raise UsageError(f"{config.source}: its tokenizer is '{offer.name}', not khqe")
    alignment = chosen.alignment.model_copy(update={"epochs": passes, "patience": max(1, passes)})
    return chosen.model_copy(update={"alignment": alignment})


class _Study:
    """One store, its split and its keyword pool; encoders are aligned as asked."""

    def __init__(self, store: Store, config: KhqeConfig, folder: Path, progress: Progress) -> None:
        self.config = config
        self.folder = folder
        self.progress = progress
        self.set = store.source
        self.store = store
        _, held_out = split_pairs(tokenizer_pairs(store, config.relevant_grade), config.held_out)
        rows = held_out.filter(pl.col("weight") > 0).group_by("query", maintain_order=True).agg("item")
        rows = rows.head(QUERIES)
        if len(rows) < 2:
            raise UsageError(
                f"{store.path}: an ablation needs held-out queries with relevant or clicked items"
            )
        self.truth = Truth(rows["query"].to_list(), [np.array(row) for row in rows["item"].to_list()])
        self.learners: dict[str, KhqeLearner] = {}

    def aligned(self, without: str = "") -> KhqeLearner:
        """A learner up to its item vectors, its loss ``without`` weighing 0."""
        if without not in self.learners:
            weights = self.config.alignment.weights
            if without:
                weights = LossWeights(**{**weights.model_dump(), without: 0.0})
            settings = self.config.alignment.model_copy(update={"weights": weights})
            learner = KhqeLearner(self.config.model_copy(update={"alignment": settings, "fusion": 0.0}))
            learner.fit_vectors(self.store, self.folder, self.progress)
            self.learners[without] = learner
        return self.learners[without]

    def row(
        self,
        what: str,
        without: str,
        figures: dict[str, np.ndarray],
        against: dict[str, np.ndarray] | None,
        by: str,
    ) -> dict[str, Any]:
        """One row, its change taken against the figures of the row named ``by``."""
        change = figures["R@10"] - (figures if against is None else against)["R@10"]
        low, high = spread(change)
        means = {name: round(float(values.mean()), 5) for name, values in figures.items()}
        return {
            "part": "khqe",
            "what": what,
            "without": without,
            "set": self.set,
            **means,
            "change": round(float(change.mean()), 5),
            "low": round(low, 5),
            "high": round(high, 5),
            "against": by,
            "queries": len(change),
        }


def _loss_rows(study: _Study) -> list[dict[str, Any]]:
    full = study.aligned()
    reference = study.truth.per_query(full.embed(study.truth.queries), full.item_vectors())
    rows = [study.row("embedding, all five losses", "", reference, None, "")]
    for name in LOSSES:
        learner = study.aligned(name)
        figures = study.truth.per_query(learner.embed(study.truth.queries), learner.item_vectors())
        rows.append(study.row(f"embedding without {name}", name, figures, reference, rows[0]["what"]))
        del study.learners[name]
    return rows


def _table_rows(study: _Study) -> list[dict[str, Any]]:
    learner = study.aligned()
    quantiser = study.config.quantiser
    share = study.config.fusion or 0.5
    rows: list[dict[str, Any]] = []
    by_name: dict[str, dict[str, np.ndarray]] = {}
    for name, fusion, balanced in (
        ("base", 0.0, False),
        ("+ keywords", share, False),
        ("+ balanced", share, True),
    ):
        items, queries = learner.fused_vectors(fusion), learner.fused_queries(study.truth.queries, fusion)
        config = quantiser.model_copy(update={"balanced": balanced})
        books = fit_codebooks(items, config, study.config.seed, progress=study.progress)
        sids, residuals = encode_catalogue(books, items, config)
        depth = len(books.layers)
        variants = [(f"RQ alone: {name}", sids[:, :depth], depth)]
        if books.parts:
            variants += [
                (f"RQ + OPQ: {name}", sids, len(books.levels)),
                (
                    f"RQ + OPQ, collision-aware: {name}",
                    assign_last_codes(books, sids, residuals).sids,
                    len(books.levels),
                ),
            ]
        for what, codes, levels in variants:
            figures = study.truth.per_query(normalised(queries), books.decode(codes, levels))
            by_name[what] = figures
            # Table 2 is read down (base, + keywords, + balanced), table 3 across (RQ alone, + OPQ).
            by = f"RQ alone: {name}" if not what.startswith("RQ alone") else "RQ alone: base"
            lacking = [
                word for word, lacks in (("keywords", not fusion), ("balanced", not balanced)) if lacks
            ]
            lacking += ["opq"] if levels == depth else []
            row = study.row(what, ", ".join(lacking), figures, by_name[by], by)
            row["icr"] = round(independent_rate(codes), 5)
            row["cur"] = codebook_use(codes, books.levels[:levels])
            rows.append(row)
    return rows
