from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.data.schemas import brand_of, schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import ArtifactError
from onesearch_streaming.ingest.delta_log import DeltaLog
from onesearch_streaming.snapshot import snapshot

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(start: int, count: int) -> pl.DataFrame:
    rows = [
        {"event_id": f"e{at}", "ts": NOON, "user_id": "u", "scene": "search", "item_id": "i1",
         "action": "click", "source": "t/1/0", "source_offset": at}
        for at in range(start, start + count)
    ]  # fmt: skip
    types = {**schema("interactions"), "source": pl.String(), "source_offset": pl.Int64()}
    return pl.DataFrame(rows, schema=types)


@pytest.fixture
def base(tmp_path: Path) -> Store:
    items = pl.DataFrame(
        [{"item_id": f"i{at}", "title": f"Lamp {at}", "price": 5.0 + at} for at in range(4)],
        schema=schema("items"),
    ).with_columns(in_stock=pl.lit(True))
    with StoreWriter(tmp_path / "base", "toy", simulated=True, part_rows=3) as writer:
        writer.write("items", items)
        writer.write("interactions", events(0, 5).drop("source", "source_offset"))
        writer.note("simulation", {"seed": 1})
    return Store.open(tmp_path / "base")


def test_the_log_and_the_changes_of_a_moment(base: Store, tmp_path: Path) -> None:
    log = DeltaLog(tmp_path / "log")
    log.append(events(100, 3), {"t/1/0": 103})
    version = log.version
    log.append(events(103, 3), {"t/1/0": 106})
    changes = ChangeLog(tmp_path / "catalogue")
    changes.append(
        [
            Change("i1", "withdraw"),
            Change("i2", "patch", price=1.0, in_stock=False),
            Change("i9", title="Rug", category=("home",), brand="Wool & Co", price=9.0),
            Change("nothing", "patch", price=2.0),
        ]
    )
    made = snapshot(tmp_path / "log", version, base, tmp_path / "snapshot", changes)
    made.verify()
    found = made.interactions().collect()
    assert found["event_id"].to_list() == [f"e{at}" for at in (0, 1, 2, 3, 4, 100, 101, 102)]
    items = made.items()
    assert items["item_id"].to_list() == ["i0", "i2", "i3", "i9"]
    assert items["price"].to_list() == [5.0, 1.0, 8.0, 9.0]
    assert items["in_stock"].to_list() == [True, False, True, True]
    assert items.select(brand_of()).to_series().to_list() == [None, None, None, "Wool & Co"]
    assert made.simulated and made.extra("simulation") == {"seed": 1}
    assert made.extra("snapshot") == {"base": base.fingerprint(), "log_version": version}
    # The same moment gives the same bytes; the base's files are linked.
    again = snapshot(tmp_path / "log", version, base, tmp_path / "again", changes)
    assert again.fingerprint() == made.fingerprint()
    own, theirs = (
        store.path / store.manifest["data"] / store.manifest["tables"]["interactions"][0]["file"]
        for store in (base, made)
    )
    assert own.samefile(theirs)
    # Without changes the catalogue is the base's; a later version has more.
    later = snapshot(tmp_path / "log", log.version, base, tmp_path / "snapshot")
    assert later.count("interactions") == 11 and later.items().equals(base.items())
    base.verify()
    with pytest.raises(ArtifactError):
        snapshot(tmp_path / "log", 99, base, tmp_path / "snapshot")
    assert Store.open(tmp_path / "snapshot").fingerprint() == later.fingerprint()
