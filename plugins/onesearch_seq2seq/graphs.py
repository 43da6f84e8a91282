"""A small builder of ONNX graphs: an operator is a method, a value is a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
_CONTRIB = "com.microsoft"
Precision = Literal["int8", "fp32", "fp16", "bf16"]
_HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
Shape = Sequence[int | str]


class Graph:
    """Collects nodes. ``graph.Add(a, b)`` adds an operator and returns the name of its output.

    Arguments may be names, or numpy arrays and numbers, which become constants (floats f32, integers i64).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0
        self._sizes: dict[str, dict[int, int]] = {}

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if not kind[0].isupper():
            raise AttributeError(kind)

        def add(*arguments: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            return self._add(kind, arguments, outputs, domain, attributes)

        return add

    def _add(
        self, kind: str, arguments: Sequence[Any], outputs: int, domain: str, attributes: dict[str, Any]
    ) -> Any:
        names = [self._name(kind) for _ in range(outputs)]
        inputs = ["" if value is None else self.value(value) for value in arguments]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def value(self, value: str | float | np.ndarray | Sequence[int]) -> str:
        """The name of a value; a constant is stored once."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._name("constant")
            self.constants[self._known[key]] = numpy_helper.from_array(
                np.array(array, order="C"), self._known[key]
            )
        return self._known[key]

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, _kind(dtype), list(shape)))
        self._sizes[name] = {axis: length for axis, length in enumerate(shape) if isinstance(length, int)}
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Shape) -> None:
        """Give a value out under a name."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, _kind(dtype), list(shape)))

    def size(self, value: str, axis: int) -> str:
        """Length of an axis, i64[1]: a constant for an input that was declared with it."""
        length = self._sizes.get(value, {}).get(axis)
        return self.Shape(value, start=axis, end=axis + 1) if length is None else self.value([length])

    def shape(self, *lengths: str | int) -> str:
        """Lengths (names of i64[1], or numbers) as one i64 vector."""
        return self.Concat(*([n] if isinstance(n, int) else n for n in lengths), axis=0)

    def reshape(self, value: str, *lengths: str | int) -> str:
        """Reshape to lengths (names of i64[1], or numbers; -1 is what is left)."""
        if all(isinstance(n, int) for n in lengths):
            return self.Reshape(value, np.array(lengths, dtype=np.int64))
        return self.Reshape(value, self.shape(*lengths))

    def filled(self, constant: np.ndarray, *lengths: str | int) -> str:
        """A tensor of one repeated value; ``constant`` is an array of one element, which fixes the type."""
        return self.ConstantOfShape(self.shape(*lengths), value=numpy_helper.from_array(constant))

    def range(self, length: str) -> str:
        """i64[length]: 0, 1, 2 …"""
        return self.Range(np.int64(0), self.Squeeze(length), np.int64(1))

    def model(self) -> onnx.ModelProto:
        """The graph as ONNX."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, list(self.constants.values())
        )
        domains = {node.domain for node in self.nodes}
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid(_CONTRIB, 1)] if _CONTRIB in domains else []
        return helper.make_model(graph, opset_imports=opsets, producer_name="onesearch", ir_version=10)

    def save(self, path: Path) -> None:
        """Check and write the graph, atomically."""
        model = self.model()
        onnx.checker.check_model(model)
        partial = path.with_suffix(".partial")
        onnx.save(model, str(partial))
        partial.replace(path)


def _kind(dtype: type[np.generic]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def linear(
    graph: Graph,
    value: str,
    weight: np.ndarray,
    bias: np.ndarray | None,
    precision: Precision,
    positive: bool = False,
) -> str:
    """value [..., n] · weight f32[m, n]ᵀ + bias f32[m]; int8 quantises the weight by output channel and the
    value by row (``positive``: it has no numbers below 0, so that all 8 bits are theirs), fp16 and bf16 round
    both.

    A scale a row, not one a tensor as in ONNX Runtime's DynamicQuantizeMatMul: a query's results must not
    depend on what stands beside it in a batch.
    """
    columns = np.ascontiguousarray(weight.T)
    if precision != "int8":
        outcome = product(graph, value, columns, precision)
    else:
        quantised, scale = quantised_columns(columns)
        zero, step = (0, 1 / 255) if positive else (128, 1 / 127)
        highest = graph.ReduceMax(value if positive else graph.Abs(value), [-1], keepdims=1)
        highest = graph.Max(highest, np.float32(1e-30))
        levels = graph.QuantizeLinear(graph.Div(value, highest), np.float32(step), np.uint8(zero))
        outcome = graph.MatMulIntegerToFloat(
            levels, quantised, np.float32(step), scale, np.uint8(zero), domain=_CONTRIB
        )
        outcome = graph.Mul(outcome, highest)
    return outcome if bias is None else graph.Add(outcome, bias)


def product(graph: Graph, left: str, right: str | np.ndarray, precision: Precision) -> str:
    """left [..., n] · right [n, m] or [..., n, m] in float32; ``fp16`` and ``bf16`` round both factors first,
    which is where GPUs have their speed. (int8 is a matter of weights, see :func:`linear`.)"""
    half = _HALVES.get(precision)
    if half is None:
        return str(graph.MatMul(left, right))
    rounded: str | np.ndarray
    if precision == "fp16" and isinstance(right, np.ndarray):
        rounded = right.astype(np.float16)
    else:
        rounded = graph.Cast(right, to=half)
    return str(graph.Cast(graph.MatMul(graph.Cast(left, to=half), rounded), to=TensorProto.FLOAT))


def quantised_columns(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns f32[n, m] as i8[n, m] and a scale f32[m] each, such that no int8 product saturates.

    Without VNNI, x86 processors add the products of two neighbouring rows in 16 bits: 255 · (a + b) must
    stay below 2¹⁵, so a + b ≤ 128 for two weights of the same sign.
    """
    even = np.pad(columns, ((0, len(columns) % 2), (0, 0)))
    pairs = even.reshape(-1, 2, columns.shape[1])
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1))
    scale = np.maximum(sums.max(axis=0), 1e-12).astype(np.float32) / 127
    return np.rint(columns / scale).astype(np.int8), scale


FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
INT32 = TensorProto.INT32
