"""What was made of a live tree, kept for the next search: its structure once a generation, its masses once a
narrowing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from onesearch.index import LiveTree

_KEPT_TREES, _KEPT_MASSES = 2, 8
Structure = TypeVar("Structure")
Masses = TypeVar("Masses")
Made = TypeVar("Made")


class Remembered(Generic[Structure, Masses]):
    """Makes what is not there yet, and lets the longest unused go."""

    def __init__(
        self, structure: Callable[[LiveTree], Structure], masses: Callable[[LiveTree], Masses]
    ) -> None:
        self._structure, self._mass = structure, masses
        # Keyed by identity: what is made is kept beside the tree itself, so that its id cannot be another's.
        self.trees: OrderedDict[int, tuple[LiveTree, Structure]] = OrderedDict()
        self.masses: OrderedDict[int, tuple[LiveTree, Masses]] = OrderedDict()

    def of(self, live: LiveTree) -> tuple[Structure, Masses]:
        """What was made of the tree's structure and of its masses; a narrowed tree brings only masses."""
        structure = _remembered(self.trees, live, id(live.tree), _KEPT_TREES, self._structure)
        return structure, _remembered(self.masses, live, id(live), _KEPT_MASSES, self._mass)


def _remembered(
    kept: OrderedDict[int, tuple[LiveTree, Made]],
    live: LiveTree,
    key: int,
    limit: int,
    make: Callable[[LiveTree], Made],
) -> Made:
    if key not in kept:
        kept[key] = (live, make(live))
        while len(kept) > limit:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key][1]
