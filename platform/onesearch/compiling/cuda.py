"""The few calls of CUDA's runtime that a server needs: memory, copies, one stream, recorded launches.

By ctypes, so that serving on a GPU needs neither torch nor a package beside TensorRT's own.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

_RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_DRIVERS = ("libcuda.so.1", "libcuda.so")
_TO_DEVICE, _TO_HOST, _BETWEEN = 1, 2, 3
_THREAD_LOCAL = 1  # what other threads do with CUDA does not spoil a recording


class CudaError(Exception):
    """CUDA cannot be used, or a call failed."""


class DeviceArray:
    """An array in the GPU's memory, which goes with this object."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.cuda, self.shape, self.dtype = cuda, shape, dtype
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        pointer = c_void_p()
        cuda.call("cudaMalloc", byref(pointer), c_size_t(max(self.nbytes, 1)))
        self.address = int(pointer.value or 0)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.cuda.free(self.address)


class Cuda:
    """CUDA's runtime with one stream, in which everything happens in order.

    Raises CudaError, with the reason in plain words, where there is no runtime or no GPU.
    """

    def __init__(self, runtime: str = "", driver: str = "") -> None:
        self._runtime = _first((runtime,) if runtime else (*_RUNTIMES, *packaged()))
        self._driver = _first((driver,) if driver else _DRIVERS)
        self._runtime.cudaGetErrorString.restype = c_char_p
        count = c_int()
        self.call("cudaGetDeviceCount", byref(count))
        if not count.value:
            raise CudaError("there is no GPU")
        stream = c_void_p()
        self.call("cudaStreamCreateWithFlags", byref(stream), c_uint(1))
        self.stream = int(stream.value or 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the runtime. Raises CudaError with CUDA's own words where it fails."""
        status = int(getattr(self._runtime, name)(*arguments))
        if status:
            told = self._runtime.cudaGetErrorString(c_int(status)) or b"no such error"
            raise CudaError(f"{name}: {told.decode(errors='replace')} ({status})")

    def gpu_name(self) -> str:
        """What the first GPU calls itself."""
        name, device = ctypes.create_string_buffer(256), c_int()
        for function, arguments in (
            ("cuInit", (c_uint(0),)),
            ("cuDeviceGet", (byref(device), c_int(0))),
            ("cuDeviceGetName", (name, c_int(len(name)), device)),
        ):
            if getattr(self._driver, function)(*arguments):
                raise CudaError(f"{function} failed")
            device = c_int(device.value)
        return name.value.decode(errors="replace")

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Memory on the GPU, holding anything."""
        return DeviceArray(self, tuple(shape), np.dtype(dtype))

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of an array on the GPU."""
        made = self.empty(array.shape, array.dtype)
        self.write(made, array)
        self.wait()
        return made

    def write(self, target: DeviceArray, array: np.ndarray) -> None:
        """Copy an array of the target's shape and type to the GPU; it must stay as it is until :meth:`wait`.

        Raises ValueError where it does not fit.
        """
        whole = np.ascontiguousarray(array)
        if whole.shape != target.shape or whole.dtype != target.dtype:
            raise ValueError(
                f"an array {whole.dtype}{list(whole.shape)} for one {target.dtype}{list(target.shape)}"
            )
        self._copy(target.address, whole.ctypes.data, target.nbytes, _TO_DEVICE)

    def read(self, source: DeviceArray, into: np.ndarray) -> None:
        """Copy back; it is there after :meth:`wait`."""
        self._copy(into.ctypes.data, source.address, source.nbytes, _TO_HOST)

    def move(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy within the GPU. Raises ValueError where the sizes differ."""
        if target.nbytes != source.nbytes:
            raise ValueError(f"{source.nbytes} bytes for {target.nbytes}")
        self._copy(target.address, source.address, source.nbytes, _BETWEEN)

    def _copy(self, target: int, source: int, size: int, direction: int) -> None:
        self.call(
            "cudaMemcpyAsync",
            c_void_p(target),
            c_void_p(source),
            c_size_t(size),
            c_int(direction),
            c_void_p(self.stream),
        )

    def wait(self) -> None:
        """Until the stream has done everything."""
        self.call("cudaStreamSynchronize", c_void_p(self.stream))

    def free(self, address: int) -> None:
        """Give memory back."""
        self.call("cudaFree", c_void_p(address))

    def record(self, work: Callable[[], None]) -> Recording:
        """Record what ``work`` launches in the stream, without running it."""
        self.call("cudaStreamBeginCapture", c_void_p(self.stream), c_int(_THREAD_LOCAL))
        graph, made = c_void_p(), c_void_p()
        try:
            work()
        finally:
            self.call("cudaStreamEndCapture", c_void_p(self.stream), byref(graph))
        self.call("cudaGraphInstantiateWithFlags", byref(made), graph, c_ulonglong(0))
        self.call("cudaGraphDestroy", graph)
        return Recording(self, int(made.value or 0))


class Recording:
    """Launches that are repeated as one."""

    def __init__(self, cuda: Cuda, address: int) -> None:
        self.cuda, self.address = cuda, address

    def launch(self) -> None:
        """Repeat them, over what the memory that they name holds now."""
        self.cuda.call("cudaGraphLaunch", c_void_p(self.address), c_void_p(self.cuda.stream))

    def __del__(self) -> None:
        self.cuda.call("cudaGraphExecDestroy", c_void_p(self.address))


def packaged() -> list[str]:
    """CUDA's runtime as Python packages bring it, which no loader knows of."""
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("*/lib/libcudart.so.*")]
    return [str(path) for path in sorted(found, reverse=True)]


def _first(names: tuple[str, ...]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CudaError(f"{names[0]} is not there: no CUDA on this machine")
