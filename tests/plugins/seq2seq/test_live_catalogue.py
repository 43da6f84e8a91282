"""Filters and changes together, under both engines: what is left is found, whatever the width."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from onesearch.index import CatalogueIndex, Changes, Filters

LEVELS = (6, 5, 4)
CERTAIN = 1e-5


@pytest.fixture(scope="module")
def index(world):
    return world.make_index(world.random_sids(LEVELS, 60, 4), LEVELS)


@pytest.fixture(scope="module", params=["native", "onnx"])
def server(request, network, index):
    return network(LEVELS).server("fp32", index, request.param)


@pytest.fixture(scope="module")
def ask(make_prompt, world):
    query = np.random.default_rng(0).normal(size=(1, world.dim)).astype(np.float32)
    return make_prompt([[1, 2, 3]]), query


def _only(number: int) -> Filters:
    """The world's items cost what their number is."""
    return Filters(min_price=number, max_price=number)


def _found(server, index: CatalogueIndex, ask, filters: Filters, beams: int) -> list[int]:
    tree = index.tree_for(filters)
    result = server.search(*ask, tree, beams)
    items = tree.expand(result.leaves, result.log_probs).items[0]
    return [int(item) for item in items if item >= 0]


def _after(index: CatalogueIndex, sid: np.ndarray, price: float, withdrawn: list[str]) -> CatalogueIndex:
    """The next generation: an item more, and some less."""
    number = len(index)
    row = index.items[:1].with_columns(item_id=pl.lit(f"new {number}"), price=pl.lit(price))
    changes = Changes(row, sid[None], index.vectors[:1], np.ones(1, np.float32), withdrawn)
    return index.following(changes, index.generation + 1)


@pytest.mark.parametrize("beams", [1, 2, 7, 200])
def test_a_filter_that_leaves_one_item_finds_it(server, index, ask, beams):
    for number in range(len(index)):
        tree = index.tree_for(_only(number))
        result = server.search(*ask, tree, beams)
        assert _found(server, index, ask, _only(number), beams) == [number]
        # Nothing else was possible: it is certain.
        assert result.log_probs[0, 0] == pytest.approx(0, abs=CERTAIN) and result.dropped[0] == -np.inf


@pytest.mark.parametrize("beams", [1, 40])
def test_while_the_catalogue_changes(server, index, ask, beams):
    """Items come and go between searches, and every generation goes on being right."""
    random = np.random.default_rng(3)
    known = [index]
    for step in range(12):
        last = known[-1]
        sid = np.array([random.integers(0, size) for size in LEVELS], np.int32)
        gone = str(last.items["item_id"][int(random.integers(0, 60))])
        known.append(_after(last, sid, 1000.0 + step, [gone]))
        new, number = known[-1], len(index) + step
        assert _found(server, new, ask, _only(1000 + step), beams) == [number]
        assert _found(server, last, ask, _only(1000 + step), beams) == []
        left = last.number(gone)
        if left is not None:
            assert _found(server, new, ask, _only(left), beams) == []
            assert _found(server, last, ask, _only(left), beams) == [left]
    everything = _found(server, known[-1], ask, Filters(), 1_000)
    assert sorted(everything) == np.flatnonzero(known[-1].alive).tolist()


def test_nothing_left_is_an_empty_answer(server, index, ask):
    ids = index.items["item_id"].to_list()
    nothing = Changes(index.items.clear(), *(array[:0] for array in (index.sids, index.vectors)),
                      np.zeros(0, np.float32), ids)  # fmt: skip
    empty = index.following(nothing, index.generation + 1)
    for filters in (Filters(), Filters(in_stock=True)):
        assert _found(server, empty, ask, filters, 5) == []
    one = _after(empty, index.sids[5], 7.0, [])
    assert _found(server, one, ask, Filters(), 1) == [len(index)]
