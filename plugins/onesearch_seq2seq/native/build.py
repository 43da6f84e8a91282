"""Builds the native library with the C++ compiler at hand: ``python -m onesearch_seq2seq.native.build``.

No dependencies: each instruction set is a file compiled with flags of its own, and which one runs is decided
when the library is loaded, so that what is built on one x86-64 machine runs on any other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
LIBRARY = Path(__file__).parent / "libonesearch_search.so"

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_INSTRUCTIONS = {
    "kernels_avx2": _AVX2,
    "kernels_avxvnni": (*_AVX2, "-mavxvnni"),
    "kernels_avx512": _AVX512,
    "kernels_avx512vnni": (*_AVX512, "-mavx512vnni"),
}
# No contraction: a product and a sum stay two roundings wherever the source says so, on every machine.
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-w")


def compiler() -> list[str]:
    """The command of a C++ compiler, empty where there is none: $CXX, g++, clang++, or what the package
    ``ziglang`` brings."""
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++"]
    return []


def fingerprint() -> str:
    """A hash of the sources and flags: a library of another one is out of date."""
    digest = hashlib.sha256(repr((_FLAGS, _INSTRUCTIONS)).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(target: Path = LIBRARY) -> Path:
    """Compile and link, and put the library in its place in one rename. Raises RuntimeError with what the
    compiler said."""
    command = compiler()
    if not command:
        raise RuntimeError("no C++ compiler: install g++ or clang++, or the package ziglang")
    stamp = [f'-DONESEARCH_BUILD="{fingerprint()}"']
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    with tempfile.TemporaryDirectory() as folder:

        def compiled(source: Path) -> str:
            wanted = _INSTRUCTIONS.get(source.stem, ())
            out = Path(folder) / f"{source.stem}.o"
            _run([*command, *_FLAGS, *wanted, *stamp, "-c", str(source), "-o", str(out)])
            return str(out)

        sources = [path for path in SOURCES.glob("*.cpp") if x86 or path.stem not in _INSTRUCTIONS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, sorted(sources)))
        partial = Path(folder) / target.name
        # The C++ runtime goes in, so that the library needs none of the machine that it is loaded on.
        static = [] if "ziglang" in command else ["-static-libstdc++", "-static-libgcc"]
        _run([*command, "-shared", *static, "-o", str(partial), *objects, "-pthread"])
        beside = target.with_suffix(f".{os.getpid()}.partial")
        shutil.copy(partial, beside)
        beside.replace(target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command[:1])} failed:\n{done.stderr.strip()[-2000:]}")


def main() -> None:
    """Build, unless what stands there was built from these sources. What stops it is told but is no failure:
    without the library searches run on the ONNX graph."""
    # Looked for in the file: a library that is out of date must not be loaded to be asked.
    if LIBRARY.exists() and fingerprint().encode() in LIBRARY.read_bytes():
        return
    try:
        print(f"native search: {build()}")
    except (RuntimeError, OSError) as error:
        print(f"native search: not built, searches will run on the ONNX graph ({error})", file=sys.stderr)


if __name__ == "__main__":
    main()
