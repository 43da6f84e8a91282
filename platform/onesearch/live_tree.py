"""The prefix tree with its live arrays: what a search walks, and how it follows a changing catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onesearch.semantic_ids import PrefixTree, sid_keys

# Where more than this share of the items moves, sorting all anew costs no more than putting them in.
_SORT_ALL = 0.1


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
        log_mass: L arrays f32[n_{ℓ+1}], log of the popularity below each node; -inf where nothing is live.
        vectors: what guides the beams, L arrays: of each node the mean e° of the items below it,
            f16[n_{ℓ+1}, D]; or, with ``by_code``, what each code of the level adds, f16[K_ℓ, D].
        generation: number of the catalogue generation; answers carry it.
        item_alive: bool[N] narrowed by filters, None when every item of the tree is alive.
        by_code: whether the vectors are of codes. Children of one node then differ by their last codes alone,
            which is all that a search asks for, and no node has a vector of its own.
    """

    tree: PrefixTree
    log_mass: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]
    generation: int = 0
    item_alive: np.ndarray | None = None
    by_code: bool = False

    @classmethod
    def build(
        cls,
        items: Items,
        levels: tuple[int, ...],
        generation: int = 0,
        centroids: tuple[np.ndarray, ...] | None = None,
    ) -> LiveTree:
        """From scratch, over the items that are alive; ``centroids`` f16[K_ℓ, D] of all levels make it one by
        code."""
        numbers = items.numbers()
        tree = PrefixTree.build(items.sids[numbers], levels, items.popularity[numbers], numbers)
        vectors = _node_vectors(tree, items.vectors) if centroids is None else centroids
        mass = _log_mass(tree, items.popularity)
        return cls(tree, mass, vectors, generation, by_code=centroids is not None)

    def node_vectors(self, level: int) -> np.ndarray:
        """A vector for each node of depth ``level + 1``, f16[n, D], whose differences among the children of a
        node are those that guide the beams."""
        return self.vectors[level][self.tree.code[level]] if self.by_code else self.vectors[level]

    @property
    def bytes(self) -> dict[str, int]:
        """Size in memory of all that a search walks, by kind: ``structure`` (codes and children), ``items``
        (which items a SID has), ``mass`` and ``vectors``."""
        tree = self.tree
        kinds = {
            "structure": (*tree.first_child, *tree.code),
            "items": (tree.leaf_first_item, tree.leaf_items),
            "mass": self.log_mass,
            "vectors": self.vectors,
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
        same = self.by_code or not len(moved)
        vectors = self.vectors if same else self._vectors_of(tree, items, roots)
        mass = _log_mass(tree, items.popularity) if len(touched) else self.log_mass
        return LiveTree(tree, mass, vectors, generation, by_code=self.by_code)

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
        ranks = _spans(tree)[-1]
        leaves = np.repeat(anew, np.diff(ranks))
        numbers = tree.leaf_items[np.repeat(leaves, np.diff(tree.leaf_first_item))]
        part = PrefixTree.of_sorted(items.sids[numbers], tree.levels, numbers)
        made, kept = _node_vectors(part, items.vectors), self.vectors
        before = np.searchsorted(self.tree.code[0], tree.code[0])
        source = np.where(anew, np.cumsum(anew) - 1, before)
        assembled = []
        for level, (old, own, new) in enumerate(
            zip(_spans(self.tree), _spans(part), _spans(tree), strict=True)
        ):
            out = np.empty((int(new[-1]), items.vectors.shape[1]), np.float16)
            for start, end in _runs(anew, source):
                from_made = bool(anew[start])
                bounds = own if from_made else old
                low, high = bounds[source[start]], bounds[source[end - 1] + 1]
                out[new[start] : new[end]] = (made if from_made else kept)[level][low:high]
            assembled.append(out)
        return tuple(assembled)


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


def _runs(anew: np.ndarray, source: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of neighbours that come from one place and are neighbours there."""
    apart = (anew[1:] != anew[:-1]) | (source[1:] != source[:-1] + 1)
    ends = np.append(np.flatnonzero(apart) + 1, len(anew))
    starts = np.append(0, ends[:-1])
    yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _log_mass(tree: PrefixTree, item_mass: np.ndarray) -> tuple[np.ndarray, ...]:
    if not tree.leaf_count:
        return tuple(np.zeros(0, np.float32) for _ in tree.levels)
    leaf_mass = np.add.reduceat(item_mass[tree.leaf_items].astype(np.float64), tree.leaf_first_item[:-1])
    with np.errstate(divide="ignore"):
        return tuple(np.log(mass).astype(np.float32) for mass in tree.node_sums(leaf_mass))


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
