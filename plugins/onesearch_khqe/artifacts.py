"""Reading and writing the files of a tokenizer, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.errors import ArtifactError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = 1


def write_json(path: Path, value: Any) -> None:
    """Write JSON as UTF-8."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ArtifactError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def read_meta(path: Path) -> dict[str, Any]:
    """Read ``meta.json`` and check its format. Raises ArtifactError naming the file."""
    meta = read_json(path)
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a KHQE tokenizer of format {FORMAT}")
    return meta


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as safetensors."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """The named arrays of a file. Raises ArtifactError naming the file."""
    try:
        arrays = load_file(path)
        return [arrays[name] for name in names]
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def map_array(path: Path, name: str) -> np.ndarray:
    """One array of a safetensors file, mapped into memory: pages are read when they are used, and shared by
    processes.

    Raises ArtifactError naming the file.
    """
    kinds = {"F16": np.float16, "F32": np.float32, "I32": np.int32}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("its header is cut short")
            entry = json.loads(file.read(size))[name]
        first, last = entry["data_offsets"]
        kind = np.dtype(kinds[entry["dtype"]])
        shape = tuple(entry["shape"])
        if last - first != kind.itemsize * int(np.prod(shape)) or 8 + size + last > path.stat().st_size:
            raise ValueError("its data is cut short")
        return np.memmap(path, kind, "r", 8 + size + first, shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error
