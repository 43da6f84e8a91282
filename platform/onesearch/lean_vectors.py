"""What guides a search through a tree whose nodes have no vectors of their own.

Children of one node compete with each other alone, so that only the differences of their vectors count.
Codes stand for most of them; what a child's vector has beyond its code's, and beyond what all its siblings
have, is its *remainder*. It is cut into stretches, and of each a byte is kept: the number of the nearest
entry of a book, one a level and stretch. At the second level, where most is decided, stretches are short; at
the third they are long; below, where remainders are a quarter as long and seldom decide, codes stand alone.
Nodes without siblings have nothing to be told from, and no remainder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from onesearch.codebooks import Codebooks
from onesearch.errors import ArtifactError
from onesearch.semantic_ids import PrefixTree

BYTES = (32, 8)
"""Bytes of a remainder at most, at the second level and at the third."""
CODES = 256
"""Entries of the book of a stretch."""
FILE = "remainders.safetensors"
_WORD = 64
_SAMPLE, _ROUNDS, _CHUNK = 16_384, 12, 16_384


@dataclass(frozen=True)
class CodeGuide:
    """What the codes and bytes of an index stand for; the same as long as the release.

    Attributes:
        centroids: f16[K_ℓ, D] of each level.
        books: f16[⌈D / w⌉, 256, w] of the levels from the second on that have remainders, w of
            :func:`widths`; None: there are none, and nodes of one parent differ by their codes alone.
    """

    centroids: tuple[np.ndarray, ...]
    books: tuple[np.ndarray, ...] | None = None

    @classmethod
    def load(cls, folder: Path, remainders: bool) -> CodeGuide:
        """From the folder of an index, with or without the books. Raises ArtifactError naming the file that
        does not fit."""
        levels = Codebooks.load(folder).levels
        centroids = tuple(level.astype(np.float16) for level in levels)
        return cls(centroids, _load_books(folder / FILE, levels[1:]) if remainders else None)

    def save_books(self, folder: Path) -> None:
        """Write :data:`FILE`."""
        named = {f"level.{at}": np.ascontiguousarray(book) for at, book in enumerate(self.books or (), 1)}
        save_file(named, folder / FILE)


@dataclass(frozen=True)
class Remainders:
    """The remainders of the nodes of one depth.

    Attributes:
        book: f16[⌈D / w⌉, 256, w], of each stretch what its bytes stand for.
        parted: u64[⌈n / 64⌉], a bit a node: whether it has siblings (bit 0 is the first of a word).
        before: i32[⌈n / 64⌉], how many nodes before each word have.
        codes: u8[m, ⌈D / w⌉], of the nodes with siblings in their order.
    """

    book: np.ndarray
    parted: np.ndarray
    before: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, book: np.ndarray, tree: PrefixTree, level: int, codes: np.ndarray) -> Remainders:
        """From the codes of the nodes of depth ``level + 1`` with siblings."""
        has = with_siblings(tree, level)
        words = np.zeros(-(-len(has) // _WORD) * _WORD, bool)
        words[: len(has)] = has
        counts = words.reshape(-1, _WORD).sum(axis=1)
        before = (np.cumsum(counts) - counts).astype(np.int32)
        return cls(book, np.packbits(words, bitorder="little").view(np.uint64), before, codes)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What grows with the catalogue."""
        return self.parted, self.before, self.codes

    def vectors(self, nodes: int, dim: int) -> np.ndarray:
        """Of each of n nodes its remainder f32[n, D]; zeros where it has no siblings."""
        has = np.unpackbits(self.parted.view(np.uint8), count=nodes, bitorder="little").astype(bool)
        found = np.zeros((nodes, dim), np.float32)
        found[has] = decoded(self.book, self.codes)[:, :dim]
        return found


def widths(dim: int) -> tuple[int, ...]:
    """Numbers w of a stretch for vectors of D, at the levels from the second on that have remainders: as few
    as :data:`BYTES` are enough for, and a multiple of 8."""
    return tuple(8 * -(-dim // (8 * most)) for most in BYTES)


def with_siblings(tree: PrefixTree, level: int) -> np.ndarray:
    """bool[n]: which nodes of depth ``level + 1`` have siblings."""
    counts = np.diff(tree.first_child[level])
    return np.repeat(counts > 1, counts)


def remainders(tree: PrefixTree, level: int, vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """What is left of the vectors f16[n, D] of the nodes of depth ``level + 1``: f32[m, D] of those that have
    siblings.

    ``centroids`` f16[K, D] are of the level's codes. What siblings share on average is taken away.
    """
    counts = np.diff(tree.first_child[level])
    counts = counts[counts > 1]
    has = with_siblings(tree, level)
    left = vectors[has].astype(np.float32) - centroids[tree.code[level][has]].astype(np.float32)
    if len(left):
        starts = np.cumsum(counts) - counts
        means = np.add.reduceat(left, starts, axis=0) / counts[:, None].astype(np.float32)
        left -= np.repeat(means, counts, axis=0)
    return left


def fitted(left: np.ndarray, width: int, seed: int) -> np.ndarray:
    """A level's book f16[⌈D / w⌉, 256, w] from remainders f32[m, D]: k-means of each stretch of w numbers.

    Where there are fewer vectors than entries, entries repeat.
    """
    random = np.random.default_rng([seed, 0xA7])
    dim = left.shape[1]
    if not len(left):
        return np.zeros((-(-dim // width), CODES, width), np.float16)
    if len(left) > _SAMPLE:
        left = left[np.sort(random.choice(len(left), _SAMPLE, replace=False))]
    book = []
    for stretch in _stretches(left, width):
        centres = stretch[random.choice(len(stretch), CODES, replace=len(stretch) < CODES)].copy()
        for _ in range(_ROUNDS):
            nearest = _nearest(stretch, centres)
            counts = np.bincount(nearest, minlength=CODES)
            order = np.argsort(nearest, kind="stable")
            used = counts > 0
            starts = (np.cumsum(counts) - counts)[used]
            centres[used] = np.add.reduceat(stretch[order], starts, axis=0) / counts[used, None]
            lost = np.flatnonzero(~used)
            centres[lost] = stretch[random.choice(len(stretch), len(lost))]
        book.append(centres)
    return np.stack(book).astype(np.float16)


def coded(book: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Remainders f32[m, D] → their bytes u8[m, ⌈D / w⌉]."""
    codes = np.empty((len(left), len(book)), np.uint8)
    for at, (stretch, centres) in enumerate(zip(_stretches(left, book.shape[2]), book, strict=True)):
        codes[:, at] = _nearest(stretch, centres.astype(np.float32))
    return codes


def decoded(book: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Bytes u8[m, ⌈D / w⌉] → what they stand for, f32[m, ⌈D / w⌉ · w]."""
    picked = book[np.arange(len(book)), codes]
    return picked.reshape(len(codes), len(book) * book.shape[2]).astype(np.float32)


def _load_books(path: Path, levels: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    try:
        arrays = load_file(path)
        books = tuple(arrays[f"level.{at}"] for at in range(1, len(arrays) + 1))
        for book, level in zip(books, levels, strict=False):
            width = book.shape[2]
            if width % 8 or book.shape != (-(-level.shape[1] // width), CODES, width):
                raise ValueError(f"a book of shape {book.shape} for vectors of {level.shape[1]} numbers")
        return books
    except FileNotFoundError as error:
        raise ArtifactError(
            f'{path}: not there: this release is older than [serving] node_vectors = "lean"; set it to '
            '"exact", or train again'
        ) from error
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path}: not books of remainders ({error})") from error


def _stretches(left: np.ndarray, width: int) -> list[np.ndarray]:
    """The stretches f32[m, w] of vectors f32[m, D], the last filled up with zeros."""
    padded = np.zeros((len(left), -(-left.shape[1] // width) * width), np.float32)
    padded[:, : left.shape[1]] = left
    return [np.ascontiguousarray(part) for part in np.split(padded, padded.shape[1] // width, axis=1)]


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    half = 0.5 * np.square(centres).sum(axis=1)
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _CHUNK):
        found[start : start + _CHUNK] = (vectors[start : start + _CHUNK] @ centres.T - half).argmax(axis=1)
    return found
