"""Which studies an ablation runs, and what it says of one that is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from onesearch import _points
from onesearch.config import load_config
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import UsageError
from onesearch.evaluation import ablation


def study(store: Store, config: Any, work: Path, passes: int, progress: Any) -> list[dict[str, Any]]:
    return [{"part": work.name, "set": store.source, "passes": passes, "items": len(store.items())}]


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [SimpleNamespace(name=name, load=lambda: study) for name in ("museq", "khqe-tables")]
    monkeypatch.setattr(_points, "entry_points", lambda group: points if group == ablation.GROUP else ())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with StoreWriter(tmp_path / "store", "test") as writer:
        writer.write("items", pl.DataFrame({"item_id": ["a"], "title": ["oak desk"]}))
    return tmp_path / "store"


def test_all_or_those_named_run(store: Path) -> None:
    rows = ablation.run(store=store, passes=2)["rows"]
    assert [row["part"] for row in rows] == ["khqe-tables", "museq"]
    assert {(row["set"], row["passes"], row["items"]) for row in rows} == {("test", 2, 1)}
    assert [row["part"] for row in ablation.run(("museq",), store)["rows"]] == ["museq"]


def test_an_unknown_study_is_named_with_the_nearest(store: Path) -> None:
    with pytest.raises(UsageError, match="'khqe-table', did you mean 'khqe-tables'"):
        ablation.run(("khqe-table",), store)


def test_without_a_store_it_is_as_quick_as_the_demo() -> None:
    assert load_config(ablation.DEMO).component("generator")[1].model_dump()["size"] == "tiny"
