"""Everything of ours around TensorRT, over stand-ins for it and for CUDA: no GPU has run this yet."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onesearch.compiling import cuda
from onesearch.compiling.cuda import Cuda, CudaError
from onesearch.compiling.tensorrt import TensorRT, TensorRTError
from onnx import helper


def model(number: float = 1.0) -> bytes:
    """result f32[2, 3] = request + structure + mass + number"""
    names = ("request", "structure", "mass")
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in names]
    output = helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, [2, 3])
    constant = helper.make_tensor("number", onnx.TensorProto.FLOAT, [1], [number])
    nodes = [helper.make_node("Sum", [*names, "number"], ["result"])]
    graph = helper.make_graph(nodes, "sum", inputs, [output], [constant])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


def filled(number: float) -> np.ndarray:
    return np.full((2, 3), number, np.float32)


@pytest.fixture
def tensorrt(fake_gpu):
    return TensorRT(fake_gpu.trt, fake_gpu.cuda)


def test_a_plan_is_compiled_once_and_kept_by_gpu_version_and_graph(tensorrt, fake_gpu, tmp_path):
    plans = tmp_path / "plans"
    for _ in range(2):
        tensorrt.program(model(), plans)
    assert fake_gpu.builds == [model()]
    kept = sorted(path.name for path in plans.iterdir())
    assert kept == [tensorrt.plan_name(model()), "timings.cache"]
    assert kept[0].startswith("Simulated-GPU-trt10.0.fake-") and tensorrt.plan_name(model(2)) != kept[0]
    tensorrt.program(model(2), plans)
    assert len(fake_gpu.builds) == 2


def test_a_plan_that_cannot_be_read_is_compiled_anew(tensorrt, fake_gpu, tmp_path, caplog):
    path = tmp_path / tensorrt.plan_name(model())
    path.write_bytes(b"of another version")
    tensorrt.program(model(), tmp_path)
    assert str(path) in caplog.text and len(fake_gpu.builds) == 1
    assert path.read_bytes().startswith(b"plan:")


def test_a_folder_that_cannot_be_written_to_only_costs_time(tensorrt, fake_gpu, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    tensorrt.program(model(), tmp_path / "file")
    assert "cannot be kept" in caplog.text and len(fake_gpu.builds) == 1


def test_structures_stay_where_they_are_and_masses_come_with_a_request(tensorrt, fake_gpu, tmp_path):
    program, gpu = tensorrt.program(model(), tmp_path), fake_gpu.cuda
    structures = [
        {"structure": gpu.upload(filled(10 * at)), "unused": gpu.upload(filled(0))} for at in (1, 2)
    ]
    masses = [{"mass": gpu.upload(filled(100 * at))} for at in (1, 2)]
    for number in range(3):
        for structure, tens in zip(structures, (10, 20), strict=True):
            for mass, hundreds in zip(masses, (100, 200), strict=True):
                found = program.run({"request": filled(number)}, structure, mass)
                np.testing.assert_array_equal(found["result"], filled(number + tens + hundreds + 1))
    assert fake_gpu.library.fake_recordings() == 2, "one recording a structure"
    third = {"structure": gpu.upload(filled(30))}
    found = program.run({"request": filled(0)}, third, masses[0])
    np.testing.assert_array_equal(found["result"], filled(131))
    gc.collect()
    assert fake_gpu.library.fake_recordings() == 2, "the oldest is let go"


def test_memory_goes_with_what_held_it(tensorrt, fake_gpu, tmp_path):
    gc.collect()
    before = fake_gpu.library.fake_allocated()
    program, gpu = tensorrt.program(model(), tmp_path), fake_gpu.cuda
    structure, masses = {"structure": gpu.upload(filled(1))}, {"mass": gpu.upload(filled(2))}
    program.run({"request": filled(0)}, structure, masses)
    assert fake_gpu.library.fake_allocated() == before + 5
    del program, structure, masses
    gc.collect()
    assert fake_gpu.library.fake_allocated() == before


def test_what_does_not_fit_is_refused(tensorrt, fake_gpu, tmp_path):
    program, gpu = tensorrt.program(model(), tmp_path), fake_gpu.cuda
    structure, masses = {"structure": gpu.upload(filled(1))}, {"mass": gpu.upload(filled(2))}
    with pytest.raises(ValueError, match="float64"):
        program.run({"request": filled(0).astype(np.float64)}, structure, masses)
    with pytest.raises(ValueError, match="4 bytes for 24"):
        program.run({"request": filled(0)}, structure, {"mass": gpu.upload(np.zeros(1, np.float32))})
    with pytest.raises(CudaError, match="cudaMalloc: out of memory"):
        gpu.empty((2**41,), np.int8)


@pytest.mark.skipif(not cuda.packaged(), reason="no package brings CUDA's runtime")
def test_the_real_runtime_has_every_function_that_is_called():
    real = cuda.packaged()[0]
    library = ctypes.CDLL(real)
    called = set(re.findall(r'"(cuda[A-Z]\w+)"', Path(cuda.__file__).read_text(encoding="utf-8")))
    assert len(called) >= 12 and all(hasattr(library, name) for name in called)
    if not torch.cuda.is_available():
        with pytest.raises(CudaError, match=r"cudaGetDeviceCount: CUDA|cudaGetDeviceCount: no CUDA"):
            Cuda(real, real)


def test_reasons_are_told():
    with pytest.raises(CudaError, match="no CUDA on this machine"):
        Cuda("libnothing.so")
    with pytest.raises(TensorRTError, match=r"is not installed|CUDA"):
        TensorRT()


def test_a_graph_that_is_refused(tensorrt, tmp_path):
    with pytest.raises(TensorRTError, match="cannot read the graph: no graph"):
        tensorrt.program(b"short", tmp_path)
