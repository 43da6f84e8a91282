"""A small shop with attributes, clicks and orders, and settings that fit in seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch_khqe.config import KhqeConfig

COLOURS = ("red", "blue", "green", "white", "black", "grey")
THINGS = ("lamp", "chair", "table", "rug", "shelf", "sofa", "desk", "mirror")
QUICK: dict[str, Any] = {
    "dim": 32,
    "buckets": 4096,
    "alignment": {"epochs": 2, "batch": 64, "pseudo_queries": 2000, "max_steps": 12},
}


def shop(count: int = 300, attributes: bool = True) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count):
        colour, thing = str(rng.choice(COLOURS)), str(rng.choice(THINGS))
        # Every tenth item has the title of the one before: items that only a collision-aware SID tells apart.
        title = f"Maker{number % 5} {colour} {thing} model {number - (number % 10 == 9)}"
        if number % 10 == 9:
            title = rows[-1]["title"]
        kinds = [
            {"type": "Brand", "value": f"Maker{number % 5}"},
            {"type": "Color", "value": colour},
            {"type": "Entity", "value": thing},
        ]
        rows.append(
            {
                "item_id": f"i{number}",
                "title": title,
                "category": ["home", thing],
                "attributes": kinds if attributes and number % 10 != 9 else [],
                "in_stock": True,
            }
        )
    attributes_type = pl.List(pl.Struct({"type": pl.String(), "value": pl.String()}))
    return pl.DataFrame(rows, schema_overrides={"attributes": attributes_type})


def searches(items: pl.DataFrame, count: int = 900) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    titles, ids = items["title"].to_list(), items["item_id"].to_list()
    rows = []
    for number in range(count):
        at = int(rng.integers(len(ids)))
        words = titles[at].split(" ")
        query = " ".join(words[1:3]) if number % 2 else f"{words[2]} {words[4]}"
        for action in ("impression", "click", "order")[: 1 + int(rng.integers(3))]:
            rows.append(
                {
                    "event_id": f"{number}-{action}",
                    "ts": datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=number),
                    "user_id": f"u{number % 9}",
                    "scene": "search",
                    "query": query,
                    "item_id": ids[at],
                    "action": action,
                }
            )
    return pl.DataFrame(rows)


def judgements(items: pl.DataFrame) -> pl.DataFrame:
    rng = np.random.default_rng(9)
    rows = []
    for number, title in enumerate(items["title"].to_list()):
        words = title.split(" ")
        query = f"{words[1]} {words[2]} {words[4]}"
        rows.append({"query": query, "item_id": f"i{number}", "grade": 1.0})
        rows.append({"query": query, "item_id": f"i{int(rng.integers(len(items)))}", "grade": 0.3})
    return pl.DataFrame(rows).with_columns(pl.col("grade").cast(pl.Float32))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("khqe-store")
    items = shop()
    with StoreWriter(path, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", searches(items))
        writer.write("relevance", judgements(items))
    return Store.open(path)


@pytest.fixture
def quick() -> KhqeConfig:
    return KhqeConfig.model_validate(QUICK)


@pytest.fixture(scope="session")
def fitted(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A learner fitted with the quick settings, and its work folder."""
    from onesearch.progress import SilentProgress
    from onesearch_khqe.learner import KhqeLearner

    work: Path = tmp_path_factory.mktemp("khqe-work")
    learner = KhqeLearner(KhqeConfig.model_validate(QUICK))
    learner.fit(store, work, SilentProgress())
    return learner, work
