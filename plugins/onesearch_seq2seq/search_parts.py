"""What both graphs of the constrained search have in common: heads, and the account of what was dropped."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onesearch_seq2seq.config import Dimensions
from onesearch_seq2seq.graphs import Graph, Precision, linear
from onesearch_seq2seq.network_graph import NetworkGraph
from onesearch_seq2seq.shape import Shape

_ZERO = np.array(0, dtype=np.float32)


@dataclass
class Cuts:
    """What was dropped so far: the best scores f32[B, 1] and Σ exp(score - best) f32[B, 1]; and branches
    [B, 1] of each level."""

    best: list[str] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)


class SearchParts:
    """A graph of the search of one network, before anything is in it."""

    def __init__(
        self,
        name: str,
        weights: dict[str, np.ndarray],
        shape: Shape,
        dims: Dimensions,
        steer_rank: int,
        post_norm: bool,
        precision: Precision,
    ) -> None:
        self.g = Graph(name)
        self.weights, self.shape, self.dims, self.steer_rank = weights, shape, dims, steer_rank
        self.precision: Precision = precision
        self.network = NetworkGraph(self.g, weights, dims, post_norm, precision)
        self.depth = len(shape.levels)
        self.speaking = speaking_levels(weights["served"])
        self.cuts = Cuts()

    def head(self, states: str, level: int) -> str:
        """Logits of a level's codes: [..., d] → [..., codes]."""
        name = f"heads.{level}"
        if f"{name}.down.weight" in self.weights:
            states = self.g.MatMul(states, np.ascontiguousarray(self.weights[f"{name}.down.weight"].T))
            name += ".up"
        # One row a query at level 1: nothing to win there, and its logits decide the most.
        precision: Precision = self.precision if level else "fp32"
        return linear(self.g, states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], precision)

    def pointing(self, states: str, level: int) -> str:
        """Where the network points among the keys: [..., d] → [..., r]."""
        return str(self.g.MatMul(states, np.ascontiguousarray(self.weights[f"steer.{level}.weight"].T)))

    def finite(self, value: str) -> str:
        """0 in place of -inf, so that differences of two -inf are not NaN."""
        return str(self.g.Where(self.g.IsInf(value), _ZERO, value))

    def tell_dropped(self, batch: int | str) -> None:
        """The outputs ``dropped`` f32[B], the best score that was cut, and ``dropped_mass`` f32[B], log Σ exp
        of all that were."""
        g = self.g
        best = g.Concat(*self.cuts.best, axis=1)
        highest = g.ReduceMax(best, [1], keepdims=1)
        shifted = g.Exp(g.Sub(best, self.finite(highest)))
        mass = g.ReduceSum(g.Mul(g.Concat(*self.cuts.sums, axis=1), shifted), [1], keepdims=1)
        g.output(g.Squeeze(highest, [1]), "dropped", np.float32, [batch])
        told = g.Squeeze(g.Add(g.Log(mass), self.finite(highest)), [1])
        g.output(told, "dropped_mass", np.float32, [batch])


def speaking_levels(served: np.ndarray) -> int:
    """How many levels the network has a say in: behind them its fitted weights are all zero, and so no
    decoder runs. The first level always counts."""
    speaking = np.flatnonzero(served[:2].any(axis=0))
    return int(speaking.max(initial=0)) + 1
