"""Trainings as runs of MLflow, on the real thing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.progress import SilentProgress
from onesearch.training.run import train
from onesearch.training.tracking import DATABASE, flat, numbers, record


def test_every_number_of_the_figures_is_a_metric() -> None:
    figures = {
        "NDCG@10": 0.5, "note": "words", "kept": True, "deep": {"auc": 1},
        "curve": [{"step": 10, "loss": 2.0}, {"step": 20, "loss": None}], "epochs": [{"epoch": 3, "nll": 1}],
        "levels": [1, 2],
    }  # fmt: skip
    assert list(numbers("s", figures)) == [
        ("s/NDCG_at_10", 0.5, 0), ("s/deep/auc", 1.0, 0), ("s/curve/loss", 2.0, 10), ("s/epochs/nll", 1.0, 3),
    ]  # fmt: skip


def test_settings_have_dotted_names() -> None:
    assert dict(flat({"a": {"b": {"c": 1}, "d": [2]}})) == {"a.b.c": 1, "a.d": [2]}


def test_a_training_is_a_run(logged: Store, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    config = parse_config(toy.toml().replace("enabled = false", "enabled = true"), plugins=toy.plugins)
    trained = train(logged, tmp_path, "one", config, SilentProgress())
    run = record(trained, config, tmp_path, SilentProgress())
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / DATABASE}")
    found = client.get_run(run)
    assert found.info.run_name == "one" and found.info.status == "FINISHED"
    assert found.data.tags["onesearch.content"] == trained.release.manifest.content_hash()
    assert found.data.params["training.reward_beams"] == "16"
    assert found.data.metrics["lists/searches/searches"] == 20 and found.data.metrics["tokenizer/icr"] == 0.5
    other = parse_config(toy.toml(), plugins=toy.plugins)
    assert record(trained, other, tmp_path, SilentProgress()) is None, "it is switched off"

    said: list[str] = []

    class Told(SilentProgress):
        def say(self, message: str) -> None:
            said.append(message)

    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    assert record(trained, config, tmp_path, Told()) is None
    assert "MLflow is not installed" in said[0]
