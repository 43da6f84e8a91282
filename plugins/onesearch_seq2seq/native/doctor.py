"""What ``onesearch doctor`` tells of the native library."""

from __future__ import annotations

from onesearch_seq2seq.native.library import LibraryError, instructions


def look() -> tuple[str, bool, str, str]:
    """What was looked for, whether it is there, what was found, and what to do."""
    try:
        found = instructions()
    except LibraryError as error:
        return "native search", False, f"{error}; searches run on the ONNX graph", "make native"
    return "native search", True, f"with {found[-1]}", ""
