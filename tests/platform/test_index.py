"""The catalogue index: filters, live trees, and the way to disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import CatalogueIndex, Filters

LEVELS = (3, 2, 2)
ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "title": ["red lamp", "blue lamp", "红色 台灯", "oak chair", "pine chair"],
        "category": [["home", "lamps"], ["home", "lamps"], ["home", "lamps"], ["home", "chairs"], []],
        "brand": ["Lux", "lux", None, "Oaky", "Pine"],
        "price": [10.0, 20.0, None, 40.0, 50.0],
        "in_stock": [True, False, True, True, True],
    }
)
SIDS = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 1], [2, 0, 1], [2, 1, 0]])
POPULARITY = np.array([1.0, 3.0, 2.0, 4.0, 5.0])


@pytest.fixture
def index() -> CatalogueIndex:
    vectors = np.eye(5, 8, dtype=np.float32)
    return CatalogueIndex.build(ITEMS, SIDS, vectors, POPULARITY, LEVELS, generation=9)


FILTERS = [
    (Filters(), "abcde"),
    (Filters(category=("lamps",)), "abc"),
    (Filters(category=("chairs", "lamps")), "abcd"),
    (Filters(category=("nothing",)), ""),
    (Filters(brands=("LUX",)), "ab"),
    (Filters(min_price=20.0), "bde"),
    (Filters(max_price=40.0), "abd"),
    (Filters(min_price=20.0, max_price=20.0), "b"),
    (Filters(in_stock=True), "acde"),
    (Filters(category=("home",), in_stock=True, max_price=15.0), "a"),
]


@pytest.mark.parametrize(("filters", "passing"), FILTERS)
def test_filters(index: CatalogueIndex, filters: Filters, passing: str) -> None:
    mask = index.passing(filters)
    assert mask.dtype == np.bool_
    assert "".join(ITEMS["item_id"].filter(pl.Series(mask)).to_list()) == passing
    assert bool(filters) == (filters != Filters())


def test_upside_down_prices(index: CatalogueIndex) -> None:
    with pytest.raises(UsageError, match=r"min_price 2.0 is above max_price 1.0"):
        index.passing(Filters(min_price=2.0, max_price=1.0))


def test_live_arrays(index: CatalogueIndex) -> None:
    first, second, third = index.live.log_mass
    assert np.allclose(np.exp(first), [1 + 3 + 2, 4 + 5], rtol=1e-3)
    assert np.allclose(np.exp(second), [1 + 3, 2, 4, 5], rtol=1e-3)
    assert np.allclose(np.exp(third), [1 + 3, 2, 4, 5], rtol=1e-3)
    assert np.allclose(index.live.vectors[0][0], np.array([1, 1, 1, 0, 0, 0, 0, 0]) / 3, atol=1e-3)
    assert index.live.vectors[2].dtype == np.float16
    assert index.live.generation == 9


def test_narrowed_tree(index: CatalogueIndex) -> None:
    assert index.tree_for(Filters()) is index.live
    live = index.tree_for(Filters(brands=("lux",)))
    assert np.allclose(np.exp(live.log_mass[0]), [4.0, 0.0], rtol=1e-3)
    assert np.isneginf(live.log_mass[2][1:]).all()


def test_expand_orders_items_of_a_leaf_by_popularity(index: CatalogueIndex) -> None:
    leaves = np.array([[0, 3, -1], [2, -1, -1], [-1, -1, -1]])
    log_probs = np.array([[-1, -2, -np.inf], [-3, -np.inf, -np.inf], [-np.inf] * 3], dtype=np.float32)
    found = index.live.expand(leaves, log_probs)
    assert found.items.tolist() == [[1, 0, 4], [3, -1, -1], [-1, -1, -1]]
    assert found.log_probs.tolist() == [[-1, -1, -2], [-3, -np.inf, -np.inf], [-np.inf] * 3]
    assert (found.items.dtype, found.log_probs.dtype) == (np.int32, np.float32)
    assert index.live.expand(leaves, log_probs, limit=1).items.tolist() == [[1], [3], [-1]]
    in_stock = index.tree_for(Filters(in_stock=True))
    assert in_stock.expand(leaves, log_probs).items.tolist() == [[0, 4], [3, -1], [-1, -1]]


@given(st.lists(st.lists(st.integers(-1, 3), min_size=3, max_size=3), max_size=4))
def test_expand_against_brute_force(rows: list[list[int]]) -> None:
    index = CatalogueIndex.build(ITEMS, SIDS, np.eye(5, 8), POPULARITY, LEVELS)
    tree = index.live.tree
    leaves = np.array(rows, dtype=np.int32).reshape(-1, 3)
    found = index.live.expand(leaves, np.zeros(leaves.shape, np.float32))
    for row, items in zip(rows, found.items.tolist(), strict=True):
        wanted = [
            int(item)
            for leaf in row
            if leaf >= 0
            for item in tree.leaf_items[tree.leaf_first_item[leaf] : tree.leaf_first_item[leaf + 1]]
        ]
        assert [item for item in items if item >= 0] == wanted


def test_save_and_load(index: CatalogueIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    loaded = CatalogueIndex.load(tmp_path)
    assert loaded.items.equals(index.items)
    assert np.array_equal(loaded.sids, index.sids)
    assert loaded.live.generation == 9
    assert [loaded.number(item) for item in ("a", "e", "nobody")] == [0, 4, None]
    for mine, theirs in zip(index.live.log_mass, loaded.live.log_mass, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("file", ["index.json", "arrays.safetensors", "items.parquet"])
@pytest.mark.parametrize("damage", ["removed", "truncated", "garbage"])
def test_damaged_file_is_an_artifact_error(
    index: CatalogueIndex, tmp_path: Path, file: str, damage: str
) -> None:
    index.save(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if damage != "removed":
        (tmp_path / file).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"{]")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        CatalogueIndex.load(tmp_path)


def test_empty_catalogue() -> None:
    index = CatalogueIndex.build(ITEMS.clear(), np.zeros((0, 3)), np.zeros((0, 8)), np.zeros(0), LEVELS)
    assert len(index) == 0
    assert index.live.tree.leaf_count == 0
    assert index.tree_for(Filters(in_stock=True)).log_mass[0].shape == (0,)
