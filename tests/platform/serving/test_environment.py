from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onesearch.errors import ServingError
from onesearch.serving import environment


def test_an_environment_without_triton_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment, "_PROBE", environment._PROBE.replace('"pytriton"', '"no_such_package"', 1)
    )
    with pytest.raises(ServingError, match=r"has no Triton .*make setup"):
        environment.probe(Path(sys.executable))


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="does not run as a Python"):
        environment.probe(tmp_path / "python")
    with pytest.raises(ServingError, match="does not run as a Python"):
        environment.probe(Path("/bin/true"))


def _installed(folder: Path, about: str) -> Path:
    """An executable that answers the probe with ``about``."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho '{about}'\n")
    python.chmod(0o755)
    return python


def _triton(folder: Path, version: str = "3.11") -> Path:
    for path in ("bin/tritonserver", f"python_backend_stubs/{version}/triton_python_backend_stub"):
        file = folder / "tritonserver" / path
        file.parent.mkdir(parents=True)
        file.touch(0o755)
    return folder


@pytest.mark.parametrize(
    ("python", "numpy", "said"),
    [("3.11", "2.1.0", "built for numpy 1"), ("3.14", "1.26.4", "no stub"), ("3.11", None, "has no numpy")],
)
def test_the_traps_are_told_before_anything_starts(
    tmp_path: Path, python: str, numpy: str | None, said: str
) -> None:
    numpy_text = f'"{numpy}"' if numpy else "null"
    package = _triton(tmp_path)
    about = f'{{"python": "{python}", "numpy": {numpy_text}, "onesearch": "1", "pytriton": "{package}"}}'
    with pytest.raises(ServingError, match=said):
        environment.probe(_installed(tmp_path, about))


def test_one_that_can_serve_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = f'{{"python": "3.11", "numpy": "1.26.4", "onesearch": "1", "pytriton": "{_triton(tmp_path)}"}}'
    python = _installed(tmp_path, about)
    monkeypatch.setenv(environment.PYTHON_VARIABLE, str(python))
    found = environment.find()
    assert found.python == python and found.binary.name == "tritonserver" and found.stub.is_file()
    assert not environment.is_running(found)


def test_every_reason_is_told_when_none_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "candidates", lambda: [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ServingError) as caught:
        environment.find()
    assert str(tmp_path / "a") in str(caught.value) and str(tmp_path / "b") in str(caught.value)
