"""ONNX graphs compiled by TensorRT, and run with everything bound once. TensorRT is imported when asked for.

A graph's types are taken as they stand in it (a strongly typed network): what is to be computed in half
precision says so by its casts, and TensorRT rounds nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.compiling.cuda import Cuda, CudaError, DeviceArray, Recording

_log = logging.getLogger(__name__)
_TIMINGS = "timings.cache"
_KEPT_RECORDINGS = 2


class TensorRTError(Exception):
    """TensorRT cannot be used here or refuses a graph, and why."""


class TensorRT:
    """TensorRT on the first GPU. Raises TensorRTError, with the reason, where there is none."""

    def __init__(self, package: Any = None, cuda: Cuda | None = None) -> None:
        try:
            self.trt = package or importlib.import_module("tensorrt")
        except Exception as error:  # its package loads libraries, which fail in many ways
            raise TensorRTError(
                f"TensorRT is not installed (pip install 'onesearch[gpu]'): {error}"
            ) from error
        try:
            self.cuda = cuda or Cuda()
            self.gpu = self.cuda.gpu_name()
        except CudaError as error:
            raise TensorRTError(str(error)) from error
        self.logger = self.trt.Logger(self.trt.Logger.WARNING)

    def plan_name(self, model: bytes) -> str:
        """Name of a compiled graph's file: by GPU, version of TensorRT, and content of the graph."""
        gpu = re.sub(r"[^\w.]+", "-", self.gpu)
        return f"{gpu}-trt{self.trt.__version__}-{hashlib.sha256(model).hexdigest()[:24]}.plan"

    def program(self, model: bytes, plans: Path) -> TensorRTProgram:
        """A graph, ready to run: compiled now, or by an earlier start, which left it in the folder ``plans``.

        Raises TensorRTError where TensorRT refuses it.
        """
        path = plans / self.plan_name(model)
        runtime = self.trt.Runtime(self.logger)
        engine = None
        if path.is_file():
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                _log.warning("%s: cannot be read: compiling it anew", path)
        if engine is None:
            _log.warning("compiling a graph for %s, which takes minutes; it is kept as %s", self.gpu, path)
            engine = runtime.deserialize_cuda_engine(self._compiled(model, path))
        if engine is None:
            raise TensorRTError(f"{path}: TensorRT cannot read what it compiled")
        return TensorRTProgram(self, engine)

    def _compiled(self, model: bytes, path: Path) -> bytes:
        trt = self.trt
        builder = trt.Builder(self.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse(model):
            errors = "; ".join(str(parser.get_error(at).desc()) for at in range(parser.num_errors))
            raise TensorRTError(f"TensorRT cannot read the graph: {errors}")
        config = builder.create_builder_config()
        # Scores are compared and summed: float32 has to be float32 there.
        config.clear_flag(trt.BuilderFlag.TF32)
        timings = path.with_name(_TIMINGS)
        known = timings.read_bytes() if timings.is_file() else b""
        cache = config.create_timing_cache(known)
        config.set_timing_cache(cache, False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise TensorRTError("TensorRT cannot compile the graph: its log says why")
        content = bytes(plan)
        _keep(path, content)
        _keep(timings, bytes(config.get_timing_cache().serialize()))
        return content


class TensorRTProgram:
    """A compiled graph with memory of its own for what a request brings and takes.

    What stays longer is bound where it lies: ``structure`` by its address, one recording of all launches for
    each that is in use; ``masses`` are copied within the GPU, since a request may bring its own.
    """

    def __init__(self, tensorrt: TensorRT, engine: Any) -> None:
        self.cuda, self.engine = tensorrt.cuda, engine
        trt = tensorrt.trt
        self.context = engine.create_execution_context()
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        self.shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        self.types = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        outputs = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT}
        self.inputs = [name for name in names if name not in outputs]
        self.outputs = [name for name in names if name in outputs]
        self.own: dict[str, DeviceArray] = {}
        self.masses: Mapping[str, DeviceArray] | None = None
        # By the structure's identity, which is held with it so that it stays its own.
        self.recordings: dict[int, tuple[Mapping[str, DeviceArray], Recording]] = {}

    def run(
        self,
        request: Mapping[str, np.ndarray],
        structure: Mapping[str, DeviceArray],
        masses: Mapping[str, DeviceArray],
    ) -> dict[str, np.ndarray]:
        """Outputs by name. Raises ValueError where an array does not fit, CudaError where the GPU fails."""
        for name, array in request.items():
            self.cuda.write(self._own(name), array)
        if masses is not self.masses:
            for name, mass in masses.items():
                self.cuda.move(self._own(name), mass)
            self.masses = masses
        self._recording(structure).launch()
        found = {name: np.empty(self.shapes[name], self.types[name]) for name in self.outputs}
        for name, array in found.items():
            self.cuda.read(self._own(name), array)
        self.cuda.wait()
        return found

    def _own(self, name: str) -> DeviceArray:
        if name not in self.own:
            self.own[name] = self.cuda.empty(self.shapes[name], self.types[name])
        return self.own[name]

    def _recording(self, structure: Mapping[str, DeviceArray]) -> Recording:
        if id(structure) not in self.recordings:
            while len(self.recordings) >= _KEPT_RECORDINGS:
                del self.recordings[next(iter(self.recordings))]
            for name in (*self.inputs, *self.outputs):
                bound = structure[name] if name in structure else self._own(name)
                self.context.set_tensor_address(name, bound.address)
            self._launch()  # the first launch sets things up, which cannot be recorded
            self.cuda.wait()
            self.recordings[id(structure)] = structure, self.cuda.record(self._launch)
        return self.recordings[id(structure)][1]

    def _launch(self) -> None:
        if not self.context.execute_async_v3(self.cuda.stream):
            raise CudaError("TensorRT could not run the graph: its log says why")


def _keep(path: Path, content: bytes) -> None:
    """Write a file in one rename; where that cannot be, the next start does the work again."""
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        _log.warning("%s: cannot be kept (%s)", path, error)
