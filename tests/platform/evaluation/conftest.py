from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from onesearch.data.schemas import schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.releases.release import Release


def _toy() -> ModuleType:
    path = Path(__file__).parents[2] / "toy" / "toy_release.py"
    spec = importlib.util.spec_from_file_location("toy_release", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    return _toy()


@pytest.fixture(scope="session")
def release(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("evaluated")
    with toy.installed(folder / "site") as plugins:
        yield toy.write(folder / "releases", plugins, serving="beams = 400")


@pytest.fixture(scope="session")
def store(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The toy's catalogue with ten days of orders: for each query one item is bought most."""
    rng = np.random.default_rng(0)
    items = toy.items().with_columns(
        attributes=pl.lit([], dtype=schema("items")["attributes"]),
        **{name: pl.lit(None, pl.String) for name in ("detail_text", "ocr_text", "image_uri")},
    )
    orders = []
    for colour in toy.COLOURS:
        for thing in toy.THINGS:
            named = pl.col("title").str.contains(f"^{colour} .* {thing} ")
            fitting = items.filter(named)["item_id"].to_list()
            for at in range(40 if fitting else 0):
                orders.append(
                    {
                        "event_id": f"{colour}-{thing}-{at}",
                        "ts": datetime(2024, 5, 1, tzinfo=UTC) + timedelta(hours=6 * at),
                        "user_id": f"u{at % 5}",
                        "scene": "search",
                        "query": f"{colour} {thing}",
                        "item_id": fitting[0] if at % 2 else str(rng.choice(fitting)),
                        "action": "order",
                    }
                )
    path = tmp_path_factory.mktemp("stores") / "toy"
    with StoreWriter(path, "toy") as writer:
        writer.write("items", items.select(*schema("items")))
        frame = pl.DataFrame(orders, schema_overrides={"ts": pl.Datetime("us", "UTC")})
        absent = [name for name in schema("interactions") if name not in frame.columns]
        frame = frame.with_columns(pl.lit(None, schema("interactions")[name]).alias(name) for name in absent)
        writer.write("interactions", frame.select(*schema("interactions")))
    return Store.open(path)


@pytest.fixture(scope="session")
def searches(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A query file like H&M's, drawn from the store's own orders."""
    path = tmp_path_factory.mktemp("searches") / "hm.parquet"
    orders = store.interactions().select("user_id", "query", article_id="item_id").collect()
    orders.sample(80, seed=3).write_parquet(path)
    return path
