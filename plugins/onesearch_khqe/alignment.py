"""Training the aligned embedding on the five losses, with early stopping on held-out queries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from onesearch.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor

from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.encoders import TextEncoder, bag
from onesearch_khqe.losses import info_nce, rank_loss, relevance_loss
from onesearch_khqe.measures import recall_of
from onesearch_khqe.optimiser import RowAdam
from onesearch_khqe.samples import Batch, Pairs, pseudo_queries
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
        optimiser = _Optimiser(self.encoder, self.settings.table_rate, self.settings.rate)
        checkpoint = _Checkpoint(work, self.encoder, optimiser)
        curve = checkpoint.resume()
        if not curve:
            curve = [{"pass": 0, **self.evaluate()}]
            checkpoint.write(curve, best=True)
        with progress.task("Aligning the embedding", self.settings.epochs) as task:
            task.advance(len(curve) - 1)
            while len(curve) <= self.settings.epochs:
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

    def _pass(self, number: int, optimiser: _Optimiser) -> dict[str, float]:
        rng = np.random.default_rng([self.config.seed, number])
        settings = self.settings
        # The last third runs on real queries only: pseudo-queries have taught the words by then.
        share = (
            settings.pseudo_share
            if 3 * number <= 2 * settings.epochs or not len(self.pairs.positive)
            else 0.0
        )
        steps = self.pairs.epoch(settings.batch, settings.max_steps, rng)
        if not steps:
            wanted = max(1, min(len(self.pseudo) // settings.batch, settings.max_steps))
            steps = [np.zeros(0, np.int64)] * wanted
        sums: dict[str, float] = {}
        for at, rows in enumerate(steps):
            # To a twentieth by the end: on Home Depot worth .024 of recall@10 over a constant rate.
            optimiser.scale = max(0.05, 1 - (number - 1 + at / len(steps)) / settings.epochs)
            batch = self.pairs.batch(rows, rng) if len(rows) else None
            size = int(share * settings.batch) if len(self.pseudo) else 0
            drawn = rng.integers(0, len(self.pseudo), size) if size else np.zeros(0, np.int64)
            losses = optimiser.step(self.table, lambda embed, b=batch, d=drawn: self.losses(embed, b, d))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value / len(steps) for name, value in sums.items()}

    def losses(self, embed: _Embed, batch: Batch | None, pseudo: np.ndarray) -> dict[str, Tensor]:
        """The weighted losses of one step by name. ``embed(query rows, item rows)`` gives embeddings of table
        rows."""
        weights = self.settings.weights
        none = np.zeros(0, np.int64)
        query, item = (batch.query, batch.item) if batch else (none, none)
        wanted = {"q2i": np.ones(len(query), bool)}
        others = {"other_query": none, "other_item": none, "worse": none}
        if batch is not None:
            others = {
                "other_query": np.flatnonzero(batch.other_query >= 0) if weights.q2q else none,
                "other_item": np.flatnonzero(batch.other_item >= 0) if weights.i2i else none,
                "worse": np.flatnonzero(batch.worse >= 0) if weights.rank or weights.relevance else none,
            }
        q_rows = [self.queries[query], self.pseudo[pseudo]]
        i_rows = [self.items[item], self.items[self.pseudo_items[pseudo]]]
        if batch is not None:
            q_rows.append(self.queries[batch.other_query[others["other_query"]]])
            i_rows.append(self.items[batch.other_item[others["other_item"]]])
            i_rows.append(self.items[batch.worse[others["worse"]]])
        q_vectors, i_vectors = embed(np.concatenate(q_rows), np.concatenate(i_rows))
        q_parts = q_vectors.split([len(rows) for rows in q_rows])
        i_parts = i_vectors.split([len(rows) for rows in i_rows])
        scale = self.encoder.scale.exp().clamp(max=100.0)
        both_q = torch.from_numpy(np.concatenate([query, -1 - np.arange(len(pseudo))]))
        both_i = torch.from_numpy(np.concatenate([item, self.pseudo_items[pseudo]]))
        same = _same(both_q, both_q) | _same(both_i, both_i)
        del wanted
        out = {
            "q2i": weights.q2i * info_nce(torch.cat(q_parts[:2]), torch.cat(i_parts[:2]), scale, same),
        }
        if batch is None:
            return out
        left = torch.from_numpy(others["other_query"])
        if len(left) and weights.q2q:
            own, other = torch.from_numpy(batch.query)[left], torch.from_numpy(batch.other_query)[left]
            same = _same(own, own) | _same(own, other) | _same(other, other)
            out["q2q"] = weights.q2q * info_nce(q_parts[0][left], q_parts[2], scale, same)
        left = torch.from_numpy(others["other_item"])
        if len(left) and weights.i2i:
            own, other = torch.from_numpy(batch.item)[left], torch.from_numpy(batch.other_item)[left]
            same_query = torch.from_numpy(batch.query)[left]
            same = _same(own, own) | _same(own, other) | _same(other, other) | _same(same_query, same_query)
            out["i2i"] = weights.i2i * info_nce(i_parts[0][left], i_parts[2], scale, same)
        at = torch.from_numpy(others["worse"])
        if len(at) and weights.rank:
            steps = torch.from_numpy(batch.steps)[at]
            out["rank"] = weights.rank * rank_loss(
                q_parts[0][at], i_parts[0][at], i_parts[3], steps, self.settings.margin
            )
        if weights.relevance:
            grades = torch.from_numpy(np.concatenate([batch.grade, batch.worse_grade[others["worse"]]]))
            judged = ~grades.isnan()
            if bool(judged.any()):
                queries = torch.cat([q_parts[0], q_parts[0][at]])[judged]
                items = torch.cat([i_parts[0], i_parts[3]])[judged]
                out["relevance"] = weights.relevance * relevance_loss(
                    queries, items, grades[judged], self.encoder.slope, self.encoder.shift
                )
        return out


def _same(left: Tensor, right: Tensor) -> Tensor:
    return left[:, None] == right[None, :]


class _Embed:
    """Embeds table rows for one step: n-gram rows of the step are cut out of the table, so that their
    gradient is small."""

    def __init__(self, encoder: TextEncoder, table: TextTable) -> None:
        self.encoder = encoder
        self.table = table
        self.rows: Tensor | None = None
        self.cut: Tensor | None = None
        self.cut_weights: Tensor | None = None

    def __call__(self, queries: np.ndarray, items: np.ndarray) -> tuple[Tensor, Tensor]:
        texts = np.concatenate([queries, items])
        ngram = None
        if self.encoder.ngram is not None:
            ids, offsets = self.table.bags(texts)
            used, inverse = np.unique(ids, return_inverse=True)
            self.rows = torch.from_numpy(used)
            self.cut = self.encoder.ngram.rows.detach()[self.rows].requires_grad_()
            self.cut_weights = self.encoder.ngram.weights.detach()[self.rows].requires_grad_()
            ngram = bag(torch.from_numpy(inverse), torch.from_numpy(offsets), self.cut, self.cut_weights)
        parts: list[Tensor] = []
        for role, rows, start in (("query", queries, 0), ("item", items, len(queries))):
            base = (
                None
                if self.table.base is None
                else torch.from_numpy(self.table.base[rows].astype(np.float32))
            )
            own = None if ngram is None else ngram[start : start + len(rows)]
            parts.append(self.encoder.join(own, base, "query" if role == "query" else "item"))
        return parts[0], parts[1]


class _Optimiser:
    """Row-wise Adam for the n-gram table, Adam for the rest."""

    def __init__(self, encoder: TextEncoder, table_rate: float, rate: float) -> None:
        self.encoder = encoder
        self.scale = 1.0
        self.tables: dict[str, RowAdam] = {}
        if encoder.ngram is not None:
            self.tables = {
                "rows": RowAdam(encoder.ngram.rows.data, table_rate),
                "weights": RowAdam(encoder.ngram.weights.data, rate),
            }
        self.names = [name for name, _ in encoder.named_parameters() if not name.startswith("ngram.")]
        self.dense = [value for name, value in encoder.named_parameters() if not name.startswith("ngram.")]
        self.rate = rate
        self.adam = torch.optim.Adam(self.dense, lr=rate)

    def step(self, table: TextTable, compute: Any) -> dict[str, float]:
        """One step on the losses that ``compute(embed)`` gives; returns them as numbers."""
        embed = _Embed(self.encoder, table)
        losses: dict[str, Tensor] = compute(embed)
        total = torch.stack(list(losses.values())).sum()
        self.adam.zero_grad()
        total.backward()
        self.adam.param_groups[0]["lr"] = self.scale * self.rate
        self.adam.step()
        if embed.rows is not None and embed.cut is not None and embed.cut_weights is not None:
            assert embed.cut.grad is not None and embed.cut_weights.grad is not None
            self.tables["rows"].step(embed.rows, embed.cut.grad, self.scale)
            self.tables["weights"].step(embed.rows, embed.cut_weights.grad, self.scale)
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts."""
        out: dict[str, Tensor] = {}
        for name, adam in self.tables.items():
            out[f"{name}.first"], out[f"{name}.second"] = adam.first, adam.second
            out[f"{name}.steps"] = torch.tensor(adam.steps)
        for name, value in zip(self.names, self.dense, strict=True):
            for key, moment in self.adam.state.get(value, {}).items():
                out[f"{name}.{key}"] = torch.as_tensor(moment)
        return out

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for name, adam in self.tables.items():
            adam.first, adam.second = state[f"{name}.first"], state[f"{name}.second"]
            adam.steps = int(state[f"{name}.steps"])
        for name, value in zip(self.names, self.dense, strict=True):
            moments = {
                key: state[f"{name}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{key}" in state
            }
            if moments:
                self.adam.state[value] = moments


class _Checkpoint:
    """The state after the last pass, and the encoder after the best one, as files that are replaced whole."""

    def __init__(self, work: Path, encoder: TextEncoder, optimiser: _Optimiser) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.last_file = work / "alignment-last.safetensors"
        self.best_file = work / "alignment-best.safetensors"
        self.encoder = encoder
        self.optimiser = optimiser

    def resume(self) -> list[dict[str, Any]]:
        """Restore the last pass; returns the curve so far, [] where nothing was begun."""
        try:
            state = load_file(self.last_file)
        except FileNotFoundError:
            return []
        curve: list[dict[str, Any]] = json.loads(bytes(state.pop("curve").numpy()).decode())
        self.encoder.load_state_dict(
            {
                name.removeprefix("encoder."): value
                for name, value in state.items()
                if name.startswith("encoder.")
            }
        )
        if len(curve) > 1:
            self.optimiser.restore(
                {
                    name.removeprefix("optimiser."): value
                    for name, value in state.items()
                    if name.startswith("optimiser.")
                }
            )
            for name, adam in self.optimiser.tables.items():
                assert self.encoder.ngram is not None
                adam.table = getattr(self.encoder.ngram, name).data
        return curve

    def write(self, curve: list[dict[str, Any]], best: bool) -> None:
        """Write the state after a pass."""
        own = dict(self.encoder.state_dict())
        if best:
            _replace(self.best_file, own)
        state = {f"encoder.{name}": value for name, value in own.items()}
        state |= {f"optimiser.{name}": value for name, value in self.optimiser.state().items()}
        state["curve"] = torch.frombuffer(bytearray(json.dumps(curve).encode()), dtype=torch.uint8)
        _replace(self.last_file, state)

    def best(self) -> None:
        """Give the encoder the parameters of the best pass."""
        self.encoder.load_state_dict(load_file(self.best_file))


def _replace(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial)
    partial.replace(path)
