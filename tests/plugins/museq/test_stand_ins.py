from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.data.schemas import schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import ArtifactError
from onesearch.shoppers.state import item_keys
from onesearch_museq.stand_ins import StandIns

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_store(folder: Path, events: list[tuple[str, int, str, float]]) -> Store:
    """Events are query, item, action and days since the start."""
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(9)], "title": [f"thing {n}" for n in range(9)]})
    rows = [
        {
            "event_id": f"e{n}",
            "ts": START + timedelta(days=day),
            "user_id": "u",
            "session_id": "s",
            "request_id": f"r{n}",
            "scene": "search",
            "query": query,
            "item_id": f"i{item}",
            "action": action,
            "position": 0,
        }
        for n, (query, item, action, day) in enumerate(events)
    ]
    log = pl.DataFrame(rows, schema={k: v for k, v in schema("interactions").items() if k in rows[0]})
    judged = pl.DataFrame([("judged", "i1", 1.0)], schema=schema("relevance"), orient="row")
    with StoreWriter(folder, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", log)
        writer.write("relevance", judged)
    return Store.open(folder)


def names(found: np.ndarray) -> list[int]:
    keys = item_keys([f"i{n}" for n in range(9)]).tolist()
    return [keys.index(key) for key in found.tolist()]


def test_heaviest_first(tmp_path: Path) -> None:
    clicks = [("Red  Shirt", 3, "click", 1.0)] * 3 + [("red shirt", 5, "order", 1.0)] * 2
    more = [("red shirt", 7, "click", 1.0), ("red shirt", 8, "impression", 1.0), ("blue", 1, "click", 1.0)]
    table = StandIns.fit(a_store(tmp_path, [*clicks, *more]), 2, half_life_days=14)
    red, blue, shown = table.of(["RED shirt ", "blue", "never searched"])
    assert names(red) == [5, 3] and names(blue) == [1] and names(shown) == []


def test_what_is_old_weighs_less(tmp_path: Path) -> None:
    events = [("red", 3, "click", 0.0)] * 3 + [("red", 5, "click", 28.0)]
    store = a_store(tmp_path, events)
    assert names(StandIns.fit(store, 2, half_life_days=1_000).of(["red"])[0]) == [3, 5]
    assert names(StandIns.fit(store, 2, half_life_days=14).of(["red"])[0]) == [5, 3]


def test_the_first_of_equals(tmp_path: Path) -> None:
    table = StandIns.fit(a_store(tmp_path, [("red", n, "click", 0.0) for n in (6, 2, 4)]), 2, 14)
    assert names(table.of(["red"])[0]) == [2, 4]


def test_judgements_do_not_count(tmp_path: Path) -> None:
    table = StandIns.fit(a_store(tmp_path, [("red", 3, "click", 0.0)]), 4, 14)
    assert names(table.of(["judged"])[0]) == []


def test_a_log_without_clicks(tmp_path: Path) -> None:
    table = StandIns.fit(a_store(tmp_path / "store", [("red", 3, "impression", 0.0)]), 4, 14)
    assert [len(row) for row in table.of(["red", ""])] == [0, 0]
    table.save(tmp_path)
    assert StandIns.load(tmp_path).items.shape == (0, 4)


def test_saved_and_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = StandIns(
        np.sort(rng.integers(0, 2**63, 20, np.uint64)), rng.integers(0, 2**63, (20, 3), np.uint64)
    )
    table.save(tmp_path)
    loaded = StandIns.load(tmp_path)
    assert np.array_equal(loaded.queries, table.queries) and np.array_equal(loaded.items, table.items)
    assert loaded.items.dtype == np.uint64


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"stand_ins\.safetensors"):
        StandIns.load(tmp_path)
    (tmp_path / "stand_ins.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(ArtifactError, match=r"stand_ins\.safetensors"):
        StandIns.load(tmp_path)
