from __future__ import annotations

import importlib.util
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.progress import SilentProgress
from onesearch.releases.registry import Registry
from onesearch.training.run import train
from onesearch_streaming.nightly.delta import append_to_log

TRAINING = Path(__file__).parents[2] / "platform" / "training" / "conftest.py"
spec = importlib.util.spec_from_file_location("training_conftest", TRAINING)
assert spec is not None and spec.loader is not None
shared = importlib.util.module_from_spec(spec)
sys.modules["training_conftest"] = shared
spec.loader.exec_module(shared)
toy = shared.toy

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
PLACES = 6


def day_of_events(items: pl.DataFrame, number: int, searches: int = 120, seed: int = 0) -> pl.DataFrame:
    """Searches like "red lamp": six items each, the first seen best; some are clicked, some of those
    ordered."""
    rng = np.random.default_rng([seed, number])
    groups = (
        items.select("item_id", pl.col("title").str.split(" ").list.slice(0, 2).list.join(" ").alias("query"))
        .group_by("query", maintain_order=True)
        .agg("item_id")
        .filter(pl.col("item_id").list.len() > 1)
        .rows()
    )
    rows = []
    for search in range(searches):
        query, found = groups[int(rng.integers(len(groups)))]
        moment = FIRST + timedelta(days=number, seconds=int(rng.integers(80_000)))
        request, user = f"r{seed}-{number}-{search}", f"u{int(rng.integers(40))}"
        shown = [str(item) for item in rng.permutation(found)[:PLACES]]
        likes = rng.random(len(shown)) < 0.35 * (1.0 + np.arange(len(shown))) ** -0.65
        for place, item in enumerate(shown):
            acts = ["impression"]
            acts += ["click"] if likes[place] else []
            acts += ["order"] if likes[place] and rng.random() < 0.3 else []
            for at, action in enumerate(acts):
                rows.append(
                    {
                        "event_id": f"{request}-{place}-{action}",
                        "ts": moment + timedelta(seconds=at * 10),
                        "user_id": user,
                        "session_id": request,
                        "request_id": request,
                        "scene": "search",
                        "query": query,
                        "item_id": item,
                        "action": action,
                        "position": place,
                        "propensity": 1.0,
                        "release": "first",
                    }
                )
    return pl.DataFrame(rows).with_columns(pl.col("position").cast(pl.Int32))


class Shop:
    """A small shop: a base store of eight days, a Delta log of the days after, a champion."""

    def __init__(self, folder: Path, toy) -> None:
        self.folder, self.toy = folder, toy
        self.store, self.log, self.releases = folder / "store", folder / "log", folder / "releases"
        self.items = shared.catalogue(240).with_columns(price=pl.lit(10.0) + pl.int_range(pl.len()))

    def write_store(self, items: pl.DataFrame) -> None:
        with StoreWriter(self.store, "test") as writer:
            writer.write("items", items)
            for number in range(8):
                writer.write("interactions", day_of_events(self.items, number))

    def append(self, number: int, **given: int) -> None:
        append_to_log(self.log, day_of_events(self.items, number, **given))

    def first(self) -> None:
        train(Store.open(self.store), self.releases, "first", self.toy.config(), SilentProgress())
        Registry(self.releases).promote("first")


def _with_toys(patch: pytest.MonkeyPatch, toy) -> None:
    patch.setattr("onesearch.plugins.load_plugins", lambda: toy.plugins)
    patch.setattr("onesearch.releases.release.load_plugins", lambda: toy.plugins)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, toy) -> Shop:
    """A shop whose first release is trained; tests take copies of it."""
    with pytest.MonkeyPatch.context() as patch:
        _with_toys(patch, toy)
        made = Shop(tmp_path_factory.mktemp("begun"), toy)
        made.write_store(made.items)
        made.first()
    return made


@pytest.fixture
def shop(tmp_path: Path, begun: Shop, toy, monkeypatch: pytest.MonkeyPatch) -> Shop:
    _with_toys(monkeypatch, toy)
    made = Shop(tmp_path, toy)
    shutil.copytree(begun.store, made.store)
    shutil.copytree(begun.releases, made.releases)
    return made
