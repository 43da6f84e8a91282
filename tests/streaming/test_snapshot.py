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
from onesearch_streaming.snapshot import changed_items, derived

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(start: int, count: int) -> pl.DataFrame:
    rows = [
        {"event_id": f"e{at}", "ts": NOON, "user_id": "u", "scene": "search", "item_id": "i1",
         "action": "click"}
        for at in range(start, start + count)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema("interactions"))


@pytest.fixture
def base(tmp_path: Path) -> Store:
    items = pl.DataFrame(
        [{"item_id": f"i{at}", "title": f"Lamp {at}", "price": 5.0 + at} for at in range(4)],
        schema=schema("items"),
    ).with_columns(in_stock=pl.lit(True))
    with StoreWriter(tmp_path / "base", "toy", simulated=True, part_rows=3) as writer:
        writer.write("items", items)
        writer.write("interactions", events(0, 5))
        writer.note("simulation", {"seed": 1})
    return Store.open(tmp_path / "base")


def test_a_store_after_the_changes_of_a_catalogue(base: Store, tmp_path: Path) -> None:
    changes = ChangeLog(tmp_path / "catalogue")
    changes.append(
        [
            Change("i1", "withdraw"),
            Change("i2", "patch", price=1.0, in_stock=False),
            Change("i9", title="Rug", category=("home",), brand="Wool & Co", price=9.0),
            Change("nothing", "patch", price=2.0),
        ]
    )
    items = changed_items(base.items(), changes.since(0)[0])
    assert items["item_id"].to_list() == ["i0", "i2", "i3", "i9"]
    assert items["price"].to_list() == [5.0, 1.0, 8.0, 9.0]
    assert items["in_stock"].to_list() == [True, False, True, True]
    assert items.select(brand_of()).to_series().to_list() == [None, None, None, "Wool & Co"]
    assert changed_items(base.items(), {}).equals(base.items())
    made = derived(base, tmp_path / "made", {"night": {"of": 1}}, replaced={"items": items})
    made.verify()
    assert made.items().equals(items)
    assert made.simulated and made.extra("simulation") == {"seed": 1} and made.extra("night") == {"of": 1}
    # The same moment gives the same bytes; files that stay are linked.
    again = derived(base, tmp_path / "again", {}, replaced={"items": items})
    assert again.fingerprint() == made.fingerprint() != base.fingerprint()
    own, theirs = (
        store.path / store.manifest["data"] / store.manifest["tables"]["interactions"][0]["file"]
        for store in (base, made)
    )
    assert own.samefile(theirs)
    more = derived(base, tmp_path / "more", {}, added={"interactions": events(100, 3)})
    assert more.interactions().collect()["event_id"].to_list() == [
        f"e{at}" for at in (0, 1, 2, 3, 4, 100, 101, 102)
    ]
