"""The serving environment: a small one without torch, with numpy 1, that holds the Triton binary.

Triton's Python backend comes as a stub built for numpy 1; under numpy 2 it starts and silently makes tensors
of 0 bytes. So serving runs in an environment of its own (``make setup``), and this module finds it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from onesearch.errors import ServingError

PYTHON_VARIABLE = "ONESEARCH_SERVING_PYTHON"
_MAKE = "make it with `make setup`, or name its Python in " + PYTHON_VARIABLE
# Tells about an interpreter without importing anything heavy.
_PROBE = """
import importlib.metadata as m, importlib.util as u, json, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
spec = u.find_spec("pytriton")
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "numpy": version("numpy"),
    "onesearch": version("onesearch"),
    "pytriton": list(spec.submodule_search_locations or [None])[0] if spec else None,
}))
"""


@dataclass(frozen=True)
class ServingEnvironment:
    """An interpreter that can serve.

    Attributes:
        python: the interpreter (of a virtual environment, so never resolved further).
        version: its version, as the stubs' folders are named, e.g. ``3.11``.
        numpy: version of its numpy.
        triton: the folder of the Triton binary, its backends and stubs.
        libraries: the folder of the binary's shared libraries.
    """

    python: Path
    version: str
    numpy: str
    triton: Path
    libraries: Path

    @property
    def binary(self) -> Path:
        """The server."""
        return self.triton / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The Python backend's stub for this interpreter."""
        return self.triton / "python_backend_stubs" / self.version / "triton_python_backend_stub"


def probe(python: Path) -> ServingEnvironment:
    """Look at an interpreter. Raises ServingError saying what it lacks to serve."""
    try:
        told = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True)
        about = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServingError(f"{python}: does not run as a Python interpreter ({error})") from error
    for name in ("onesearch", "numpy"):
        if about[name] is None:
            raise ServingError(f"{python}: has no {name}; {_MAKE}")
    if about["pytriton"] is None:
        raise ServingError(f"{python}: has no Triton (the package nvidia-pytriton); {_MAKE}")
    package = Path(about["pytriton"])
    found = ServingEnvironment(
        python=python,
        version=about["python"],
        numpy=about["numpy"],
        triton=package / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    if not os.access(found.binary, os.X_OK):
        raise ServingError(f"{found.binary}: the Triton binary is missing; {_MAKE}")
    if not found.stub.is_file():
        raise ServingError(
            f"{python} is Python {found.version}, for which Triton has no stub ({found.stub}); {_MAKE}"
        )
    if int(found.numpy.split(".")[0]) >= 2:
        raise ServingError(
            f"{python}: has numpy {found.numpy}, but Triton's Python backend was built for numpy 1 and would"
            f" silently make empty tensors; {_MAKE}"
        )
    return found


def candidates() -> list[Path]:
    """Interpreters to look at: the one named, else the running one and ``.venv-serving`` here."""
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return [Path(named)]
    roots = [Path(__file__).resolve().parents[3], Path.cwd()]
    beside = [root / ".venv-serving" / "bin" / "python" for root in roots]
    return [Path(sys.executable), *dict.fromkeys(path for path in beside if path.exists())]


def find() -> ServingEnvironment:
    """The first interpreter that can serve. Raises ServingError with what each one lacks."""
    reasons = []
    for python in candidates():
        try:
            return probe(python)
        except ServingError as error:
            reasons.append(str(error))
    raise ServingError("no environment here can serve:\n  " + "\n  ".join(reasons))


def is_running(environment: ServingEnvironment) -> bool:
    """Whether this very process runs in the environment."""
    return environment.python.parent.resolve() == Path(sys.executable).parent.resolve()
