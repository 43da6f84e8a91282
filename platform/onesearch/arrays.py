"""Arrays in safetensors files: written without copies, and mapped into memory rather than read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "I32": np.int32,
    "I64": np.int64,
    "U64": np.uint64,
    "F16": np.float16,
    "F32": np.float32,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, read-only, which the processes of a server share; the library would copy them.

    Raises OSError, ValueError or KeyError where the file is not there or is none.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else size + 1
        if length > size:
            raise ValueError(f"{path.name} is cut short")
        header = json.loads(file.read(length))
    arrays = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            if 8 + length + end > size:
                raise ValueError(f"{path.name} is cut short")
            # A mapping cannot be empty.
            raw = np.memmap(path, np.uint8, "r", 8 + length + start, end - start) if end > start else b""
            arrays[name] = np.frombuffer(raw, _DTYPES[about["dtype"]]).reshape(about["shape"])
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, the widest numbers first, so that each begins at a multiple of its own size."""
    ordered = sorted(arrays.items(), key=lambda entry: -entry[1].dtype.itemsize)
    about, at = {}, 0
    for name, array in ordered:
        offsets = [at, at + array.nbytes]
        about[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        at += array.nbytes
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, array in ordered:
            if array.nbytes:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
