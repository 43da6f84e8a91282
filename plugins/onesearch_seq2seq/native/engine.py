"""An engine of the native library over one network's weights."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onesearch.contracts.generator import SearchResult
from onesearch.errors import UsageError
from onesearch.index import LiveTree

from onesearch_seq2seq.native import library as lib
from onesearch_seq2seq.native.weights import load
from onesearch_seq2seq.remembering import Remembered

NARROWEST = 16
"""Beams that an adaptive search begins with at least."""
_TYPES = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int32): 2, np.dtype(np.float16): 3}


@dataclass(frozen=True)
class Account:
    """Where the time of a search went.

    Attributes:
        encoder: seconds. decoder: seconds, step by step. rest: seconds of all else (tree, heads, ranking).
        rows: prefixes that went through the decoder, step by step.
    """

    encoder: float
    decoder: tuple[float, ...]
    rest: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class BoundTree:
    """The structure of a live tree as the library reads it; holds the arrays that the pointers point to."""

    depth: int
    dimension: int
    first_child: ctypes.Array[ctypes.c_void_p]
    code: ctypes.Array[ctypes.c_void_p]
    code_bytes: ctypes.Array[ctypes.c_int32]
    vectors: ctypes.Array[ctypes.c_void_p]
    by_code: bool
    remainders: ctypes.Array[lib.Remainders] | None
    held: list[np.ndarray]

    @classmethod
    def of(cls, live: LiveTree) -> BoundTree:
        """Borrow the arrays of a tree; what is contiguous already is not copied."""
        held: list[np.ndarray] = []
        tree = live.tree
        first_child = pointers(tree.first_child, np.int32, held)
        code = pointers(tree.code, None, held)
        widths = (ctypes.c_int32 * tree.depth)(*(codes.itemsize for codes in tree.code))
        vectors = pointers(live.vectors, np.float16, held)
        dimension = live.vectors[0].shape[1]
        left = _remainders(live, held)
        return cls(tree.depth, dimension, first_child, code, widths, vectors, live.by_code, left, held)


@dataclass(frozen=True)
class BoundMass:
    """The masses of a live tree as the library reads them."""

    log_mass: ctypes.Array[ctypes.c_void_p]
    held: list[np.ndarray]

    @classmethod
    def of(cls, live: LiveTree) -> BoundMass:
        """Borrow the masses of a tree."""
        held: list[np.ndarray] = []
        return cls(pointers(live.log_mass, np.float16, held), held)


def pointers(
    arrays: tuple[np.ndarray, ...], dtype: type[np.generic] | None, held: list[np.ndarray]
) -> ctypes.Array[ctypes.c_void_p]:
    """Addresses of arrays, of a type or of their own, which are added to ``held``."""
    own = [np.ascontiguousarray(array, dtype) for array in arrays]
    held += own
    return (ctypes.c_void_p * len(own))(*(array.ctypes.data for array in own))


def _remainders(live: LiveTree, held: list[np.ndarray]) -> ctypes.Array[lib.Remainders] | None:
    """Addresses of the remainders' arrays, of nothing for levels without; None: there are none."""
    if not live.remainders:
        return None
    rows = (lib.Remainders * live.tree.depth)()
    for row, left in zip(rows[1:], live.remainders, strict=False):
        row.bytes, row.wide = left.codes.shape[1], left.book.shape[2]
        arrays = {name: getattr(left, name) for name in ("book", "parted", "before", "codes")}
        arrays["columns"] = left.book.transpose(0, 2, 1).astype(np.float32)
        for name, array in arrays.items():
            held.append(np.ascontiguousarray(array))
            setattr(row, name, held[-1].ctypes.data)
    return rows


class NativeEngine:
    """Searches without Python or ONNX Runtime between the steps; see the library's search.cpp.

    Raises LibraryError where the library is not there, and OSError, ValueError or KeyError where the file of
    weights cannot be read.
    """

    name = "native"

    def __init__(self, path: Path, threads: int, served: np.ndarray, instructions: str = "") -> None:
        self._library = lib.library()
        self.bound = Remembered(BoundTree.of, BoundMass.of)
        # Behind the last level at which the fitted weights let the network speak, it is not heard.
        self.speaking = int(np.flatnonzero(served[:2].any(axis=0)).max(initial=0)) + 1
        self._arrays, dimensions = load(path)
        self.levels, self.width = dimensions["levels"], dimensions["width"]
        tensors = (lib.Tensor * len(self._arrays))()
        for tensor, (name, array) in zip(tensors, self._arrays.items(), strict=True):
            tensor.name, tensor.data = name.encode(), array.ctypes.data
            tensor.type, tensor.axes = _TYPES[array.dtype], array.ndim
            tensor.shape = (ctypes.c_int64 * 4)(*array.shape)
        self._engine = ctypes.c_void_p()
        error = ctypes.create_string_buffer(lib.ROOM)
        wanted = (instructions or os.environ.get("ONESEARCH_NATIVE_INSTRUCTIONS", "")).encode()
        count = threads or len(os.sched_getaffinity(0))
        failed = self._library.onesearch_open(
            tensors,
            len(tensors),
            lib.byref(lib.Dimensions(**dimensions)),
            count,
            wanted,
            lib.byref(self._engine),
            error,
            lib.ROOM,
        )
        if failed:
            raise ValueError(error.value.decode(errors="replace"))
        self.account: Account | None = None

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self._library.onesearch_close(self._engine)

    @property
    def instructions(self) -> str:
        """The instruction set that is used."""
        return str(self._library.onesearch_chosen(self._engine).decode())

    def bind(self, live: LiveTree) -> tuple[BoundTree, BoundMass]:
        """The addresses of the tree's arrays."""
        return self.bound.of(live)

    def search(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        prefix: np.ndarray,
        query: np.ndarray,
        live: LiveTree,
        beams: int,
        parts: np.ndarray,
        certify: int = 0,
        first: int = 0,
    ) -> SearchResult:
        """Search B queries; see :func:`~onesearch_seq2seq.search_graph.build_search_graph` for what comes and
        goes.

        With ``certify``, a search begins with ``first`` beams (0: half as many again as are to be proven, at
        least :data:`NARROWEST`), and doubles them up to ``beams`` until its best ``certify`` results are
        proven exact (or nothing was dropped). It goes on where it was, and finds what a search of the width
        it ends with finds.

        Raises UsageError where an id is outside the vocabulary.
        """
        tree, mass = self.bind(live)
        count, depth = len(ids), tree.depth
        widths = np.zeros(count, np.int32)
        found = SearchResult(
            np.empty((count, beams), np.int32),
            np.empty((count, beams), np.float32),
            np.empty(count, np.float32),
            np.empty(count, np.float32),
            np.empty((count, depth), np.int32),
            widths,
        )
        if certify and not first:
            first = max(NARROWEST, certify + certify // 2)
        seconds, rows = np.zeros(depth + 2), np.zeros(depth, np.int64)
        inputs = {
            "ids": np.ascontiguousarray(ids, np.int32),
            "seen": np.ascontiguousarray(mask, np.bool_),
            "prefix": np.ascontiguousarray(prefix, np.float32),
            "query": np.ascontiguousarray(query, np.float32),
            "parts": np.ascontiguousarray(parts, np.float32),
        }
        outputs = {
            "leaves": found.leaves,
            "log_probs": found.log_probs,
            "dropped": found.dropped,
            "dropped_mass": found.dropped_mass,
            "branches": found.branches,
            "seconds": seconds,
            "rows": rows,
            "widths": widths,
        }
        addresses = {name: array.ctypes.data for name, array in (inputs | outputs).items()}
        sizes = (count, ids.shape[1], prefix.shape[1], beams, self.speaking)
        request = lib.Request(*sizes, **addresses, first=first if certify else 0, certain=certify)
        walked = lib.Tree(
            depth,
            tree.dimension,
            tree.first_child,
            tree.code,
            tree.code_bytes,
            tree.vectors,
            tree.by_code,
            tree.remainders,
            mass.log_mass,
        )
        error = ctypes.create_string_buffer(lib.ROOM)
        if self._library.onesearch_search(
            self._engine, lib.byref(walked), lib.byref(request), error, lib.ROOM
        ):
            raise UsageError(error.value.decode(errors="replace"))
        self.account = Account(
            float(seconds[0]), tuple(seconds[1:-1].tolist()), float(seconds[-1]), tuple(rows.tolist())
        )
        if not certify or not count:
            return found
        taken = int(widths.max())
        return replace(found, leaves=found.leaves[:, :taken], log_probs=found.log_probs[:, :taken])
