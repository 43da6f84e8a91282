"""Log-probabilities of many SIDs of one prompt, as they are served; and how far two networks are apart.

The prompt is encoded once, and its memory serves all SIDs of its list: cross-attention projects it once
instead of once a SID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from onesearch.training.examples import Histories, Ragged
from torch import Tensor, nn

from onesearch_seq2seq.batches import padded
from onesearch_seq2seq.model import Layer, Seq2Seq
from onesearch_seq2seq.scoring import (
    Branching,
    TreeTables,
    branchings,
    path_log_probs,
    segment_logsumexp,
)
from onesearch_seq2seq.shape import UNSEEN


@dataclass(frozen=True)
class Asked:
    """B prompts as tensors.

    Attributes:
        ids: i64[B, T]. mask: bool[B, T]. query: f32[B, D], e° (zeros: no prior).
        history: f32[B, F, D] and history_mask bool[B, F]; None where prompts know nothing of a shopper.
    """

    ids: Tensor
    mask: Tensor
    query: Tensor
    history: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(
        cls,
        prompts: Ragged,
        vector: np.ndarray,
        vectors: Tensor,
        histories: Histories | None,
        rows: np.ndarray,
        limit: int,
    ) -> Asked:
        """Some rows of prompts and of vector i32[N], which names rows of vectors f16[V, D] (-1: none)."""
        device = vectors.device
        ids, mask = padded(prompts, rows, limit)
        at = torch.from_numpy(vector[rows].astype(np.int64)).to(device)
        if len(vectors):
            query = vectors[at.clamp(min=0)].float() * (at >= 0)[:, None]
        else:
            query = torch.zeros(len(rows), vectors.shape[1], device=device)
        history = None
        if histories is not None:
            own = histories.row[rows]
            history = (
                torch.from_numpy(histories.values[own]).to(device).float(),
                torch.from_numpy(histories.mask[own]).to(device),
            )
        return cls(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), query, history)


class Policy(nn.Module):
    """A network with what it was trained along with: p(SID | prompt) as the server computes it."""

    def __init__(self, model: Seq2Seq, user_module: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.user_module = model, user_module

    def encode(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Memory [B, P + T, d] and its bias."""
        prefix = None
        if self.user_module is not None and asked.history is not None:
            prefix = self.user_module(*asked.history)
        memory, bias = self.model.encode(asked.ids, asked.mask, prefix)
        return memory, bias

    def choices(
        self, tables: TreeTables, asked: Asked, memory: Tensor, bias: Tensor, leaves: Tensor
    ) -> list[Branching]:
        """The choices at each level of the paths to leaves i64[B, P], rows in order B, P."""
        states = decode_lists(self.model, tables.codes[leaves], memory, bias)
        query = asked.query.repeat_interleave(leaves.shape[1], dim=0)
        return branchings(self.model, tables, states.flatten(0, 1), query, leaves.flatten())

    def log_probs(self, tables: TreeTables, asked: Asked, leaves: Tensor) -> Tensor:
        """log π f32[B, P] of leaves i64[B, P]; 0 where a leaf is negative (padding)."""
        real = leaves >= 0
        memory, bias = self.encode(asked)
        found = self.choices(tables, asked, memory, bias, leaves.clamp(min=0))
        steps = path_log_probs(found, self.weights, leaves.numel())
        return steps.sum(dim=1).view(leaves.shape).masked_fill(~real, 0.0)

    @property
    def weights(self) -> Tensor:
        """f32[4, L]: of head, steering, prior and mass, as served. They are not trained here."""
        return self.model.served[:4]


def decode_lists(model: Seq2Seq, codes: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
    """Decoder states [B, P, L, d] of P SIDs i64[B, P, L] for each of B memories: :meth:`Seq2Seq.decode`."""
    rows, paths, length = codes.shape
    decoder = model.decoder
    embedded = model.tokens(model.sid_inputs(codes.flatten(0, 1)))
    x = decoder.dropout(decoder.input_norm(embedded + decoder.positions.weight[:length]))
    later = torch.full((length, length), UNSEEN, device=x.device).triu(1)
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        x = layer._residual(x, layer.attention_norm, _within(layer, later))
        x = x.view(rows, paths * length, -1)
        x = layer._residual(x, layer.cross_norm, _across(layer, memory, bias))
        x = layer._residual(x, layer.feed_norm, _forward(layer))
        x = x.view(rows * paths, length, -1)
    return decoder.output_norm(x).view(rows, paths, length, -1)


def _within(layer: Layer, later: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda y: layer.attention(y, y, later)


def _across(layer: Layer, memory: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda y: layer.cross(y, memory, bias)


def _forward(layer: Layer) -> Callable[[Tensor], Tensor]:
    return lambda y: layer.down(layer.activation(layer.up(y)))


@torch.no_grad()
def divergence(
    policy: Policy, reference: Policy, tables: TreeTables, asked: Asked, random: torch.Generator
) -> Tensor:
    """An unbiased estimate of KL(π ‖ π_ref) over live SIDs for each prompt, f32[B], in nats.

    A path is drawn from π; at each of its prefixes the divergence over the legal children is exact::

        KL = Σ_ℓ E_{prefix ~ π} [Σ_c π(c|prefix)·log(π(c|prefix) / π_ref(c|prefix))]
    """
    memory, bias = policy.encode(asked)
    leaf = torch.zeros(len(asked.ids), dtype=torch.int64, device=memory.device)
    for level in range(len(tables.code)):
        choice = policy.choices(tables, asked, memory, bias, leaf[:, None])[level]
        chosen = _drawn(_log_probs(choice, policy.weights[:, level]), choice, random)
        first = tables.path[leaf, level]  # of the rows without a choice, the only child
        start = (
            torch.zeros_like(first)
            if level == 0
            else tables.first_child[level - 1][tables.path[leaf, level - 1]]
        )
        node = first.clone()
        node[choice.rows] = start[choice.rows] + chosen
        leaf = torch.searchsorted(tables.path[:, level].contiguous(), node)
    own = policy.choices(tables, asked, memory, bias, leaf[:, None])
    other = reference.choices(tables, asked, *reference.encode(asked), leaf[:, None])
    total = torch.zeros(len(leaf), device=memory.device)
    for level, (one, two) in enumerate(zip(own, other, strict=True)):
        mine = _log_probs(one, policy.weights[:, level])
        theirs = _log_probs(two, reference.weights[:, level])
        terms = torch.where(torch.isneginf(mine), 0.0, mine.exp() * (mine - theirs.clamp(min=-1e9)))
        if one.segment is None:
            total[one.rows] += terms.sum(dim=1)
        else:
            total.index_add_(0, one.rows[one.segment], terms)
    return total


def _log_probs(choice: Branching, weights: Tensor) -> Tensor:
    """Log-probabilities of all children, in the shape of the choice's parts."""
    dead = torch.isneginf(choice.parts[3])
    logits = sum(
        weight * part.masked_fill(dead, 0) for weight, part in zip(weights, choice.parts, strict=True)
    )
    assert isinstance(logits, Tensor)
    logits = logits.masked_fill(dead, -torch.inf)
    if choice.segment is None:
        return logits.log_softmax(dim=1)
    return logits - segment_logsumexp(logits, choice.segment, len(choice.rows))[choice.segment]


def _drawn(log_probs: Tensor, choice: Branching, random: torch.Generator) -> Tensor:
    """Which child each choice takes, i64[A], counted from its first one: Gumbel's trick."""
    noise = torch.rand(log_probs.shape, generator=random).to(log_probs.device)
    scores = log_probs - (-noise.clamp(min=1e-20).log()).log()
    if choice.segment is None:
        return scores.argmax(dim=1)
    best = torch.full((len(choice.rows),), -torch.inf, device=scores.device)
    best = best.scatter_reduce(0, choice.segment, scores, "amax")
    at = torch.arange(len(scores), device=scores.device)
    winner = torch.full_like(choice.rows, len(scores)).scatter_reduce(
        0, choice.segment, torch.where(scores == best[choice.segment], at, len(scores)), "amin"
    )
    return winner - torch.searchsorted(choice.segment, torch.arange(len(choice.rows), device=scores.device))
