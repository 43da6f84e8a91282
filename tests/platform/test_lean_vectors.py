"""Lean vectors of nodes: what is kept, and how near it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.codebooks import Codebooks
from onesearch.errors import ArtifactError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex, Changes
from onesearch.lean_vectors import CodeGuide, Remainders, coded, decoded, fitted, remainders, with_siblings
from onesearch.semantic_ids import PrefixTree

LEVELS, DIM = (8, 6, 5), 40


def catalogue(count: int, seed: int = 0) -> tuple[CatalogueIndex, Codebooks]:
    """Vectors that are the sums of their codes' centroids and noise."""
    random = np.random.default_rng(seed)
    books = Codebooks.of([random.normal(size=(size, DIM)) * 0.6**at for at, size in enumerate(LEVELS)])
    sids = np.stack([(random.random(count) ** 2 * size).astype(np.int32) for size in LEVELS], axis=1)
    vectors = books.vectors(sids) + 0.3 * random.normal(size=(count, DIM))
    ids = [f"i{n}" for n in range(count)]
    items = pl.DataFrame({"item_id": ids, "title": ids}).with_columns(
        category=pl.lit(None, pl.List(pl.String)), brand=pl.lit(""), price=pl.lit(1.0), in_stock=pl.lit(True)
    )
    popularity = random.integers(1, 5, count)
    return CatalogueIndex.build(items.select(ITEM_COLUMNS), sids, vectors, popularity, LEVELS), books


@given(st.integers(1, 300), st.integers(0, 2**16))
def test_rows_are_found_by_their_bits(count: int, seed: int) -> None:
    """A node's row is the number of nodes with siblings before it, whatever word its bit stands in."""
    random = np.random.default_rng(seed)
    sids = np.stack([(random.random(count) ** 3 * size).astype(np.int32) for size in (90, 70)], axis=1)
    tree = PrefixTree.build(sids, (90, 70))
    for level in range(2):
        has = with_siblings(tree, level)
        codes = random.integers(0, 256, (int(has.sum()), 2)).astype(np.uint8)
        book = random.normal(size=(2, 256, 16)).astype(np.float16)
        left = Remainders.of(book, tree, level, codes)
        found = left.vectors(len(has), 20)
        assert np.array_equal(found[has], decoded(book, codes)[:, :20]) and not found[~has].any()
        for node in np.flatnonzero(has).tolist():
            word, bit = divmod(node, 64)
            assert int(left.parted[word]) >> bit & 1
            below = int(left.parted[word]) & ((1 << bit) - 1)
            assert left.before[word] + below.bit_count() == has[:node].sum()


def test_differences_among_siblings_are_nearly_the_exact_ones() -> None:
    """With books nearer than with codes alone; roots are exact, and fewer vectors than entries nearly so."""
    index, books = catalogue(3_000)
    guide = index.fit_guide(books, seed=1)
    exact, lean = index.live, index.guided_by(guide).live
    bare = index.guided_by(CodeGuide(guide.centroids)).live
    assert np.array_equal(lean.node_vectors(0), exact.node_vectors(0))
    for level in (1, 2):
        first = exact.tree.first_child[level]
        parents = np.repeat(first[:-1], np.diff(first))

        def apart(vectors: np.ndarray, parents: np.ndarray = parents) -> np.ndarray:
            return vectors.astype(np.float32) - vectors[parents].astype(np.float32)

        wanted = apart(exact.node_vectors(level))
        errors = [np.abs(apart(tree.node_vectors(level)) - wanted).mean() for tree in (lean, bare)]
        # At depth 2 there are fewer nodes than entries of a book, and each has its own.
        assert errors[0] < (0.001 if level == 1 else 0.8 * errors[1])


def test_a_tree_of_one_level_follows_too() -> None:
    """It has no remainders, and the vectors of its nodes are those of their codes."""
    index, _ = catalogue(60)
    sids = index.sids[:, :1]
    books = Codebooks.of([np.zeros((LEVELS[0], DIM))])
    one = CatalogueIndex.build(index.items, sids, index.vectors, index.popularity, LEVELS[:1])
    one = one.guided_by(one.fit_guide(books, seed=0))
    changes = Changes(index.items[:1], sids[:1], -index.vectors[:1], index.popularity[:1])
    grown, scratch = one.following(changes, 1), replace(one.following(changes, 1))
    assert not np.array_equal(grown.live.vectors[0], one.live.vectors[0])
    assert np.array_equal(grown.live.vectors[0], scratch.live.vectors[0])


def test_a_book_has_the_same_bits_again_and_is_the_nearest() -> None:
    random = np.random.default_rng(3)
    left = random.normal(size=(2_000, 20)).astype(np.float32)
    book = fitted(left, 16, seed=5)
    assert np.array_equal(book, fitted(left, 16, seed=5)) and book.shape == (2, 256, 16)
    codes = coded(book, left[:50])
    padded = np.pad(left[:50], ((0, 0), (0, 12)))
    for at in range(2):
        stretch = padded[:, 16 * at : 16 * at + 16]
        distances = np.square(stretch[:, None] - book[at].astype(np.float32)).sum(axis=2)
        assert np.allclose(distances[np.arange(50), codes[:, at]], distances.min(axis=1), atol=1e-4)
    assert fitted(left[:0], 16, 0).shape == (2, 256, 16) and fitted(left[:3], 8, 0).shape == (3, 256, 8)


def test_what_siblings_share_is_left_out() -> None:
    """A shift of all children of a node changes nothing."""
    index, books = catalogue(200)
    tree, vectors = index.live.tree, index.live.vectors[1]
    centroids = books.levels[1].astype(np.float16)
    first = tree.first_child[1]
    shift = np.repeat(np.random.default_rng(0).normal(size=(len(first) - 1, DIM)), np.diff(first), axis=0)
    moved = remainders(tree, 1, vectors.astype(np.float32) + shift, centroids)
    assert np.allclose(moved, remainders(tree, 1, vectors.astype(np.float32), centroids), atol=1e-5)


def test_an_index_is_opened_with_what_it_is_to_be_guided_by(tmp_path: Path) -> None:
    index, books = catalogue(100)
    index.save(tmp_path)
    books.save(tmp_path)
    with pytest.raises(ArtifactError, match=r"remainders.safetensors: not there.*\"exact\", or train again"):
        CatalogueIndex.load(tmp_path, "lean")
    guide = index.fit_guide(books, seed=0)
    guide.save_books(tmp_path)
    opened = CatalogueIndex.load(tmp_path, "lean")
    for mine, theirs in zip(opened.live.remainders, index.guided_by(guide).live.remainders, strict=True):
        assert all(map(np.array_equal, mine.arrays, theirs.arrays))
    assert not CatalogueIndex.load(tmp_path, "codes").live.remainders
    assert not CatalogueIndex.load(tmp_path).live.by_code
    (tmp_path / "remainders.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="not books of remainders"):
        CatalogueIndex.load(tmp_path, "lean")
