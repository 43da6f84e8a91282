"""Held-out likelihood of a network, with the best weights of its parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from onesearch.training.examples import Examples
from torch import nn

from onesearch_seq2seq.batches import Batch, sid_batch
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.scoring import Branching, TreeTables, branchings
from onesearch_seq2seq.weights import Choices, Fitted, fit_level

_BATCH = 250


@dataclass(frozen=True)
class Outcome:
    """Held-out likelihoods a path (nats), cross-validated over the fitted weights.

    Attributes:
        guided, alone: mean negative log-likelihood of a path with and without the network.
        levels: what was found level by level.
        examples: how many paths were looked at.
    """

    guided: float
    alone: float
    levels: tuple[Fitted, ...]
    examples: int

    def served(self) -> np.ndarray:
        """f32[6, L]: head, steer, prior, mass as served; prior and mass of the prior without the network."""
        columns = [np.concatenate([level.guided, level.alone[2:]]) for level in self.levels]
        return np.stack(columns, axis=1).astype(np.float32)

    def figures(self) -> dict[str, object]:
        """JSON-able: likelihoods and weights level by level."""
        names = ("head", "steer", "prior", "mass")
        return {
            "held_out_nll": self.guided,
            "held_out_nll_prior_only": self.alone,
            "held_out_examples": self.examples,
            "levels": [
                {
                    "nll": level.guided_loss / max(1, self.examples),
                    "nll_prior_only": level.alone_loss / max(1, self.examples),
                    "weights": dict(zip(names, level.guided.round(4).tolist(), strict=True)),
                    "weights_prior_only": dict(zip(names, level.alone.round(4).tolist(), strict=True)),
                }
                for level in self.levels
            ],
        }


def states_of(
    model: Seq2Seq,
    tables: TreeTables,
    batch: Batch,
    vectors: torch.Tensor,
    user_module: nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decoder states [B, L, d] of a SID batch's paths, its query vectors f32[B, D] and its leaves i64[B].

    ``user_module`` makes the prefix vectors of a batch that has histories; without either there are none.
    States behind a path's last choice are zeros: nothing reads them, and in a large catalogue they are half.
    """
    assert batch.leaf is not None and batch.vector is not None, "a batch of a SID task"
    device = vectors.device
    leaf = torch.from_numpy(batch.leaf).to(device)
    rows = torch.from_numpy(batch.vector.astype(np.int64)).to(device)
    if len(vectors):
        query = vectors[rows.clamp(min=0)].float() * (rows >= 0)[:, None]
    else:
        query = torch.zeros(len(rows), model.shape.vector, device=device)
    prefix = None
    if user_module is not None and batch.history is not None and batch.history_mask is not None:
        history = torch.from_numpy(batch.history).to(device)
        prefix = user_module(history, torch.from_numpy(batch.history_mask).to(device))
    memory, mask = model.encode(
        torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device), prefix
    )
    inputs = model.sid_inputs(tables.codes[leaf])
    return _decoded(model, inputs, tables.needed[leaf], memory, mask), query, leaf


def _decoded(
    model: Seq2Seq, inputs: torch.Tensor, needed: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The first ``needed`` i64[B] states of each row of inputs [B, L], then zeros: [B, L, d].

    Rows that need as many go through the decoder together.
    """
    parts, order = [], []
    for length in needed.unique().tolist():
        rows = torch.nonzero(needed == length)[:, 0]
        states = model.decode(inputs[rows, :length], memory[rows], mask[rows])
        parts.append(F.pad(states, (0, 0, 0, inputs.shape[1] - length)))
        order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


@torch.no_grad()
def evaluate(
    model: Seq2Seq,
    tables: TreeTables,
    examples: Examples,
    task: int,
    rows: np.ndarray,
    vectors: torch.Tensor,
    user_module: nn.Module | None = None,
) -> Outcome:
    """Fit the weights of the parts on held-out rows of a SID task and measure the likelihood they reach."""
    modules = [module for module in (model, user_module) if module is not None]
    training = [module.training for module in modules]
    for module in modules:
        module.eval()
    source = examples.sid_tasks[task]
    lengths = np.diff(source.prompts.offsets)
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    collected: list[list[Choices]] = [[] for _ in tables.code]
    for start in range(0, len(rows), _BATCH):
        batch = sid_batch(source, task, rows[start : start + _BATCH], model.encoder.positions.num_embeddings)
        states, query, leaf = states_of(model, tables, batch, vectors, user_module)
        assert batch.vector is not None
        group = np.where(batch.vector >= 0, batch.vector, rows[start : start + _BATCH]).astype(np.int64)
        for level, choice in enumerate(branchings(model, tables, states, query, leaf)):
            collected[level].append(_choices(choice, group, batch.weight))
    for module, before in zip(modules, training, strict=True):
        module.train(before)
    levels = tuple(fit_level(_joined(parts)) for parts in collected)
    total = max(1e-9, float(source.weight[rows].sum()))
    return Outcome(
        sum(level.guided_loss for level in levels) / total,
        sum(level.alone_loss for level in levels) / total,
        levels,
        len(rows),
    )


def _choices(choice: Branching, group: np.ndarray, weight: np.ndarray) -> Choices:
    """The live children of a batch's choices, in numpy."""
    count = len(choice.rows)
    parts = torch.stack([part.reshape(-1) for part in choice.parts], dim=1).float().cpu().numpy()
    rows, target = choice.rows.cpu().numpy(), choice.target.cpu().numpy()
    if choice.segment is None:
        width = choice.parts[0].shape[1]
        segment, target = np.repeat(np.arange(count), width), target + np.arange(count) * width
    else:
        segment = choice.segment.cpu().numpy()
    live = np.isfinite(parts[:, 3])
    target = (np.cumsum(live) - 1)[target] if count else target
    counts = np.bincount(segment[live], minlength=count)
    starts = (np.cumsum(counts) - counts).astype(np.int64)
    return Choices(parts[live], starts, target.astype(np.int64), group[rows], weight[rows].astype(np.float64))


def _joined(pieces: list[Choices]) -> Choices:
    offsets = np.cumsum([0, *(len(piece.parts) for piece in pieces)])[:-1]
    return Choices(
        np.concatenate([piece.parts for piece in pieces]),
        np.concatenate([piece.starts + offset for piece, offset in zip(pieces, offsets, strict=True)]),
        np.concatenate([piece.target + offset for piece, offset in zip(pieces, offsets, strict=True)]),
        np.concatenate([piece.group for piece in pieces]),
        np.concatenate([piece.weight for piece in pieces]),
    )
