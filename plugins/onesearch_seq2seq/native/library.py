"""The native library, loaded by ctypes: plain structures of pointers and numbers, whatever numpy there is."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from onesearch_seq2seq.native.build import LIBRARY

VERSION = 4
ROOM = 1024


class LibraryError(Exception):
    """The library cannot be used here, and why."""


class Dimensions(ctypes.Structure):
    """``onesearch_dimensions``."""

    _fields_ = [
        (name, c_int32)
        for name in (
            "width",
            "layers",
            "hidden",
            "heads",
            "levels",
            "vector",
            "steer_rank",
            "start",
            "gelu",
            "post_norm",
        )
    ]


class Tensor(ctypes.Structure):
    """``onesearch_tensor``."""

    _fields_ = [
        ("name", c_char_p),
        ("data", c_void_p),
        ("type", c_int32),
        ("axes", c_int32),
        ("shape", c_int64 * 4),
    ]


class Remainders(ctypes.Structure):
    """``Remainders`` of tree.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("book", "columns", "parted", "before", "codes")),
        ("bytes", c_int32),
        ("wide", c_int32),
    ]


class Tree(ctypes.Structure):
    """``Tree`` of tree.h."""

    _fields_ = [
        ("depth", c_int32),
        ("dimension", c_int32),
        ("first_child", POINTER(c_void_p)),
        ("code", POINTER(c_void_p)),
        ("code_bytes", POINTER(c_int32)),
        ("vectors", POINTER(c_void_p)),
        ("by_code", c_int32),
        ("remainders", POINTER(Remainders)),
        ("log_mass", POINTER(c_void_p)),
    ]


class Request(ctypes.Structure):
    """``onesearch_request``."""

    _fields_ = [
        *((name, c_int32) for name in ("queries", "tokens", "prefixes", "beams", "levels")),
        *(
            (name, c_void_p)
            for name in (
                "ids",
                "seen",
                "prefix",
                "query",
                "parts",
                "leaves",
                "log_probs",
                "dropped",
                "dropped_mass",
                "branches",
                "seconds",
                "rows",
            )
        ),
        ("first", c_int32),
        ("certain", c_int32),
        ("widths", c_void_p),
    ]


@cache
def library() -> ctypes.CDLL:
    """The library, loaded once. Raises LibraryError where there is none, or one of another version."""
    path = Path(os.environ.get("ONESEARCH_NATIVE_LIBRARY", LIBRARY))
    if not path.exists():
        raise LibraryError(f"{path.name} is not built (make native)")
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.onesearch_version.restype = c_int32
        version = loaded.onesearch_version()
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path.name} cannot be loaded ({error})") from error
    if version != VERSION:
        raise LibraryError(f"{path.name} is of version {version}, not {VERSION} (make native)")
    loaded.onesearch_open.argtypes = [
        POINTER(Tensor),
        c_int32,
        POINTER(Dimensions),
        c_int32,
        c_char_p,
        POINTER(c_void_p),
        c_char_p,
        c_int64,
    ]
    loaded.onesearch_close.argtypes = [c_void_p]
    loaded.onesearch_close.restype = None
    loaded.onesearch_chosen.argtypes = [c_void_p]
    loaded.onesearch_chosen.restype = c_char_p
    loaded.onesearch_search.argtypes = [c_void_p, POINTER(Tree), POINTER(Request), c_char_p, c_int64]
    loaded.onesearch_instructions.argtypes = [c_char_p, c_int64]
    return loaded


def instructions() -> list[str]:
    """Names of the instruction sets that library and machine have in common, the plainest first."""
    names = ctypes.create_string_buffer(ROOM)
    library().onesearch_instructions(names, ROOM)
    return names.value.decode().split()


__all__ = [
    "ROOM",
    "Dimensions",
    "LibraryError",
    "Remainders",
    "Request",
    "Tensor",
    "Tree",
    "byref",
    "c_double",
    "c_float",
    "instructions",
    "library",
]
