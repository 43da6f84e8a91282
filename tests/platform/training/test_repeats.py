"""The parts in the box: the same inputs give the same bytes, from nothing and from a release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onesearch._toml import write_toml
from onesearch.config import Config, load_config, parse_config
from onesearch.data.store import Store
from onesearch.plugins import load_plugins
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.training.run import Trained, train

KL = ("kl", "kl_origin")
PARTS = {"tokenizer": "khqe", "user_encoder": "museq", "generator": "seq2seq", "reward": "pars"}


@pytest.fixture(scope="module")
def config() -> Config:
    plugins, tables = load_plugins(), {}
    for role, name in PARTS.items():
        tables[role] = {"name": name}
        threads = {"threads": 1} if role == "generator" else {}
        tables[f"{role}.{name}"] = {**plugins.offer(role, name).quick, **threads}  # type: ignore[arg-type]
    tables["training"] = {
        "vocabulary_size": 600, "reward_queries": 60, "reward_beams": 16, "preference_lists": 40,
        "preference_beams": 16, "judged_searches": 30, "keep_worse": True,
    }  # fmt: skip
    return parse_config(_toml(tables))


def _toml(tables: dict[str, dict[str, object]]) -> str:
    return write_toml(tables)


@pytest.fixture(scope="module")
def base(logged: Store, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(logged, tmp_path_factory.mktemp("base"), "base", config, SilentProgress())


def hashes(release: Release) -> dict[str, str]:
    files = release.manifest.files
    return {path: entry.sha256 for path, entry in files.items() if not path.startswith("reports/")}


def test_a_night_twice_is_the_same_release(
    logged: Store, config: Config, base: Trained, tmp_path: Path
) -> None:
    nights = [
        train(logged, tmp_path / which, "night", config, SilentProgress(), start_from=base.release)
        for which in "AB"
    ]
    one, other = (hashes(night.release) for night in nights)
    assert [path for path in one if one[path] != other.get(path)] == [] and len(one) == len(other)
    assert nights[0].release.manifest.content_hash() == nights[1].release.manifest.content_hash()
    before = hashes(base.release)
    moved = {path.split("/")[0] for path in one if one[path] != before.get(path)}
    assert "generator" in moved and not {"tokenizer", "vocabulary", "index"} & moved
    figures = {report.stage: report.figures for report in nights[0].stages}
    assert figures["phase_1"]["kept"] and figures["phase_2"]["kept"]
    assert all(np.isfinite(figures[phase][name]) for phase in ("phase_1", "phase_2") for name in KL)
    assert load_config(nights[0].release.path / "config.toml").dump() == config.dump()
