"""SIDs as text, and the prefix tree against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onesearch.errors import UsageError
from onesearch.semantic_ids import PrefixTree, format_sid, parse_sid


def test_the_printed_form() -> None:
    assert format_sid((382, 104, 29, 5, 12)) == "<a_382><b_104><c_29><d_5><e_12>"
    assert parse_sid("<a_382><b_104><c_29><d_5><e_12>") == (382, 104, 29, 5, 12)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=26))
def test_text_round_trip(codes: list[int]) -> None:
    assert parse_sid(format_sid(codes)) == tuple(codes)


@pytest.mark.parametrize(
    "text",
    ["", "a_1", "<a_1", "<a_1>x", "x<a_1>", "<b_1>", "<a_1><c_2>", "<a_-1>", "<a_1> <b_2>", "<a_1><a_2>"],
)
def test_what_is_no_sid(text: str) -> None:
    with pytest.raises(UsageError, match="not a semantic ID"):
        parse_sid(text)


def test_too_many_levels() -> None:
    with pytest.raises(UsageError, match="at most 26 levels"):
        format_sid([1] * 27)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    levels = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    count = draw(st.integers(0, 30))
    sids = np.stack(
        [draw(hnp.arrays(np.int32, count, elements=st.integers(0, size - 1))) for size in levels], axis=1
    )
    return levels, sids, draw(hnp.arrays(np.float32, count, elements=st.integers(1, 9).map(float)))


@given(catalogues())
def test_tree_against_brute_force(catalogue: tuple[tuple[int, ...], np.ndarray, np.ndarray]) -> None:
    levels, sids, popularity = catalogue
    tree = PrefixTree.build(sids, levels, popularity)
    rows = [tuple(row) for row in sids.tolist()]
    for depth in range(1, len(levels) + 1):
        prefixes = sorted({row[:depth] for row in rows})
        assert tree.node_counts[depth - 1] == len(prefixes)
        for node, prefix in enumerate(prefixes):
            assert tree.find(prefix) == node
            parent = tree.find(prefix[:-1])
            low, high = tree.first_child[depth - 1][parent : parent + 2]
            assert low <= node < high
            assert tree.code[depth - 1][node] == prefix[-1]
    assert tree.find([-1]) == tree.find([levels[0]]) == -1
    leaves = sorted(set(rows))
    assert [tuple(row) for row in tree.leaf_sids().tolist()] == leaves
    for leaf, sid in enumerate(leaves):
        held = tree.leaf_items[tree.leaf_first_item[leaf] : tree.leaf_first_item[leaf + 1]].tolist()
        wanted = sorted((n for n, row in enumerate(rows) if row == sid), key=lambda n: (-popularity[n], n))
        assert held == wanted
    assert sorted(tree.leaf_items.tolist()) == list(range(len(rows)))


@given(catalogues(), st.data())
def test_find_leaves(catalogue: tuple[tuple[int, ...], np.ndarray, np.ndarray], data: st.DataObject) -> None:
    levels, sids, _ = catalogue
    tree = PrefixTree.build(sids, levels)
    asked = np.array(
        data.draw(st.lists(st.tuples(*(st.integers(0, size - 1) for size in levels)), max_size=20)),
        dtype=np.int32,
    ).reshape(-1, len(levels))
    leaves = [tuple(row) for row in tree.leaf_sids().tolist()]
    wanted = [leaves.index(row) if row in leaves else -1 for row in map(tuple, asked.tolist())]
    assert tree.find_leaves(asked).tolist() == wanted


def test_find_leaves_beyond_64_bits() -> None:
    levels = (4096,) * 6
    sids = np.array([[4095] * 6, [0] * 6, [4095, 0, 0, 0, 0, 1]])
    tree = PrefixTree.build(sids, levels)
    assert tree.find_leaves(sids).tolist() == [2, 0, 1]
    assert tree.find_leaves(sids - [[0, 0, 0, 0, 0, 1]] * 3)[[0, 2]].tolist() == [-1, -1]


@given(catalogues())
def test_sums_and_ancestors(catalogue: tuple[tuple[int, ...], np.ndarray, np.ndarray]) -> None:
    levels, sids, _ = catalogue
    tree = PrefixTree.build(sids, levels)
    if not tree.leaf_count:
        return
    values = np.arange(1.0, tree.leaf_count + 1)
    leaves = tree.leaf_sids()
    for level, sums in enumerate(tree.node_sums(values)):
        ancestors = tree.leaf_ancestors(level)
        assert np.allclose(np.bincount(ancestors, values, minlength=len(sums)), sums)
        nodes = [tree.find(leaf[: level + 1]) for leaf in leaves.tolist()]
        assert ancestors.tolist() == nodes


def test_item_numbers_of_its_own() -> None:
    tree = PrefixTree.build(np.array([[1], [0]]), (2,), items=np.array([70, 30]))
    assert tree.leaf_items.tolist() == [30, 70]


@pytest.mark.parametrize(
    ("sids", "levels", "message"),
    [
        ([[0, 1]], (2,), r"shape \(1, 2\) do not fit 1 levels"),
        ([[0, 0], [1, 4]], (2, 4), "row 1 has code 4 at level 1, which has 4"),
        ([[-1, 0]], (2, 4), "row 0 has code -1 at level 0"),
    ],
)
def test_sids_that_do_not_fit(sids: list[list[int]], levels: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PrefixTree.build(np.array(sids), levels)
