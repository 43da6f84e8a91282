from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.errors import ArtifactError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex
from onesearch.releases.release import Release
from onesearch.serving.catalogue import ItemTable


def test_the_lean_table_has_the_rows_of_the_index(toy_release: Release) -> None:
    table = ItemTable.load(toy_release.path / "index")
    index = toy_release.index
    assert len(table) == len(index) and table.generation == index.generation == 7
    row = table.rows([5, 3])[1]
    assert (
        row.item_id == "i3" and row.sid == tuple(index.sids[3]) and row.category == ("home", row.category[1])
    )
    assert table.number("i3") == 3 and table.number("x") is None and table.rows([]) == []
    assert table.rows([0])[0].price is None  # item 0 has none


def test_nulls_become_what_the_protocol_can_say() -> None:
    items = pl.DataFrame(
        {
            "item_id": ["a"],
            "title": ["t"],
            "category": [None],
            "brand": [None],
            "price": [None],
            "in_stock": [None],
        },
        schema_overrides={
            "category": pl.List(pl.String),
            "brand": pl.String,
            "price": pl.Float64,
            "in_stock": pl.Boolean,
        },
    ).select(ITEM_COLUMNS)
    row = ItemTable(items, np.zeros((1, 2), np.int32), np.ones(1, np.float32), 0).rows([0])[0]
    assert (row.category, row.brand, row.price, row.in_stock) == ((), "", None, True)


@pytest.mark.parametrize("name", ["index.json", "items.parquet", "arrays.safetensors"])
def test_a_broken_file_is_named(toy_release: Release, tmp_path: Path, name: str) -> None:
    toy_release.index.save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        ItemTable.load(tmp_path)
    with pytest.raises(ArtifactError):
        CatalogueIndex.load(tmp_path)


def test_the_arrays_of_an_index_stay_in_their_file(toy_release: Release) -> None:
    """So that the processes of a server share them; the tree is built only where it is asked for."""
    opened = CatalogueIndex.load(toy_release.path / "index")
    assert (
        "live" not in vars(opened) and not opened.vectors.flags.owndata and not opened.vectors.flags.writeable
    )
    assert opened.vectors.dtype == np.float16 and opened.sids.dtype == np.int32
    assert opened.live is opened.live and opened.live.tree.leaf_items.size == len(opened)


def test_an_empty_index_comes_back(tmp_path: Path) -> None:
    kinds = (pl.String, pl.String, pl.List(pl.String), pl.String, pl.Float64, pl.Boolean)
    items = pl.DataFrame(schema=dict(zip(ITEM_COLUMNS, kinds, strict=True)))
    empty = CatalogueIndex.build(items, np.zeros((0, 2)), np.zeros((0, 4)), np.zeros(0), (8, 8))
    empty.save(tmp_path)
    opened = CatalogueIndex.load(tmp_path)
    assert len(opened) == 0 and opened.sids.shape == (0, 2) and opened.live.tree.leaf_count == 0
