from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from onesearch.catalogue.applying import Applier
from onesearch.plugins import load_plugins
from onesearch.releases.release import Release


@pytest.fixture(scope="session")
def toy_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A release of the toy parts: 400 items, generation 7."""
    path = Path(__file__).parents[2] / "toy" / "toy_release.py"
    spec = importlib.util.spec_from_file_location("toy_release", path)
    assert spec is not None and spec.loader is not None
    toy, folder = importlib.util.module_from_spec(spec), tmp_path_factory.mktemp("toy")
    spec.loader.exec_module(toy)
    load_plugins()  # what others find afterwards is without the toy
    with toy.installed(folder / "site") as plugins:
        yield toy.write(folder / "releases", plugins)


@pytest.fixture
def applier(toy_release: Release, tmp_path: Path) -> Applier:
    return Applier(tmp_path / "live", toy_release)
