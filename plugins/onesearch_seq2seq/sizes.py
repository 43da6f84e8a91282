"""Sizes of a static search: what it has room for, and whether a tree fits. Needs neither onnx nor torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onesearch.index import LiveTree
from onesearch.semantic_ids import PrefixTree

BLOCK = 16
"""Children of a beam that stand in one row."""
_GROWTH = 1.25  # room for what a catalogue may become before its graphs are built anew
_STEP = 64


@dataclass(frozen=True)
class Sizes:
    """Everything that fixes the shapes of a static graph.

    Attributes:
        batch: queries B. tokens: of a prompt, T. prefixes: vectors before it, P. beams: K.
        nodes: room for nodes at depths 1 … L. rows: of :data:`BLOCK` children a query, at depths 2 … L.
    """

    batch: int
    tokens: int
    prefixes: int
    beams: int
    nodes: tuple[int, ...]
    rows: tuple[int, ...]


def room_for(tree: PrefixTree) -> tuple[int, ...]:
    """Room for nodes at each depth: those of a tree, a quarter more, and no more than there can be."""
    possible, room = 1, []
    for count, size in zip(tree.node_counts, tree.levels, strict=True):
        possible = min(possible * size, 2**31 - 1 - _STEP)
        room.append(min(_rounded(count * _GROWTH), possible))
    return tuple(room)


def fits(tree: PrefixTree, nodes: tuple[int, ...]) -> bool:
    """Whether a tree fits into the room there is."""
    return all(count <= room for count, room in zip(tree.node_counts, nodes, strict=True))


def rows_for(tree: PrefixTree, beams: int, candidates: int) -> tuple[int, ...]:
    """Rows at depths 2 … L with which no search of this tree drops a beam for want of room, a quarter more
    for what it may become; no more than what ``candidates`` children take, but two a beam in any case."""
    rows = []
    for level, first in enumerate(tree.first_child[1:], start=1):
        further = np.maximum(np.diff(first) - 1, 0) // BLOCK
        widest = np.sort(further)[::-1][:beams].sum()
        most = beams * (-(-tree.levels[level] // BLOCK))
        wanted = min(beams + _rounded(widest * _GROWTH), most, max(candidates // BLOCK, 2 * beams))
        rows.append(max(wanted, beams))
    return tuple(rows)


def padded(live: LiveTree, nodes: tuple[int, ...], keys: np.ndarray) -> dict[str, np.ndarray]:
    """A tree's structure as a static graph takes it, filled up to its room; ``keys`` f32[D, r] map vectors to
    keys. Masses: :func:`padded_mass`."""
    arrays: dict[str, np.ndarray] = {}
    tree = live.tree
    for depth, (code, room) in enumerate(zip(tree.code, nodes, strict=True), start=1):
        vectors = live.node_vectors(depth - 1)
        arrays[f"code_{depth}"] = _filled(code.astype(np.int32), room)
        arrays[f"vectors_{depth}"] = _filled(vectors, room)
        arrays[f"keys_{depth}"] = _filled(vectors.astype(np.float32) @ keys, room)
        if depth < tree.depth:
            first = tree.first_child[depth]
            arrays[f"first_child_{depth}"] = _filled(first, room + 1, first[-1])
    return arrays


def padded_mass(live: LiveTree, nodes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The masses of a tree, filled up with dead nodes."""
    return {
        f"log_mass_{depth}": _filled(mass.astype(np.float32), room, -np.inf)
        for depth, (mass, room) in enumerate(zip(live.log_mass, nodes, strict=True), start=1)
    }


def _filled(array: np.ndarray, room: int, value: float = 0) -> np.ndarray:
    whole = np.full((room, *array.shape[1:]), value, array.dtype)
    whole[: len(array)] = array
    return whole


def _rounded(count: float) -> int:
    return int(-(-count // _STEP)) * _STEP
