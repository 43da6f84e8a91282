"""Devices that static graphs run on: TensorRT's, or torch's. Both are imported only when asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.compiling.tensorrt import TensorRT, TensorRTError

from onesearch_seq2seq.static_engine import Device, Program

if TYPE_CHECKING:
    from onesearch_seq2seq.graphs import Graph


class NoDeviceError(Exception):
    """This machine has no such device, and why."""


class TensorRTDevice:
    """A GPU with TensorRT; ``plans`` is where compiled graphs are kept."""

    name = "tensorrt"
    rebuilds = False

    def __init__(self, tensorrt: TensorRT, plans: Path) -> None:
        self.tensorrt, self.plans = tensorrt, plans

    def resident(self, array: np.ndarray) -> Any:
        """Put an array onto the GPU."""
        return self.tensorrt.cuda.upload(array)

    def program(self, graph: Graph) -> Program:
        """Compile a graph, or read what an earlier start compiled."""
        model = graph.model().SerializeToString(deterministic=True)
        return self.tensorrt.program(model, self.plans)


def of(kind: str, release: Path) -> Device:
    """The device of an engine. Raises NoDeviceError.

    Compiled graphs are kept beside the release, or in the folder that ``ONESEARCH_ENGINES`` names.
    """
    if kind == "torch":
        try:
            from onesearch_seq2seq.torch_program import TorchDevice
        except ImportError as error:
            raise NoDeviceError(f"{error.name} is not installed (pip install 'onesearch[train]')") from error
        return TorchDevice()
    plans = os.environ.get("ONESEARCH_ENGINES")
    try:
        import onnx  # noqa: F401  (builds the graphs that TensorRT compiles)

        return TensorRTDevice(TensorRT(), Path(plans) if plans else release.parent / ".engines")
    except ImportError as error:
        raise NoDeviceError(f"{error.name} is not installed (pip install 'onesearch[gpu]')") from error
    except TensorRTError as error:
        raise NoDeviceError(str(error)) from error
