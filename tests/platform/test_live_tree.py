"""A tree that follows a changing catalogue is the tree that would be built from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch import live_tree
from onesearch.errors import UsageError
from onesearch.index import CatalogueIndex, Changes, Filters
from onesearch.lean_vectors import CODES, CodeGuide, widths
from onesearch.live_tree import LiveTree

LEVELS = (4, 2, 3)
DIM = 3


@dataclass
class Row:
    """What a catalogue knows of an item."""

    sid: tuple[int, ...]
    vector: tuple[float, ...]
    popularity: float
    price: float


@dataclass
class Model:
    """The catalogue as a dictionary: what every index must agree with."""

    rows: dict[str, Row] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    guide: CodeGuide | None = None

    def index(self, generation: int) -> CatalogueIndex:
        """Built from scratch."""
        rows = list(self.rows.values())
        index = CatalogueIndex.build(
            table(self.rows),
            np.array([row.sid for row in rows], np.int32).reshape(-1, len(LEVELS)),
            np.array([row.vector for row in rows], np.float16).reshape(-1, DIM),
            np.array([row.popularity for row in rows]),
            LEVELS,
            generation,
            np.array([item not in self.dead for item in self.rows], bool),
        )
        return index if self.guide is None else index.guided_by(self.guide)


def table(rows: dict[str, Row]) -> pl.DataFrame:
    columns = {
        "item_id": list(rows),
        "title": [f"title of {item}" for item in rows],
        "category": [["all"] for _ in rows],
        "brand": [None for _ in rows],
        "price": [row.price for row in rows.values()],
        "in_stock": [True for _ in rows],
    }
    types = {"item_id": pl.String, "title": pl.String, "category": pl.List(pl.String), "brand": pl.String}
    return pl.DataFrame(columns, schema={**types, "price": pl.Float64, "in_stock": pl.Boolean})


def changes(rows: dict[str, Row], withdrawn: list[str]) -> Changes:
    values = list(rows.values())
    return Changes(
        table(rows),
        np.array([row.sid for row in values], np.int32).reshape(-1, len(LEVELS)),
        np.array([row.vector for row in values], np.float16).reshape(-1, DIM),
        np.array([row.popularity for row in values], np.float32),
        withdrawn,
    )


def same_tree(one: LiveTree, other: LiveTree) -> None:
    """Equal to the last bit."""
    lean = zip(one.remainders, other.remainders, strict=True)
    pairs = [
        *zip(one.tree.first_child, other.tree.first_child, strict=True),
        *zip(one.tree.code, other.tree.code, strict=True),
        *zip(one.log_mass, other.log_mass, strict=True),
        *zip(one.vectors, other.vectors, strict=True),
        (one.tree.leaf_first_item, other.tree.leaf_first_item),
        (one.tree.leaf_items, other.tree.leaf_items),
        *(pair for mine, theirs in lean for pair in zip(mine.arrays, theirs.arrays, strict=True)),
    ]
    for mine, theirs in pairs:
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)


IDS = st.sampled_from([f"item {number}" for number in range(12)])
ROWS = st.builds(
    Row,
    sid=st.tuples(*(st.integers(0, size - 1) for size in LEVELS)),
    vector=st.tuples(*(st.sampled_from([-1.5, 0.0, 0.3, 1.0]) for _ in range(DIM))),
    popularity=st.sampled_from([1.0, 2.0, 5.0]),
    price=st.sampled_from([1.0, 2.0, 3.0]),
)
STEPS = st.lists(st.tuples(st.dictionaries(IDS, ROWS, max_size=6), st.sets(IDS, max_size=6)), max_size=8)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("sort_all", [0.1, 1e9])
@given(st.dictionaries(IDS, ROWS, max_size=12), STEPS)
@settings(max_examples=75, deadline=None)
def test_any_changes_end_in_the_tree_built_from_scratch(
    lean: bool, sort_all: float, start: dict[str, Row], steps: list[tuple[dict[str, Row], set[str]]]
) -> None:
    """However many items it takes to sort anew, with vectors of nodes and without."""
    guide = some_guide() if lean else None
    with mock.patch.object(live_tree, "_SORT_ALL", sort_all), mock.patch.object(live_tree, "_AT_ONCE", 3):
        _follow(start, steps, guide)


def some_guide() -> CodeGuide:
    """Random centroids and books."""
    random = np.random.default_rng(0)
    centroids = tuple(random.normal(size=(size, DIM)).astype(np.float16) for size in LEVELS)
    books = tuple(random.normal(size=(1, CODES, width)).astype(np.float16) for width in widths(DIM))
    return CodeGuide(centroids, books)


def _follow(
    start: dict[str, Row], steps: list[tuple[dict[str, Row], set[str]]], guide: CodeGuide | None
) -> None:
    model = Model(dict(start), guide=guide)
    index = model.index(0)
    numbers: dict[str, int] = {}
    for generation, (put, gone) in enumerate(steps, start=1):
        withdrawn = sorted(gone - set(put))
        index = index.following(changes(put, withdrawn), generation)
        model.rows |= put
        model.dead = (model.dead | (set(withdrawn) & set(model.rows))) - set(put)
        scratch = model.index(generation)
        same_tree(index.live, scratch.live)
        assert index.items.equals(scratch.items) and index.live.generation == generation
        for item in model.rows:
            here = index.number(item)
            assert here == (None if item in model.dead else list(model.rows).index(item))
            if here is not None:
                assert numbers.setdefault(item, here) == here, "an item's number changed"
        assert all(map(np.array_equal, index.keys, scratch.keys))
        cheap = index.tree_for(Filters(max_price=1.0))
        passing = scratch.passing(Filters(max_price=1.0))
        assert np.array_equal(cheap.item_alive, passing)
        assert index.live_count == len(model.rows) - len(model.dead)


def _many(count: int) -> Model:
    random = np.random.default_rng(0)
    sids = np.stack([random.integers(0, size, count) for size in LEVELS], axis=1)
    vectors = random.normal(size=(count, DIM)).astype(np.float16)
    popularity = random.integers(1, 4, count)
    return Model(
        {
            f"item {at}": Row(tuple(sid), tuple(vector), float(weight), 1.0)
            for at, (sid, vector, weight) in enumerate(
                zip(sids.tolist(), vectors.tolist(), popularity.tolist(), strict=True)
            )
        }
    )


def test_a_few_changes_in_a_large_catalogue() -> None:
    """The way that touches little: what nothing changed in is the very same array."""
    model = _many(400)
    index = model.index(0)
    prices = {f"item {at}": Row(**{**vars(model.rows[f"item {at}"]), "price": 9.0}) for at in (3, 5)}
    cheaper = index.following(changes(prices, []), 1)
    assert cheaper.sids is index.sids and cheaper.vectors is index.vectors
    assert cheaper.live.tree is index.live.tree and cheaper.live.vectors is index.live.vectors
    assert cheaper.items["price"].to_list()[:7] == [1.0, 1.0, 1.0, 9.0, 1.0, 9.0, 1.0]

    dearer = {item: Row(**{**vars(row), "popularity": 7.0}) for item, row in prices.items()}
    weighed = cheaper.following(changes(dearer, []), 2)
    assert weighed.live.vectors is index.live.vectors
    model.rows |= dearer
    same_tree(weighed.live, model.index(2).live)

    new = {"another": Row((1, 1, 2), (1.0, 0.0, 0.0), 2.0, 1.0)}
    grown = weighed.following(changes(new, ["item 7"]), 3)
    model.rows |= new
    model.dead = {"item 7"}
    same_tree(grown.live, model.index(3).live)
    assert grown.number("another") == 400 and grown.number("item 7") is None


def test_what_cannot_be_followed_is_told() -> None:
    index = _many(3).index(0)
    row = Row((0, 0, 0), (0.0, 0.0, 0.0), 1.0, 1.0)
    with pytest.raises(UsageError, match="an item is named twice"):
        index.following(changes({"item 1": row}, ["item 1"]), 1)


def test_a_catalogue_may_become_empty_and_come_back() -> None:
    index = _many(3).index(0)
    empty = index.following(changes({}, ["item 0", "item 1", "item 2", "nobody"]), 1)
    assert empty.live_count == 0 and empty.live.tree.leaf_count == 0 and len(empty) == 3
    assert empty.tree_for(Filters(in_stock=True)).log_mass[0].shape == (0,)
    back = empty.following(changes({"item 1": Row((0, 0, 0), (1.0, 0.0, 0.0), 1.0, 1.0)}, []), 2)
    assert back.number("item 1") == 1 and back.live.tree.leaf_items.tolist() == [1]


def test_an_index_guided_by_codes_has_no_vectors_of_nodes() -> None:
    rows = {f"item {n}": Row((n % 3, n % 2, n % 3), (1.0,) * DIM, 1.0, 1.0) for n in range(6)}
    random = np.random.default_rng(0)
    guide = CodeGuide(tuple(random.normal(size=(size, DIM)).astype(np.float16) for size in LEVELS))
    index = Model(rows).index(1).guided_by(guide)
    assert index.live.by_code and [len(level) for level in index.live.vectors] == list(LEVELS)
    for level, codes in enumerate(index.live.tree.code):
        assert np.array_equal(index.live.node_vectors(level), guide.centroids[level][codes])
    grown = index.following(changes({"new": Row((2, 1, 0), (0.0,) * DIM, 2.0, 1.0)}, ["item 0"]), 2)
    scratch = CatalogueIndex.build(
        grown.items, grown.sids, grown.vectors, grown.popularity, LEVELS, 2, grown.alive
    )
    same_tree(grown.live, scratch.guided_by(guide).live)
    assert grown.live.by_code and grown.live.vectors is index.live.vectors
    assert set(index.live.bytes) == {"structure", "items", "mass", "vectors", "remainders"}
