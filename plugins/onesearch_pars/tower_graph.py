"""The towers as an ONNX graph, written from their arrays: a request's candidates in one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = "towers.onnx"
_CLIP = 5.0


def write_graph(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write the graph of what :meth:`onesearch_pars.towers.Towers.arrays` gave.

    Inputs: ``views`` f32[B, V, D], ``vectors`` f32[B, K, D], ``scalars`` f32[B, K, S]. Output: ``rates``
    f32[B, K, 3], probabilities at the first place.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    views, dim, rank = arrays["view"].shape
    towers, width = arrays["out"].shape
    shapes = {"ask": [0, views, 1, -1], "spread": [0, 1, views, rank], "own": [0, -1, 1, rank],
              "flat": [0, -1, views * rank], "split": [0, -1, towers, width]}  # fmt: skip
    stored = {
        "view": arrays["view"],
        "candidate": arrays["candidate"],
        "mean": arrays["mean"],
        "scale": arrays["scale"],
        "low": np.float32(-_CLIP),
        "high": np.float32(_CLIP),
        "first": arrays["first.weight"].T,
        "first_bias": arrays["first.bias"],
        "second": arrays["second.weight"].T,
        "second_bias": arrays["second.bias"],
        "tower": arrays["tower.weight"].T,
        "tower_bias": arrays["tower.bias"],
        "out": arrays["out"],
        "bias": arrays["bias"],
        "last": np.array([-1], np.int64),
        **{f"shape_{name}": np.array(shape, np.int64) for name, shape in shapes.items()},
    }
    steps: list[tuple[str, list[str], str, dict[str, int]]] = [
        ("MatMul", ["vectors", "candidate"], "y", {}),
        ("Reshape", ["views", "shape_ask"], "asking", {}),
        ("MatMul", ["asking", "view"], "asked", {}),
        ("Reshape", ["asked", "shape_spread"], "u", {}),
        ("Reshape", ["y", "shape_own"], "y_own", {}),
        ("Mul", ["u", "y_own"], "products", {}),
        ("Reshape", ["products", "shape_flat"], "flat", {}),
        ("Sub", ["scalars", "mean"], "centred", {}),
        ("Mul", ["centred", "scale"], "scaled", {}),
        ("Clip", ["scaled", "low", "high"], "plain", {}),
        ("Concat", ["y", "flat", "plain"], "x", {"axis": 2}),
        ("MatMul", ["x", "first"], "x1", {}),
        ("Add", ["x1", "first_bias"], "x2", {}),
        ("Relu", ["x2"], "x3", {}),
        ("MatMul", ["x3", "second"], "x4", {}),
        ("Add", ["x4", "second_bias"], "x5", {}),
        ("Relu", ["x5"], "z", {}),
        ("MatMul", ["z", "tower"], "t1", {}),
        ("Add", ["t1", "tower_bias"], "t2", {}),
        ("Relu", ["t2"], "t3", {}),
        ("Reshape", ["t3", "shape_split"], "t4", {}),
        ("Mul", ["t4", "out"], "t5", {}),
        ("ReduceSum", ["t5", "last"], "t6", {"keepdims": 0}),
        ("Add", ["t6", "bias"], "logits", {}),
        ("Sigmoid", ["logits"], "rates", {}),
    ]
    nodes = []
    for kind, names, output, options in steps:
        node = helper.make_node(kind, names, [output])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in options.items())
        nodes.append(node)
    scalars = len(arrays["mean"])
    inputs = [("views", ["B", views, dim]), ("vectors", ["B", "K", dim]), ("scalars", ["B", "K", scalars])]
    graph = helper.make_graph(
        nodes,
        "towers",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("rates", TensorProto.FLOAT, ["B", "K", towers])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(model.SerializeToString())
    draft.replace(path)
