"""The file of weights that the native library reads: safetensors, mapped into memory.

Matrices stand in it as the library's kernels walk them, so that nothing is converted or copied when a server
opens it, and processes share its pages.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "onesearch-native-1"
_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I32": np.int32}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNED = 64


def save(path: Path, arrays: Mapping[str, np.ndarray], dimensions: Mapping[str, int]) -> None:
    """Write a safetensors file in one rename; its large arrays begin at multiples of 64 bytes, which the
    package's own writer does not see to."""
    order = sorted(arrays, key=lambda name: (arrays[name].nbytes % _ALIGNED != 0, name))
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "dimensions": json.dumps(dict(dimensions))}}
    at = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNED)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(arrays[name].tobytes())
    partial.replace(path)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays, mapped into memory, and the dimensions. Raises OSError, ValueError or KeyError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise ValueError("the file is cut short")
        header = json.loads(file.read(length))
    told = header.pop("__metadata__")
    if told["format"] != FORMAT:
        raise ValueError(f"format {told['format']}, this version reads {FORMAT}")
    whole = np.memmap(path, np.uint8, "r")
    arrays = {}
    for name, one in header.items():
        begin, end = (8 + length + offset for offset in one["data_offsets"])
        if end > size:
            raise ValueError("the file is cut short")
        arrays[name] = whole[begin:end].view(_DTYPES[one["dtype"]]).reshape(one["shape"])
    return arrays, json.loads(told["dimensions"])
