"""The Q-Former of :mod:`onesearch_museq.qformer` as an ONNX graph, written down operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onesearch_museq.qformer import UNSEEN

OPSET, EPSILON = 20, 1e-5


def write_graph(weights: Mapping[str, np.ndarray], heads: int, path: Path) -> None:
    """Write ``museq.onnx``, whole or not at all.

    Args:
        weights: the module's state, f32. heads: of its attention.

    The graph maps history f32[B, F, D] and history_mask bool[B, F] to prefix f32[B, P, d] and weights
    f32[B, P, F + 1], as :meth:`onesearch_museq.qformer.QFormer.attend` does.
    """
    graph = _Graph(weights)
    queries, width = weights["queries"].shape
    vectors = weights["types"].shape[0] * weights["levels"].shape[1]
    embedding = (weights["types"] + weights["levels"]).reshape(1, vectors, width)

    batch = graph.Shape("history", start=0, end=1)
    known = graph.Add(graph.linear("history", "project"), embedding)
    always = graph.Expand(weights["nothing"], graph.Concat(batch, np.array([1, width]), axis=0))
    memory = graph.norm(graph.Concat(known, always, axis=1), "memory_norm")
    hidden = graph.Mul(graph.Cast(graph.Not("history_mask"), to=TensorProto.FLOAT), np.float32(UNSEEN))
    here = graph.Expand(np.zeros((1, 1), np.float32), graph.Concat(batch, np.array([1]), axis=0))
    bias = graph.Unsqueeze(graph.Concat(hidden, here, axis=1), np.array([1, 2]))

    x = graph.Expand(weights["queries"][None], graph.Concat(batch, np.array([queries, width]), axis=0))
    looked = []
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for layer in range(layers):
        read, seen = _attention(graph, f"layers.{layer}", x, memory, bias, heads, width)
        x = graph.Add(x, read)
        inner = graph.linear(graph.norm(x, f"layers.{layer}.feed_norm"), f"layers.{layer}.up")
        x = graph.Add(x, graph.linear(graph.Relu(inner), f"layers.{layer}.down"))
        looked.append(seen)
    # The norm has no weights of its own: the scale and the place of each query are its weight and bias.
    normed = graph.LayerNormalization(x, weights["scale"], axis=-1, epsilon=EPSILON)
    graph.out(graph.Add(normed, weights["place"]), "prefix")
    graph.out(graph.Mean(*looked), "weights")

    inputs = [
        helper.make_tensor_value_info(
            "history", TensorProto.FLOAT, ["B", vectors, weights["project.weight"].shape[1]]
        ),
        helper.make_tensor_value_info("history_mask", TensorProto.BOOL, ["B", vectors]),
    ]
    outputs = [
        helper.make_tensor_value_info("prefix", TensorProto.FLOAT, ["B", queries, width]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["B", queries, vectors + 1]),
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "museq", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="onesearch",
        ir_version=10,
    )
    onnx.checker.check_model(model)
    draft = path.with_suffix(".tmp")
    onnx.save(model, str(draft))
    draft.replace(path)


def _attention(
    graph: _Graph, layer: str, x: str, memory: str, bias: str, heads: int, width: int
) -> tuple[str, str]:
    """What is read, and the weights [B, P, M], the heads' mean."""
    split = np.array([0, 0, heads, width // heads])

    def part(value: str, name: str, axes: list[int]) -> str:
        projected = graph.linear(value, f"{layer}.attention.{name}")
        return str(graph.Transpose(graph.Reshape(projected, split), perm=axes))

    query = part(graph.norm(x, f"{layer}.attention_norm"), "q", [0, 2, 1, 3])
    query = graph.Mul(query, np.float32((width // heads) ** -0.5))
    scores = graph.Add(graph.MatMul(query, part(memory, "k", [0, 2, 3, 1])), bias)
    weights = graph.Softmax(scores, axis=-1)
    mixed = graph.Transpose(graph.MatMul(weights, part(memory, "v", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    read = graph.linear(graph.Reshape(mixed, np.array([0, 0, width])), f"{layer}.attention.out")
    return read, graph.ReduceMean(weights, np.array([1]), keepdims=0)


class _Graph:
    """``graph.Add(a, b)`` adds an operator and returns the name of its output; arrays become constants."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights

    def __getattr__(self, kind: str) -> Any:
        if not kind[0].isupper():
            raise AttributeError(kind)

        def add(*arguments: str | np.ndarray | np.generic, **attributes: Any) -> str:
            inputs = [value if isinstance(value, str) else self._constant(value) for value in arguments]
            name = f"{kind}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
            return name

        return add

    def linear(self, value: str, name: str) -> str:
        """``value · weightᵀ + bias`` of a linear layer."""
        product = self.MatMul(value, self._weights[f"{name}.weight"].T)
        return str(self.Add(product, self._weights[f"{name}.bias"]))

    def norm(self, value: str, name: str) -> str:
        """A layer norm over the last axis."""
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return str(self.LayerNormalization(value, weight, bias, axis=-1, epsilon=EPSILON))

    def out(self, value: str, name: str) -> None:
        """Give a value out under a name."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))

    def _constant(self, value: np.ndarray | np.generic) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name
