"""The towers as an ONNX graph, written from their arrays: a request's candidates in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onesearch_pars.trees import FIRST, Trees

FILE = "towers.onnx"
_CLIP = 5.0
ML, TREES = "ai.onnx.ml", "TreeEnsembleRegressor"
Step = tuple[str, list[str], str, dict[str, Any]]
"""Kind of a node, its inputs, its output, its attributes."""


def write_graph(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write the graph of what :meth:`onesearch_pars.towers.Towers.arrays` gave.

    Inputs: ``views`` f32[B, V, D], ``vectors`` f32[B, K, D], ``scalars`` f32[B, K, S]. Output: ``rates``
    f32[B, K, 3], probabilities at the first place.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    views, dim, rank = arrays["view"].shape
    towers, width = arrays["out"].shape
    scalars = len(arrays["mean"])
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
        "boosted": np.array([1.0, float(arrays["slope"][0]), 1.0], np.float32),
        "width": np.array([-1, scalars], np.int64),
        "requests_and_candidates": np.array([0, 1], np.int64),
        "one": np.array([1], np.int64),
        **{f"shape_{name}": np.array(shape, np.int64) for name, shape in shapes.items()},
    }
    trees = Trees.of_arrays(arrays)
    steps: list[Step] = [
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
        ("Add", ["t6", "bias"], "alone", {}),
        *_boosting(trees, scalars),
        ("Sigmoid", ["logits"], "rates", {}),
    ]
    nodes = []
    for kind, names, output, options in steps:
        node = helper.make_node(kind, names, [output], domain=ML if kind == TREES else "")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in options.items())
        nodes.append(node)
    inputs = [("views", ["B", views, dim]), ("vectors", ["B", "K", dim]), ("scalars", ["B", "K", scalars])]
    graph = helper.make_graph(
        nodes,
        "towers",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("rates", TensorProto.FLOAT, ["B", "K", towers])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)], ir_version=8
    )
    onnx.checker.check_model(model)
    draft = path.with_suffix(".tmp")
    draft.write_bytes(model.SerializeToString())
    draft.replace(path)


def _boosting(trees: Trees, place: int) -> list[Step]:
    """From ``alone`` and ``scalars`` to ``logits``: what the trees add, as if all stood first."""
    if not len(trees.roots):
        return [("Identity", ["alone"], "logits", {})]
    return [
        ("Reshape", ["scalars", "width"], "rows", {}),
        (TREES, ["rows"], "odds", _ensemble(trees, place)),
        ("Shape", ["alone"], "shape_of_all", {}),
        ("Gather", ["shape_of_all", "requests_and_candidates"], "shape_of_two", {}),
        ("Concat", ["shape_of_two", "one"], "shape_of_odds", {"axis": 0}),
        ("Reshape", ["odds", "shape_of_odds"], "odds_each", {}),
        ("Mul", ["odds_each", "boosted"], "odds_added", {}),
        ("Add", ["alone", "odds_added"], "logits", {}),
    ]


def _ensemble(trees: Trees, place: int) -> dict[str, Any]:
    """Attributes of the trees' node. Splits by place, which is column ``place``, are decided: scalars are all
    that it is asked with."""
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    nodes: dict[str, list[Any]] = {name: [] for name in names}
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def decided(at: int) -> int:
        while trees.feature[at] == place:
            at = int((trees.left if trees.threshold[at] >= FIRST else trees.right)[at])
        return at

    for number, root in enumerate(trees.roots.tolist()):
        # Breadth first: a node's number is its place in the queue.
        queue = [decided(root)]
        for at_queue, at in enumerate(queue):
            leaf = bool(trees.feature[at] < 0)
            if not leaf:
                queue += [decided(int(trees.left[at])), decided(int(trees.right[at]))]
            else:
                for name, value in zip(leaves, (number, at_queue, 0, float(trees.value[at])), strict=True):
                    leaves[name].append(value)
            children = (0, 0) if leaf else (len(queue) - 2, len(queue) - 1)
            mode, feature = "LEAF" if leaf else "BRANCH_LEQ", max(0, int(trees.feature[at]))
            told = (number, at_queue, feature, mode, float(trees.threshold[at]), *children)
            for name, one in zip(names, told, strict=True):
                nodes[name].append(one)
    return {
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"target_{name}": values for name, values in leaves.items()},
        "n_targets": 1,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
