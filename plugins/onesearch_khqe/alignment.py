"""Training the aligned embedding on the five losses, with early stopping on held-out queries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from onesearch.progress import Progress

from onesearch_khqe.checkpoint import Checkpoint
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.encoders import TextEncoder
from onesearch_khqe.measures import recall_of
from onesearch_khqe.objective import Objective
from onesearch_khqe.optimiser import Optimiser
from onesearch_khqe.samples import Pairs, pseudo_queries
from onesearch_khqe.texts import TextTable

EVALUATION_ITEMS = 20_000
EVALUATION_QUERIES = 2_000


@dataclass
class HeldOut:
    """Held-out queries with their positive items, over a sample of the catalogue that holds all of these."""

    queries: np.ndarray
    items: np.ndarray
    positives: list[np.ndarray]


class Alignment:
    """One training of a :class:`TextEncoder`."""

    def __init__(
        self,
        encoder: TextEncoder,
        table: TextTable,
        item_texts: list[str],
        titles: list[str],
        learn: pl.DataFrame,
        held_out: pl.DataFrame,
        config: KhqeConfig,
    ) -> None:
        """``learn`` and ``held_out``: columns of ``query_item_pairs``, of different queries."""
        self.encoder = encoder
        self.table = table
        self.config = config
        self.settings = config.alignment
        rng = np.random.default_rng(config.seed)
        self.items = table.add(item_texts)
        names = learn["query"].unique(maintain_order=True).to_list()
        self.pairs = Pairs(learn, {text: number for number, text in enumerate(names)})
        self.queries = table.add(names)
        wanted = min(self.settings.pseudo_queries, 4 * len(titles)) if self.settings.pseudo_share else 0
        texts, self.pseudo_items = pseudo_queries(titles, wanted, rng)
        self.pseudo = table.add(texts)
        self.objective = Objective(
            encoder, self.settings, self.queries, self.items, self.pseudo, self.pseudo_items
        )
        self.held_out = self._held_out(held_out, rng)
        if encoder.ngram is not None:
            encoder.ngram.initialise(*self._frequency(), seed=config.seed)

    def _frequency(self) -> tuple[np.ndarray, int]:
        buckets = self.config.buckets
        frequency = np.zeros(buckets, np.int64)
        rows = np.unique(self.items)
        for some in np.array_split(rows, max(1, len(rows) // 8192)):
            ids, offsets = self.table.bags(some)
            owner = np.repeat(np.arange(len(some)), np.diff(np.append(offsets, len(ids))))
            frequency += np.bincount(np.unique(owner * buckets + ids) % buckets, minlength=buckets)
        return frequency, len(rows)

    def _held_out(self, pairs: pl.DataFrame, rng: np.random.Generator) -> HeldOut | None:
        found = pairs.filter(pl.col("weight") > 0).group_by("query", maintain_order=True).agg("item")
        if not len(found):
            return None
        found = found.head(EVALUATION_QUERIES)
        wanted = np.unique(np.concatenate([np.asarray(row) for row in found["item"].to_list()]))
        others = rng.permutation(np.setdiff1d(np.arange(len(self.items)), wanted))
        items = np.concatenate([wanted, others[: max(0, EVALUATION_ITEMS - len(wanted))]])
        number = {item: at for at, item in enumerate(items.tolist())}
        positives = [np.array([number[item] for item in row]) for row in found["item"].to_list()]
        return HeldOut(self.table.add(found["query"].to_list()), self.items[items], positives)

    def fit(self, work: Path, progress: Progress) -> dict[str, Any]:
        """Train, resuming from ``work`` where a pass was finished there; the encoder ends as the best pass
        left it.

        Returns ``curve`` (one entry a pass: losses and figures on held-out queries) and ``best`` (its pass).
        """
        optimiser = Optimiser(self.encoder, self.settings.table_rate, self.settings.rate)
        checkpoint = Checkpoint(work, self.encoder, optimiser)
        curve = checkpoint.resume()
        if not curve:
            curve = [{"pass": 0, **self.evaluate()}]
            checkpoint.write(curve, best=True)
        with progress.task("Aligning the embedding", self.settings.epochs) as task:
            task.advance(len(curve) - 1)
            while len(curve) <= self.settings.epochs and len(self.pairs.positive) + len(self.pseudo):
                scores = [float(entry.get("score", entry["pass"])) for entry in curve]
                if len(curve) - 1 - int(np.argmax(scores)) >= self.settings.patience:
                    break
                losses = self._pass(len(curve), optimiser)
                curve.append({"pass": len(curve), "losses": losses, **self.evaluate()})
                figures = curve[-1]
                better = figures.get("score", np.inf) > max(scores)
                checkpoint.write(curve, best=better or "score" not in figures)
                task.advance(1, f"recall@10 {figures['R@10']:.3f}" if "R@10" in figures else None)
        checkpoint.best()
        scores = [float(entry.get("score", entry["pass"])) for entry in curve]
        return {"curve": curve, "best": int(np.argmax(scores))}

    def evaluate(self) -> dict[str, float]:
        """Recall of held-out queries among the sampled items; {} when there are none. ``score`` is what is
        compared."""
        if self.held_out is None:
            return {}
        queries = self.encoder.embed(self.table, self.held_out.queries, "query")
        items = self.encoder.embed(self.table, self.held_out.items, "item")
        figures = recall_of(queries, items, self.held_out.positives, (10, 100))
        return {**figures, "score": figures["R@10"] + figures["R@100"]}

    def _pass(self, number: int, optimiser: Optimiser) -> dict[str, float]:
        rng = np.random.default_rng([self.config.seed, number])
        settings = self.settings
        # The last third runs on real queries only: pseudo-queries have taught the words by then.
        early = 3 * number <= 2 * settings.epochs
        share = settings.pseudo_share if early or not len(self.pairs.positive) else 0.0
        steps = self.pairs.epoch(settings.batch, settings.max_steps, rng)
        if not steps:
            wanted = max(1, min(len(self.pseudo) // settings.batch, settings.max_steps))
            steps = [np.zeros(0, np.int64)] * wanted
        sums: dict[str, float] = {}
        for at, rows in enumerate(steps):
            # To a twentieth by the end: on Home Depot worth .024 of recall@10 over a constant rate.
            optimiser.scale = max(0.05, 1 - (number - 1 + at / len(steps)) / settings.epochs)
            batch = self.pairs.batch(rows, rng)
            size = int(share * settings.batch) if len(self.pseudo) else 0
            drawn = rng.integers(0, len(self.pseudo), size) if size else np.zeros(0, np.int64)
            losses = optimiser.step(self.table, partial(self.objective.losses, batch=batch, drawn=drawn))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value / len(steps) for name, value in sums.items()}
