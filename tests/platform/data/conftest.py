"""Shared by the data room's tests: a small simulated store, and where the real sets lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from onesearch.data.demo.world import SIZES, Size
from onesearch.data.importers.demo import import_demo
from onesearch.data.importing import Report, run_import
from onesearch.data.store import Store

TINY = Size(items=2_600, shoppers=150, searches=2_400, feeds=900, judged=60)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the real sets; tests that ask for it are skipped where there is none."""
    folder = Path(__file__).parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A tiny simulated shop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", TINY)
        return run_import(
            "demo",
            lambda job: import_demo(job, "small"),
            tmp_path_factory.mktemp("demo") / "s",
            simulated=True,
        )


@pytest.fixture(scope="session")
def demo_store(demo: Report) -> Store:
    return demo.store


Lines = Callable[[str, Iterable[Any]], Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def lines(source: Path) -> Lines:
    """Writes rows (objects, or raw text) to ``<table>.jsonl`` in the source folder; returns the folder."""

    def write(table: str, rows: Iterable[Any]) -> Path:
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (source / f"{table}.jsonl").write_text(text + "\n", encoding="utf-8")
        return source

    return write
