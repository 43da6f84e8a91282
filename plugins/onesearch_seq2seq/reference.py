"""The constrained beam search, written to be read: what the graph must equal, and brute force over all
leaves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onesearch.contracts.generator import SearchResult
from onesearch.index import LiveTree

Logits = Callable[[int, np.ndarray], list[np.ndarray]]
"""``logits(depth, nodes)``: for nodes i64[N] of a depth (0: the root) the logits f32 of all their legal
children, one array a node, dead children included."""


def conditional_log_probs(
    live: LiveTree, depth: int, node: int, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The legal children of a node, i64[n], and their log-probabilities f64[n] among the live ones (dead:
    -inf)."""
    first = live.tree.first_child[depth]
    children = np.arange(first[node], first[node + 1])
    alive = np.isfinite(live.log_mass[depth][children])
    scores = np.where(alive, logits.astype(np.float64), -np.inf)
    if not alive.any():
        return children, scores
    return children, scores - np.logaddexp.reduce(scores)


def reference_search(live: LiveTree, logits: Logits, beams: int) -> SearchResult:
    """Search for one query: the ``beams`` best prefixes survive each level; of equal ones the lower node
    number."""
    nodes, scores = np.zeros(1, dtype=np.int64), np.zeros(1)
    cut: list[float] = []
    branches = []
    for depth in range(live.tree.depth):
        found: list[tuple[float, int]] = []
        for node, score, own in zip(nodes.tolist(), scores.tolist(), logits(depth, nodes), strict=True):
            children, log_probs = conditional_log_probs(live, depth, node, own)
            found += [
                (score + p, child) for p, child in zip(log_probs.tolist(), children.tolist(), strict=True)
            ]
        found = sorted(
            (entry for entry in found if entry[0] > -np.inf), key=lambda entry: (-entry[0], entry[1])
        )
        branches.append(len(found))
        cut += [score for score, _ in found[beams:]]
        nodes = np.array([node for _, node in found[:beams]], dtype=np.int64)
        scores = np.array([score for score, _ in found[:beams]])
    leaves, log_probs = np.full((1, beams), -1, np.int32), np.full((1, beams), -np.inf, np.float32)
    leaves[0, : len(nodes)], log_probs[0, : len(nodes)] = nodes, scores
    return SearchResult(
        leaves,
        log_probs,
        np.array([max(cut, default=-np.inf)], np.float32),
        np.array([np.logaddexp.reduce(cut) if cut else -np.inf], np.float32),
        np.array([branches], np.int32),
    )


def leaf_log_probs(live: LiveTree, logits: Logits) -> np.ndarray:
    """Log-probability f64[leaves] of every leaf, by brute force; dead ones -inf."""
    scores = np.zeros(1)
    for depth in range(live.tree.depth):
        nodes = np.arange(len(scores))
        below = [
            scores[node] + conditional_log_probs(live, depth, node, own)[1]
            for node, own in zip(nodes.tolist(), logits(depth, nodes), strict=True)
        ]
        scores = np.concatenate(below) if below else np.zeros(0)
    return scores
