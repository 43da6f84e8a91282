"""A static graph run by torch, on CUDA as one CUDA graph: the yardstick for TensorRT. Imports torch.

The graph's operators are walked one by one, so that what runs is the very search that TensorRT compiles, with
torch's kernels. Shapes are constants and nothing waits for the device, which is what a CUDA graph asks for:
it is recorded once for each tree, and then costs one launch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor

from onesearch_seq2seq.graphs import Graph

_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}
_WARM_UP = 2  # runs before a recording: libraries set themselves up in the first


class _Step:
    """One operator: its inputs, what it computes, and the names of what comes out."""

    def __init__(self, node: onnx.NodeProto, hosted: Mapping[str, np.ndarray]) -> None:
        if node.op_type not in _OPERATORS:
            raise NotImplementedError(f"the torch engine does not know the operator {node.op_type}")
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        self.given = [hosted.get(name) for name in node.input]
        self.compute = _OPERATORS[node.op_type]

    def run(self, values: dict[str, Tensor]) -> None:
        """Compute from the values of the inputs by name, and add the outputs."""
        found = self.compute(self, [values[name] for name in self.inputs])
        outputs = found if isinstance(found, tuple | list) else (found,)
        values.update(zip(self.outputs, outputs, strict=True))

    def numbers(self, at: int) -> list[int]:
        """A constant input as numbers: shapes, axes and the like never come from the device."""
        given = self.given[at]
        assert given is not None
        return [int(number) for number in given.reshape(-1)]


class TorchProgram:
    """One static graph on one device."""

    def __init__(self, graph: Graph, device: torch.device, recording: bool = True) -> None:
        self.device, self.records = device, recording and device.type == "cuda"
        hosted = {name: numpy_helper.to_array(tensor) for name, tensor in graph.constants.items()}
        self.constants = {
            name: torch.from_numpy(np.array(array)).to(device) for name, array in hosted.items()
        }
        self.inputs = {
            value.name: torch.zeros(
                [dim.dim_value for dim in value.type.tensor_type.shape.dim],
                dtype=_TYPES[int(value.type.tensor_type.elem_type)],
                device=device,
            )
            for value in graph.inputs
        }
        self.outputs = [value.name for value in graph.outputs]
        self.steps: list[_Step] = []
        for node in graph.nodes:
            step = _Step(node, hosted)
            if all(name in self.constants for name in step.inputs):
                step.run(self.constants)  # weights are rounded once, not in every search
            else:
                self.steps.append(step)
        self.masses: Mapping[str, Tensor] | None = None
        # By the structure that was recorded with; it is held, so that its identity stays its own.
        self.recorded: dict[int, tuple[Mapping[str, Tensor], Any, dict[str, Tensor]]] = {}

    def run(
        self, request: Mapping[str, np.ndarray], structure: Mapping[str, Tensor], masses: Mapping[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """Search; ``structure`` and ``masses`` of the tree are on the device already."""
        with torch.inference_mode():
            for name, array in request.items():
                self.inputs[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))
            if not self.records:
                return self._arrays(self._compute({**structure, **masses}))
            if masses is not self.masses:
                for name, mass in masses.items():
                    self.inputs[name].copy_(mass)  # the recording reads them there
                self.masses = masses
            _, recording, outputs = self._recording(structure)
            recording.replay()
            return self._arrays(outputs)

    def _arrays(self, outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}

    def _compute(self, bound: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**self.constants, **self.inputs, **bound}
        for step in self.steps:
            step.run(values)
        return {name: values[name] for name in self.outputs}

    def _recording(
        self, structure: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Any, dict[str, Tensor]]:
        if id(structure) not in self.recorded:
            while len(self.recorded) > 1:  # two trees are kept, as their arrays are
                del self.recorded[next(iter(self.recorded))]
            aside = torch.cuda.Stream(self.device)
            aside.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self._compute(structure)
            torch.cuda.current_stream(self.device).wait_stream(aside)
            recording = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recording):
                outputs = self._compute(structure)
            self.recorded[id(structure)] = structure, recording, outputs
        return self.recorded[id(structure)]


class TorchDevice:
    """Where torch runs static graphs: the first GPU, or else the processor. Without ``recording`` it launches
    one operator after the other on a GPU too."""

    name = "torch"
    rebuilds = True

    def __init__(self, recording: bool = True) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recording = recording

    def resident(self, array: np.ndarray) -> Tensor:
        """Put an array onto the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def program(self, graph: Graph) -> TorchProgram:
        """A static graph, ready to run."""
        return TorchProgram(graph, self.device, self.recording)


def _gather(step: _Step, values: Sequence[Tensor]) -> Tensor:
    data, at = values
    axis = step.attributes.get("axis", 0)
    found = data.index_select(axis, at.reshape(-1))
    return found.reshape([*data.shape[:axis], *at.shape, *data.shape[axis + 1 :]])


def _slice(step: _Step, values: Sequence[Tensor]) -> Tensor:
    found = values[0]
    for start, end, axis in zip(step.numbers(1), step.numbers(2), step.numbers(3), strict=True):
        found = found.narrow(axis, start, min(end, found.shape[axis]) - start)
    return found


def _reshape(step: _Step, values: Sequence[Tensor]) -> Tensor:
    shape = [values[0].shape[at] if length == 0 else length for at, length in enumerate(step.numbers(1))]
    return values[0].reshape(shape)


def _unsqueezed(step: _Step, values: Sequence[Tensor]) -> Tensor:
    found = values[0]
    for axis in sorted(step.numbers(1)):
        found = found.unsqueeze(axis)
    return found


def _reduced(reduce: Callable[..., Tensor]) -> Callable[[_Step, Sequence[Tensor]], Tensor]:
    def run(step: _Step, values: Sequence[Tensor]) -> Tensor:
        return reduce(values[0], dim=step.numbers(1), keepdim=bool(step.attributes.get("keepdims", 1)))

    return run


def _sum(value: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return torch.sum(value, dim=dim, keepdim=keepdim, dtype=value.dtype)


def _divided(step: _Step, values: Sequence[Tensor]) -> Tensor:
    mode = None if values[0].is_floating_point() else "trunc"
    return torch.div(values[0], values[1], rounding_mode=mode)


def _normalised(step: _Step, values: Sequence[Tensor]) -> Tensor:
    value, scale, bias = values
    return F.layer_norm(value, value.shape[-1:], scale, bias, step.attributes["epsilon"])


def _split(step: _Step, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return values[0].chunk(step.attributes["num_outputs"], dim=step.attributes["axis"])


def _top(step: _Step, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    found = torch.topk(values[0], step.numbers(1)[0], dim=step.attributes["axis"])
    return found.values, found.indices


def _scattered(step: _Step, values: Sequence[Tensor]) -> Tensor:
    return values[0].scatter(step.attributes["axis"], values[1].long(), values[2])


def _gathered(step: _Step, values: Sequence[Tensor]) -> Tensor:
    return values[0].gather(step.attributes["axis"], values[1].long())


def _summed_up(step: _Step, values: Sequence[Tensor]) -> Tensor:
    return values[0].cumsum(step.numbers(1)[0], dtype=values[0].dtype)


def _each(compute: Callable[..., Tensor]) -> Callable[[_Step, Sequence[Tensor]], Tensor]:
    return lambda step, values: compute(*values)


_OPERATORS: dict[str, Callable[[_Step, Sequence[Tensor]], Any]] = {
    "Add": _each(torch.add),
    "And": _each(torch.logical_and),
    "Cast": lambda step, values: values[0].to(_TYPES[step.attributes["to"]]),
    "Concat": lambda step, values: torch.cat(list(values), dim=step.attributes["axis"]),
    "CumSum": _summed_up,
    "Div": _divided,
    "Equal": _each(torch.eq),
    "Exp": _each(torch.exp),
    "Expand": lambda step, values: values[0].expand(step.numbers(1)),
    "Gather": _gather,
    "GatherElements": _gathered,
    "Gelu": _each(F.gelu),
    "Greater": _each(torch.gt),
    "Identity": lambda step, values: values[0],
    "IsInf": _each(torch.isinf),
    "LayerNormalization": _normalised,
    "Less": _each(torch.lt),
    "LessOrEqual": _each(torch.le),
    "Log": _each(torch.log),
    "LogSoftmax": lambda step, values: values[0].log_softmax(step.attributes["axis"]),
    "MatMul": _each(torch.matmul),
    "Max": _each(torch.maximum),
    "Mul": _each(torch.mul),
    "Not": _each(torch.logical_not),
    "Or": _each(torch.logical_or),
    "ReduceMax": _reduced(torch.amax),
    "ReduceSum": _reduced(_sum),
    "Relu": _each(torch.relu),
    "Reshape": _reshape,
    "ScatterElements": _scattered,
    "Slice": _slice,
    "Softmax": lambda step, values: values[0].softmax(step.attributes["axis"]),
    "Split": _split,
    "Squeeze": lambda step, values: values[0].squeeze(tuple(step.numbers(1))),
    "Sub": _each(torch.sub),
    "TopK": _top,
    "Transpose": lambda step, values: values[0].permute(step.attributes["perm"]),
    "Unsqueeze": _unsqueezed,
    "Where": _each(torch.where),
}
"""Operators of static graphs, as ONNX defines them, as far as those graphs use them."""
