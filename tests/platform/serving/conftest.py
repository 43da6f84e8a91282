from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline


def _toy() -> ModuleType:
    path = Path(__file__).parents[2] / "toy" / "toy_release.py"
    spec = importlib.util.spec_from_file_location("toy_release", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    toy, folder = _toy(), tmp_path_factory.mktemp("toy")
    with toy.installed(folder / "site") as plugins:
        yield toy.write(folder / "releases", plugins)


@pytest.fixture(scope="session")
def pipeline(toy_release: Release) -> Pipeline:
    return Pipeline.of_release(toy_release)
