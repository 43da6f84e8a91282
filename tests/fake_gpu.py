"""A stand-in for a GPU and for TensorRT, where neither is: CUDA's calls over plain memory, and graphs that
ONNX Runtime runs at the addresses that were bound. It holds everything of ours that is between."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
from onesearch.compiling.cuda import Cuda

SOURCE = Path(__file__).with_suffix(".c")


class FakeGpu:
    """``cuda``: ours, over the stand-in; ``trt``: what ``import tensorrt`` would give."""

    def __init__(self, folder: Path, compiler: list[str]) -> None:
        path = folder / "libfakecuda.so"
        if not path.exists():
            subprocess.run([*compiler, "-x", "c", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
        self.library = ctypes.CDLL(str(path))
        self.cuda = Cuda(str(path), str(path))
        self.builds: list[bytes] = []
        self.trt = SimpleNamespace(
            __version__="10.0.fake",
            Logger=type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None}),
            Builder=lambda logger: _Builder(self),
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
            BuilderFlag=SimpleNamespace(TF32="tf32"),
            OnnxParser=_Parser,
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self._deserialized),
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            nptype=lambda kind: kind,
        )
        self._launch = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._again)
        self.library.fake_on_launch(self._launch)
        self.recorded: tuple[_Context, dict[str, int]] | None = None
        self.recordings: dict[int, tuple[_Context, dict[str, int]]] = {}

    def _deserialized(self, plan: bytes):
        return _Engine(self, plan[5:]) if plan[:5] == b"plan:" else None

    def _again(self, recording: int) -> None:
        assert self.recorded is not None
        context, addresses = self.recordings.setdefault(recording, self.recorded)
        context.compute(addresses)


class _Builder:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def create_network(self, flags):
        assert flags == 2, "types are those of the graph"
        return SimpleNamespace(model=b"")

    def create_builder_config(self):
        cache = SimpleNamespace(serialize=lambda: b"timings")
        return SimpleNamespace(
            clear_flag=lambda flag: None,
            create_timing_cache=lambda known: cache,
            set_timing_cache=lambda cache, ignore: True,
            get_timing_cache=lambda: cache,
        )

    def build_serialized_network(self, network, config):
        self.gpu.builds.append(network.model)
        return b"plan:" + network.model


class _Parser:
    num_errors = 1

    def __init__(self, network, logger) -> None:
        self.network = network

    def parse(self, model: bytes) -> bool:
        self.network.model = model
        return len(model) > 10

    def get_error(self, at: int):
        return SimpleNamespace(desc=lambda: "no graph")


_TYPES = {"float": np.float32, "float16": np.float16, "int32": np.int32, "bool": np.bool_}


class _Engine:
    def __init__(self, gpu: FakeGpu, model: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.gpu, self.session = gpu, ort.InferenceSession(model, options)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {value.name: value for value in (*inputs, *outputs)}
        self.out = {value.name for value in outputs}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, at):
        return list(self.tensors)[at]

    def get_tensor_shape(self, name):
        return self.tensors[name].shape

    def get_tensor_dtype(self, name):
        return _TYPES[self.tensors[name].type.removeprefix("tensor(").removesuffix(")")]

    def get_tensor_mode(self, name):
        return "out" if name in self.out else "in"

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.addresses = engine, {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        gpu = self.engine.gpu
        assert stream == gpu.cuda.stream
        if gpu.library.fake_recording():
            gpu.recorded = self, dict(self.addresses)
        else:
            self.compute(self.addresses)
        return True

    def compute(self, addresses):
        engine = self.engine
        bound = {name: self._at(name, addresses[name]) for name in engine.tensors}
        feeds = {name: array.copy() for name, array in bound.items() if name not in engine.out}
        for name, array in zip(engine.out, engine.session.run(list(engine.out), feeds), strict=True):
            bound[name][...] = array

    def _at(self, name, address):
        shape, dtype = self.engine.get_tensor_shape(name), np.dtype(self.engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * dtype.itemsize
        raw = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(raw, dtype).reshape(shape)
