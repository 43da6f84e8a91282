"""The prefix tree with its live arrays: what a search walks, and how it follows a changing catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onesearch.codebooks import Codebooks
from onesearch.lean_vectors import (
    CodeGuide,
    Remainders,
    coded,
    fitted,
    remainders,
    widths,
    with_siblings,
)
from onesearch.semantic_ids import PrefixTree, sid_keys

# Where more than this share of the items moves, sorting all anew costs no more than putting them in.
_SORT_ALL = 0.1
# Items whose nodes' exact vectors are held at once while an index without them is made.
_AT_ONCE = 100_000


@dataclass(frozen=True)
class Candidates:
    """What the beams reached for B requests.

    Attributes:
        items: i32[B, K], item numbers of the catalogue, best log-probability first; -1 is padding.
        log_probs: f32[B, K], the generator's; items that share a SID share it.
    """

    items: np.ndarray
    log_probs: np.ndarray


@dataclass(frozen=True)
class Items:
    """The arrays of a catalogue's items that a tree is made of.

    Attributes:
        sids: i32[N, L]. vectors: f16[N, D]. popularity: f32[N], positive.
        alive: bool[N]; None: every item is.
    """

    sids: np.ndarray
    vectors: np.ndarray
    popularity: np.ndarray
    alive: np.ndarray | None = None

    def numbers(self) -> np.ndarray:
        """Numbers of the items that are alive, rising."""
        if self.alive is None:
            return np.arange(len(self.sids), dtype=np.int32)
        return np.flatnonzero(self.alive).astype(np.int32)


@dataclass(frozen=True)
class LiveTree:
    """One generation of the tree with its live arrays: what a search walks.

    Attributes:
        tree: the legal SIDs, those of items that are alive.
        log_mass: L arrays f16[n_{ℓ+1}], log of the popularity below each node; -inf where nothing is live.
        vectors: what guides the beams, L arrays: of each node the mean e° of the items below it,
            f16[n_{ℓ+1}, D]; or, with a ``guide``, what each code of the level adds, f16[K_ℓ, D].
        generation: number of the catalogue generation; answers carry it.
        item_alive: bool[N] narrowed by filters, None when every item of the tree is alive.
        guide: what stands in for vectors of nodes; None: they have vectors. A child then differs from its
            siblings by its last code and, where the guide has books, its remainder, which is all that a
            search asks for. With books a code of the first level, which is a node, has that node's vector.
        remainders: of the nodes of the depths from the second on that have any.
    """

    tree: PrefixTree
    log_mass: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]
    generation: int = 0
    item_alive: np.ndarray | None = None
    guide: CodeGuide | None = None
    remainders: tuple[Remainders, ...] = ()

    @classmethod
    def build(
        cls,
        items: Items,
        levels: tuple[int, ...],
        generation: int = 0,
        guide: CodeGuide | None = None,
    ) -> LiveTree:
        """From scratch, over the items that are alive; with a guide, without vectors of nodes."""
        numbers = items.numbers()
        tree = PrefixTree.build(items.sids[numbers], levels, items.popularity[numbers], numbers)
        mass = _log_mass(tree, items.popularity)
        if guide is None:
            return cls(tree, mass, _node_vectors(tree, items.vectors), generation)
        bare = cls(tree, mass, guide.centroids, generation, guide=guide)
        return bare if guide.books is None else bare._told(items, np.ones(tree.node_counts[0], bool), None)

    @property
    def by_code(self) -> bool:
        """Whether the vectors are of codes instead of nodes."""
        return self.guide is not None

    def node_vectors(self, level: int) -> np.ndarray:
        """A vector for each node of depth ``level + 1``, f16[n, D], whose differences among the children of a
        node are those that guide the beams."""
        if not self.by_code:
            return self.vectors[level]
        vectors = self.vectors[level][self.tree.code[level]]
        if not 0 < level <= len(self.remainders):
            return vectors
        left = self.remainders[level - 1].vectors(*vectors.shape)
        return (vectors.astype(np.float32) + left).astype(np.float16)

    @property
    def bytes(self) -> dict[str, int]:
        """Size in memory of all that a search walks, by kind: ``structure`` (codes and children), ``items``
        (which items a SID has), ``mass``, ``vectors`` (with those of the books, however many items there are)
        and ``remainders``."""
        tree, books = self.tree, (left.book for left in self.remainders)
        kinds = {
            "structure": (*tree.first_child, *tree.code),
            "items": (tree.leaf_first_item, tree.leaf_items),
            "mass": self.log_mass,
            "vectors": (*self.vectors, *books),
            "remainders": [array for left in self.remainders for array in left.arrays],
        }
        return {kind: sum(array.nbytes for array in arrays) for kind, arrays in kinds.items()}

    def following(
        self, items: Items, moved: np.ndarray, roots: np.ndarray, weighed: np.ndarray, generation: int
    ) -> LiveTree:
        """The tree of the next generation, equal to one built from scratch, made by touching little.

        Args:
            items: as they are now.
            moved: numbers of the items that came, went, or changed their SID or vector.
            roots: first codes of all SIDs that the moved items had and have. What lies below the others
                keeps its vectors.
            weighed: numbers of further items whose popularity changed, which orders those of a SID.
            generation: number of the new generation.
        """
        touched = np.union1d(moved, weighed).astype(np.int32)
        tree = self.tree
        if len(touched) > _SORT_ALL * max(1, len(tree.leaf_items)):
            numbers = items.numbers()
            tree = PrefixTree.build(items.sids[numbers], tree.levels, items.popularity[numbers], numbers)
        elif len(touched):
            order = _reordered(tree, items, touched)
            tree = PrefixTree.of_sorted(items.sids[order], tree.levels, order)
        mass = _log_mass(tree, items.popularity) if len(touched) else self.log_mass
        following = replace(self, tree=tree, log_mass=mass, generation=generation)
        if not len(moved) or (self.guide is not None and self.guide.books is None):
            return following
        if self.guide is not None:
            return following._told(items, np.isin(tree.code[0], roots), self)
        return replace(following, vectors=self._vectors_of(tree, items, roots))

    def narrowed(self, item_alive: np.ndarray, item_mass: np.ndarray) -> LiveTree:
        """The same tree with only the items of the mask bool[N] alive; dead branches get log-mass -inf."""
        mass = np.where(item_alive, item_mass, 0.0)
        return replace(self, log_mass=_log_mass(self.tree, mass), item_alive=item_alive)

    def expand(self, leaves: np.ndarray, log_probs: np.ndarray, limit: int | None = None) -> Candidates:
        """Leaves i32[B, K] → their live items, a SID's most popular first; at most ``limit`` a request."""
        first, items = self.tree.leaf_first_item, self.tree.leaf_items
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for row, scores in zip(leaves, log_probs, strict=True):
            found = row >= 0
            starts, ends = first[row[found]], first[row[found] + 1]
            counts = ends - starts
            at = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            numbers, probs = items[at], np.repeat(scores[found], counts)
            if self.item_alive is not None:
                alive = self.item_alive[numbers]
                numbers, probs = numbers[alive], probs[alive]
            rows.append((numbers[:limit], probs[:limit]))
        width = max([1, *(len(numbers) for numbers, _ in rows)])
        out = np.full((len(rows), width), -1, dtype=np.int32)
        scores_out = np.full((len(rows), width), -np.inf, dtype=np.float32)
        for at_row, (numbers, probs) in enumerate(rows):
            out[at_row, : len(numbers)] = numbers
            scores_out[at_row, : len(probs)] = probs
        return Candidates(out, scores_out)

    def _vectors_of(self, tree: PrefixTree, items: Items, roots: np.ndarray) -> tuple[np.ndarray, ...]:
        """Node vectors of a new tree: made below some first codes, taken from this tree below the others."""
        if not tree.leaf_count:
            return _node_vectors(tree, items.vectors)
        anew = np.isin(tree.code[0], roots)
        part = _part(tree, items, anew)
        made = _node_vectors(part, items.vectors)
        source = _sources(tree, self.tree, anew)
        spans = zip(_spans(self.tree), _spans(part), _spans(tree), strict=True)
        return tuple(
            _assembled(kept, own, anew, source, bounds)
            for kept, own, bounds in zip(self.vectors, made, spans, strict=True)
        )

    def _told(self, items: Items, anew: np.ndarray, before: LiveTree | None) -> LiveTree:
        """With vectors of the first level and remainders of the others: made below the first codes of the
        mask bool[n_1], taken from the tree before below the others."""
        assert self.guide is not None and self.guide.books is not None, "a tree with remainders"
        tree, centroids, books = self.tree, self.guide.centroids, self.guide.books
        firsts = np.zeros_like(centroids[0])
        if before is not None:
            firsts[tree.code[0]] = before.vectors[0][tree.code[0]]
        made = [[np.zeros((0, len(book)), np.uint8)] for book in books]
        below = np.cumsum(np.where(anew, _items_of_roots(tree), 0))
        ends = below[:-1][np.diff(below // _AT_ONCE) > 0]  # whole branches, some items at once
        for numbers in np.split(_numbers(tree, anew), ends):
            part = PrefixTree.of_sorted(items.sids[numbers], tree.levels, numbers)
            exact = _node_vectors(part, items.vectors)
            firsts[part.code[0]] = exact[0]
            for level, book in enumerate(books, start=1):
                left = remainders(part, level, exact[level], centroids[level])
                made[level - 1].append(coded(book, left))
        rows = [np.concatenate(parts) for parts in made]
        if before is not None and tree.leaf_count:
            part = _part(tree, items, anew)
            source = _sources(tree, before.tree, anew)
            spans = [_spans_of_siblings(each) for each in (before.tree, part, tree)]
            rows = [
                _assembled(kept.codes, own, anew, source, bounds)
                for kept, own, bounds in zip(before.remainders, rows, zip(*spans, strict=True), strict=False)
            ]
        leftover = tuple(
            Remainders.of(book, tree, level, rows[level - 1]) for level, book in enumerate(books, start=1)
        )
        return replace(self, vectors=(firsts, *centroids[1:]), remainders=leftover)


def fit_guide(tree: PrefixTree, items: Items, codebooks: Codebooks, seed: int) -> CodeGuide:
    """What codes stand for, and books of the remainders of a tree's nodes."""
    centroids = tuple(level.astype(np.float16) for level in codebooks.levels)
    if len(tree.leaf_items) > _AT_ONCE:  # whole branches, since what siblings have in common is left out
        order = np.random.default_rng([seed, 0xA8]).permutation(tree.node_counts[0])
        below = _items_of_roots(tree)
        picked = np.zeros(len(order), bool)
        picked[order[: int(np.searchsorted(np.cumsum(below[order]), _AT_ONCE)) + 1]] = True
        tree = _part(tree, items, picked)
    exact = _node_vectors(tree, items.vectors)
    return CodeGuide(
        centroids,
        tuple(
            fitted(remainders(tree, level, exact[level], centroids[level]), width, seed)
            for level, width in zip(range(1, tree.depth), widths(items.vectors.shape[1]), strict=False)
        ),
    )


def _part(tree: PrefixTree, items: Items, roots: np.ndarray) -> PrefixTree:
    """The tree of what lies below some nodes of the first level, bool[n_1]."""
    numbers = _numbers(tree, roots)
    return PrefixTree.of_sorted(items.sids[numbers], tree.levels, numbers)


def _numbers(tree: PrefixTree, roots: np.ndarray) -> np.ndarray:
    """Numbers of the items below some nodes of the first level, bool[n_1], in the tree's order."""
    return tree.leaf_items[np.repeat(roots, _items_of_roots(tree))]


def _items_of_roots(tree: PrefixTree) -> np.ndarray:
    """How many items lie below each node of the first level, i32[n_1]."""
    return np.diff(tree.leaf_first_item[_spans(tree)[-1]])


def _sources(tree: PrefixTree, old: PrefixTree, anew: np.ndarray) -> np.ndarray:
    """Of each node of the first level which one it is: of those made anew, or of the old tree."""
    return np.where(anew, np.cumsum(anew) - 1, np.searchsorted(old.code[0], tree.code[0]))


def _assembled(
    kept: np.ndarray,
    made: np.ndarray,
    anew: np.ndarray,
    source: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Rows of nodes, put together root by root; ``bounds``: where a root's rows begin in the rows kept, made
    and wanted."""
    old, own, new = bounds
    out = np.empty((int(new[-1]), *made.shape[1:]), made.dtype)
    for start, end in _runs(anew, source):
        rows, edges = (made, own) if anew[start] else (kept, old)
        out[new[start] : new[end]] = rows[edges[source[start]] : edges[source[end - 1] + 1]]
    return out


def _reordered(tree: PrefixTree, items: Items, touched: np.ndarray) -> np.ndarray:
    """The item numbers of a tree in their new order, i32[N]: the touched ones are taken out and put in."""
    gone = np.zeros(len(items.sids), bool)
    gone[touched] = True
    kept = tree.leaf_items[~gone[tree.leaf_items]]
    own = touched if items.alive is None else touched[items.alive[touched]]
    keys = sid_keys(items.sids[own], tree.levels)
    order = np.lexsort((own, -items.popularity[own], *items.sids[own].T[::-1]))
    own, keys = own[order], keys[order]
    known = sid_keys(items.sids[kept], tree.levels)
    first, last = np.searchsorted(known, keys), np.searchsorted(known, keys, side="right")
    for at in np.flatnonzero(first < last).tolist():
        # Items of one SID stand by popularity, then by number.
        same = kept[first[at] : last[at]]
        mine, theirs = items.popularity[own[at]], items.popularity[same]
        first[at] += int(((theirs > mine) | ((theirs == mine) & (same < own[at]))).sum())
    return np.insert(kept, first, own).astype(np.int32)


def _spans(tree: PrefixTree) -> list[np.ndarray]:
    """Of each level: where the nodes below each first code begin, i64[n_1 + 1]."""
    bounds = [np.arange(len(tree.code[0]) + 1)]
    for first in tree.first_child[1:]:
        bounds.append(first[bounds[-1]].astype(np.int64))
    return bounds


def _spans_of_siblings(tree: PrefixTree) -> list[np.ndarray]:
    """Of each level from the second on the same of the nodes with siblings alone."""
    counted = [np.append(0, np.cumsum(with_siblings(tree, level))) for level in range(1, tree.depth)]
    return [before[bounds] for before, bounds in zip(counted, _spans(tree)[1:], strict=True)]


def _runs(anew: np.ndarray, source: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of neighbours that come from one place and are neighbours there."""
    apart = (anew[1:] != anew[:-1]) | (source[1:] != source[:-1] + 1)
    ends = np.append(np.flatnonzero(apart) + 1, len(anew))
    starts = np.append(0, ends[:-1])
    yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _log_mass(tree: PrefixTree, item_mass: np.ndarray) -> tuple[np.ndarray, ...]:
    if not tree.leaf_count:
        return tuple(np.zeros(0, np.float16) for _ in tree.levels)
    leaf_mass = np.add.reduceat(item_mass[tree.leaf_items].astype(np.float64), tree.leaf_first_item[:-1])
    with np.errstate(divide="ignore"):
        return tuple(np.log(mass).astype(np.float16) for mass in tree.node_sums(leaf_mass))


def _node_vectors(tree: PrefixTree, vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    if not tree.leaf_count:
        return tuple(np.zeros((0, vectors.shape[1]), np.float16) for _ in tree.levels)
    counts = np.diff(tree.leaf_first_item).astype(np.float32)
    leaf_sums = np.add.reduceat(
        vectors[tree.leaf_items].astype(np.float32), tree.leaf_first_item[:-1], axis=0
    )
    sums, numbers = tree.node_sums(leaf_sums), tree.node_sums(counts)
    return tuple(
        (total / number[:, None]).astype(np.float16) for total, number in zip(sums, numbers, strict=True)
    )
