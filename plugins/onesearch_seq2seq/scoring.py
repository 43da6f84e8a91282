"""Log-probabilities over the legal live children of each prefix: the loss, in torch, and the parts it is made
of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from onesearch.index import LiveTree
from torch import Tensor

from onesearch_seq2seq.model import Seq2Seq


@dataclass(frozen=True)
class TreeTables:
    """A live tree's arrays as tensors.

    Attributes:
        first_child: i64[n_ℓ + 1] for ℓ = 1 … L-1 (the root's children are all nodes of depth 1).
        code, log_mass, vectors: of the nodes of depth 1 … L.
        path: i64[leaves, L], the ancestors of every leaf at depth 1 … L.
        codes: i64[leaves, L], the SIDs.
        needed: i64[leaves], how many decoder states a path needs: those up to its last choice.
    """

    first_child: tuple[Tensor, ...]
    code: tuple[Tensor, ...]
    log_mass: tuple[Tensor, ...]
    vectors: tuple[Tensor, ...]
    path: Tensor
    codes: Tensor
    needed: Tensor

    @classmethod
    def of(cls, live: LiveTree, device: torch.device) -> TreeTables:
        """Copy a live tree to a device."""
        tree = live.tree
        path = np.stack([tree.leaf_ancestors(level) for level in range(tree.depth)], axis=1).astype(np.int64)
        needed = np.ones(len(path), np.int64)
        for level in range(1, tree.depth):
            needed[np.diff(tree.first_child[level])[path[:, level - 1]] > 1] = level + 1

        def put(array: np.ndarray, kind: torch.dtype) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device, kind)

        return cls(
            tuple(put(first, torch.int64) for first in tree.first_child[1:]),
            tuple(put(code.astype(np.int64), torch.int64) for code in tree.code),
            tuple(put(mass, torch.float32) for mass in live.log_mass),
            tuple(put(live.node_vectors(level), torch.float16) for level in range(tree.depth)),
            put(path, torch.int64),
            put(tree.leaf_sids(), torch.int64),
            put(needed, torch.int64),
        )


@dataclass(frozen=True)
class Branching:
    """The choices that B paths make at one level, where there is a choice.

    Attributes:
        rows: i64[A], the paths with more than one legal child here.
        segment: i64[M], which of the A choices each legal child belongs to; None at level 1, where each row
            has all roots as children and the parts are dense [A, n_1].
        target: i64[A], where the path's own child stands among the M (or the n_1).
        parts: head, steer, prior, mass: f32[M] or [A, n_1]; mass is -inf on dead children. The unweighted
            parts of the logit.
    """

    rows: Tensor
    segment: Tensor | None
    target: Tensor
    parts: tuple[Tensor, Tensor, Tensor, Tensor]

    def log_probs(self, weights: Tensor) -> Tensor:
        """Log-probability f32[A] of the path's own child, for weights f32[4] of head, steer, prior and
        mass."""
        head, steer, prior, mass = self.parts
        dead = torch.isneginf(mass)
        logits = (
            weights[0] * head
            + weights[1] * steer
            + weights[2] * prior
            + weights[3] * mass.masked_fill(dead, 0)
        )
        logits = logits.masked_fill(dead, -torch.inf)
        if self.segment is None:
            chosen, lost = (
                logits.gather(1, self.target[:, None])[:, 0],
                dead.gather(1, self.target[:, None])[:, 0],
            )
            return (chosen - logits.logsumexp(dim=1)).masked_fill(lost, -torch.inf)
        total = segment_logsumexp(logits, self.segment, len(self.rows))
        return (logits[self.target] - total).masked_fill(dead[self.target], -torch.inf)


def segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """log Σ exp over the values of each segment; f32[M], i64[M] → f32[count]."""
    highest = values.new_full((count,), -torch.inf)
    highest = highest.scatter_reduce(0, segment, values.detach(), "amax", include_self=False)
    highest = highest.nan_to_num(neginf=0.0)  # a segment of nothing but -inf sums up to -inf, not to NaN
    sums = torch.zeros_like(highest).index_add(0, segment, (values - highest[segment]).exp())
    return highest + sums.log()


def branchings(
    model: Seq2Seq, tables: TreeTables, states: Tensor, query: Tensor, leaf: Tensor
) -> list[Branching]:
    """The choices of B paths at every level, with the parts of their children's logits.

    Args:
        model: the network.
        tables: the tree.
        states: [B, L, d], decoder states of the teacher-forced paths.
        query: f32[B, D], e_q° (zeros: no prior).
        leaf: i64[B], where the paths end.
    """
    path = tables.path[leaf]
    found = [_first_choice(model, tables, states[:, 0], query, path[:, 0])]
    for level in range(1, len(tables.code)):
        found.append(_deeper_choice(model, tables, level, states[:, level], query, path))
    return found


def _first_choice(
    model: Seq2Seq, tables: TreeTables, state: Tensor, query: Tensor, target: Tensor
) -> Branching:
    vectors = tables.vectors[0].float()
    head = model.heads[0](state)[:, tables.code[0]].float()
    steer = (
        (model.steer[0](state) @ (vectors @ model.keys).T).float()
        if len(model.steer)
        else torch.zeros_like(head)
    )
    with torch.no_grad():
        prior = (query @ vectors.T).float()
    mass = tables.log_mass[0].expand(len(state), -1)
    return Branching(torch.arange(len(state), device=state.device), None, target, (head, steer, prior, mass))


def _deeper_choice(
    model: Seq2Seq, tables: TreeTables, level: int, state: Tensor, query: Tensor, path: Tensor
) -> Branching:
    first = tables.first_child[level - 1]
    parent = path[:, level - 1]
    start, count = first[parent], first[parent + 1] - first[parent]
    rows = torch.nonzero(count > 1)[:, 0]  # an only child costs nothing
    start, count = start[rows], count[rows]
    segment = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
    before = count.cumsum(0) - count
    child = torch.arange(len(segment), device=rows.device) + (start - before)[segment]
    vectors = tables.vectors[level][child].float()
    state = state[rows]
    dense = model.heads[level](state).float()
    head = dense.flatten().index_select(0, segment * dense.shape[1] + tables.code[level][child])
    if len(model.steer):
        steer = (
            ((vectors @ model.keys) * model.steer[level](state).index_select(0, segment)).float().sum(dim=1)
        )
    else:
        steer = torch.zeros_like(head)
    with torch.no_grad():
        prior = (vectors * query[rows][segment]).sum(dim=1)
    mass = tables.log_mass[level][child]
    return Branching(rows, segment, before + path[rows, level] - start, (head, steer, prior, mass))


def training_weights(model: Seq2Seq) -> Tensor:
    """Weights f32[4, L] of head, steer, prior and mass while training: the network's parts count fully."""
    ones = torch.ones_like(model.mass)
    return torch.stack([ones, ones, model.log_prior.exp(), model.mass])


def path_log_probs(choices: list[Branching], weights: Tensor, paths: int) -> Tensor:
    """Log-probabilities f32[B, L] of the paths' steps, for weights f32[4, L]; 0 where there was no choice."""
    columns = []
    for level, choice in enumerate(choices):
        chosen = choice.log_probs(weights[:, level])
        columns.append(chosen.new_zeros(paths).index_copy(0, choice.rows, chosen))
    return torch.stack(columns, dim=1)
