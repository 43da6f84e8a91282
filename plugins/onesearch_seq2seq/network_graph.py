"""The network as ONNX operators: the encoder once a query, the decoder one step for all beams at once.

Notation: B queries, T tokens, P prefix vectors, S = P + T, A decoder rows a query, d width, H heads, t the
step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onesearch_seq2seq.config import Dimensions
from onesearch_seq2seq.graphs import Graph, Precision, linear, product
from onesearch_seq2seq.shape import UNSEEN


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of a query: per layer keys f32[B, H, d/H, S] and values f32[B, H, S, d/H]; the
    mask's bias f32[B, 1, 1, S]."""

    keys: list[str]
    values: list[str]
    bias: str


@dataclass(frozen=True)
class Cache:
    """Self-attention's past of A rows a query: per layer keys and values f32[B, A, t, d]."""

    keys: list[str]
    values: list[str]


class NetworkGraph:
    """Writes a network's parts into a graph, from its saved weights by their names."""

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        dims: Dimensions,
        post_norm: bool,
        precision: Precision,
    ) -> None:
        self.graph, self.weights, self.dims = graph, weights, dims
        self.post_norm, self.precision = post_norm, precision
        head = np.repeat(np.eye(dims.heads, dtype=np.float32), dims.width // dims.heads, axis=0)
        self._sum_heads, self._spread_heads = head, np.ascontiguousarray(head.T)

    def encode(self, ids: str, seen: str, prefix: str | None) -> Memory:
        """Prompt ids i32[B, T], prefix f32[B, P, d] before them (None: P = 0), and which of both are seen,
        bool[B, P + T] → memory."""
        g = self.graph
        positions = g.Slice(self.weights["encoder.positions.weight"], [0], g.size(ids, 1), [0])
        x = g.Add(g.Gather(self.weights["tokens.weight"], ids), positions)
        x = self.norm(x, "encoder.input_norm")
        if prefix is not None:
            x = g.Concat(prefix, x, axis=1)
        bias = g.Where(g.Unsqueeze(seen, [1, 2]), np.float32(0), np.float32(UNSEEN))
        for number in range(self.dims.layers):
            x = self._encoder_layer(x, f"encoder.layers.{number}", bias)
        x = x if self.post_norm else self.norm(x, "encoder.output_norm")
        names = [f"decoder.layers.{number}.cross.kv" for number in range(self.dims.layers)]
        pairs = self._linear(x, *names)
        parts = g.Split(pairs, axis=2, num_outputs=2 * self.dims.layers, outputs=2 * self.dims.layers)
        keys = [g.Transpose(self._split(part), perm=[0, 2, 3, 1]) for part in parts[::2]]
        values = [g.Transpose(self._split(part), perm=[0, 2, 1, 3]) for part in parts[1::2]]
        return Memory(keys, values, bias)

    def decode(self, ids: str, step: int, memory: Memory, past: Cache | None) -> tuple[str, Cache]:
        """Token ids i32[B, A] of step t and the past of their rows → states f32[B, A, d] and the past with
        them."""
        g = self.graph
        x = g.Add(
            g.Gather(self.weights["tokens.weight"], ids), self.weights["decoder.positions.weight"][step]
        )
        x = self.norm(x, "decoder.input_norm")
        grown = Cache([], [])
        for number in range(self.dims.layers):
            x = self._decoder_layer(x, number, memory, past, grown)
        return x if self.post_norm else self.norm(x, "decoder.output_norm"), grown

    def _encoder_layer(self, x: str, layer: str, bias: str) -> str:
        x = self._residual(
            x, f"{layer}.attention_norm", lambda y: self._attend(y, f"{layer}.attention", bias)
        )
        return self._feed_forward(x, layer)

    def _decoder_layer(self, x: str, number: int, memory: Memory, past: Cache | None, grown: Cache) -> str:
        layer = f"decoder.layers.{number}"
        own = None if past is None else (past.keys[number], past.values[number])
        x = self._residual(x, f"{layer}.attention_norm", lambda y: self._attend_past(y, layer, own, grown))
        x = self._residual(x, f"{layer}.cross_norm", lambda y: self._cross(y, layer, number, memory))
        return self._feed_forward(x, layer)

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation over the last axis."""
        scale, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.graph.LayerNormalization(x, scale, bias, axis=-1, epsilon=1e-5)

    def _linear(self, x: str, *names: str, scale: float = 1.0, positive: bool = False) -> str:
        """One product for the stacked weights of several linear maps; ``scale`` multiplies the first."""
        weights = [self.weights[f"{name}.weight"] for name in names]
        biases = [self.weights[f"{name}.bias"] for name in names]
        weights[0], biases[0] = weights[0] * np.float32(scale), biases[0] * np.float32(scale)
        return linear(
            self.graph, x, np.concatenate(weights), np.concatenate(biases), self.precision, positive
        )

    @property
    def _scale(self) -> float:
        return float((self.dims.width // self.dims.heads) ** -0.5)

    def _residual(self, x: str, norm: str, sublayer: Callable[[str], str]) -> str:
        if self.post_norm:
            return self.norm(self.graph.Add(x, sublayer(x)), norm)
        return self.graph.Add(x, sublayer(self.norm(x, norm)))

    def _feed_forward(self, x: str, layer: str) -> str:
        def feed(y: str) -> str:
            inner, relu = self._linear(y, f"{layer}.up"), self.dims.activation == "relu"
            active = self.graph.Relu(inner) if relu else self.graph.Gelu(inner)
            return self._linear(active, f"{layer}.down", positive=relu)

        return self._residual(x, f"{layer}.feed_norm", feed)

    def _split(self, x: str) -> str:
        return self.graph.Reshape(x, np.array([0, 0, self.dims.heads, -1], dtype=np.int64))

    def _mix(self, query: str, keys: str, values: str, bias: str) -> str:
        """Attention of query f32[B, H, A, d/H] over keys f32[B, H, d/H, S] and values → f32[B, A, d]."""
        g = self.graph
        shares = g.Softmax(g.Add(product(g, query, keys, self.precision), bias), axis=-1)
        mixed = g.Transpose(product(g, shares, values, self.precision), perm=[0, 2, 1, 3])
        return g.Reshape(mixed, np.array([0, 0, -1], dtype=np.int64))

    def _attend(self, y: str, name: str, bias: str) -> str:
        g = self.graph
        parts = g.Split(
            self._linear(y, f"{name}.q", f"{name}.kv", scale=self._scale), axis=2, num_outputs=3, outputs=3
        )
        query, key, value = (self._split(part) for part in parts)
        keys, values = g.Transpose(key, perm=[0, 2, 3, 1]), g.Transpose(value, perm=[0, 2, 1, 3])
        mixed = self._mix(g.Transpose(query, perm=[0, 2, 1, 3]), keys, values, bias)
        return self._linear(mixed, f"{name}.out")

    def _cross(self, y: str, layer: str, number: int, memory: Memory) -> str:
        query = self._split(self._linear(y, f"{layer}.cross.q", scale=self._scale))
        query = self.graph.Transpose(query, perm=[0, 2, 1, 3])
        mixed = self._mix(query, memory.keys[number], memory.values[number], memory.bias)
        return self._linear(mixed, f"{layer}.cross.out")

    def _attend_past(self, y: str, layer: str, past: tuple[str, str] | None, grown: Cache) -> str:
        """Every row attends to its own few past positions: products by element, summed by head with a 0-1
        matrix.

        A row has at most L positions, too few for a matrix product a row and head to pay.
        """
        g = self.graph
        name = f"{layer}.attention"
        joint = self._linear(y, f"{name}.q", f"{name}.kv", scale=self._scale)
        query, key, value = g.Split(joint, axis=2, num_outputs=3, outputs=3)
        keys, values = g.Unsqueeze(key, [2]), g.Unsqueeze(value, [2])
        mixed = value  # the first position has nothing else to attend to
        if past is not None:
            keys, values = g.Concat(past[0], keys, axis=2), g.Concat(past[1], values, axis=2)
            scores = g.MatMul(g.Mul(g.Unsqueeze(query, [2]), keys), self._sum_heads)
            shares = g.MatMul(g.Softmax(scores, axis=2), self._spread_heads)
            mixed = g.ReduceSum(g.Mul(shares, values), [2], keepdims=0)
        grown.keys.append(keys)
        grown.values.append(values)
        return self._linear(mixed, f"{name}.out")
