"""Shopper states as this release sees them: item numbers in place of keys, and only what it can name.

Training and serving both read states here. Texts and lengths are cut as the packed form of a state cuts them
(:mod:`onesearch.shoppers.packing`), so that a state looks the same before it was packed and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onesearch.index import CatalogueIndex
from onesearch.shoppers.events import pair_text, typed_text
from onesearch.shoppers.packing import cut_text
from onesearch.shoppers.state import NO_ITEM, RECENT_SIZE, RING_SIZE, Recent, ShopperState


@dataclass(frozen=True)
class Pair:
    """A query and what was clicked for it.

    Attributes:
        query: empty for a click on something recommended.
        item: item number; -1 where nothing was clicked.
    """

    query: str
    item: int


@dataclass(frozen=True)
class Behaviour:
    """What a shopper did with items that the catalogue still has; all oldest first.

    Attributes:
        clicks, orders: item numbers i32[n].
        pairs: the newest behaviour. A query that nothing was clicked for stands here only if it was not
            answered since.
    """

    user_id: str
    clicks: np.ndarray
    orders: np.ndarray
    pairs: tuple[Pair, ...]

    @property
    def recent_items(self) -> list[int]:
        """Item numbers of the pairs."""
        return [pair.item for pair in self.pairs if pair.item >= 0]

    def sequences(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The recent sequence (of at most ``count`` items) and the long one, item numbers.

        The long one are the clicks; where there are none, the orders, then the recent items. The recent one
        are the items of the pairs; where there are none, the end of the long one. So both are empty or
        neither.
        """
        recent = np.array(self.recent_items[-count:], np.int32)
        long = self.clicks if len(self.clicks) else self.orders if len(self.orders) else recent
        return (recent if len(recent) else long[-count:]), long


def resolve(states: Sequence[ShopperState], index: CatalogueIndex) -> list[Behaviour]:
    """What this catalogue makes of B states; withdrawn items are left out."""
    parts: list[np.ndarray] = []
    for state in states:
        items = np.array([piece.item for piece in state.recent[-RECENT_SIZE:]], np.uint64)
        parts += [state.clicks.items[-RING_SIZE:], state.orders.items[-RING_SIZE:], items]
    if not parts:
        return []
    ends = np.cumsum([len(part) for part in parts])
    numbers = np.split(index.numbers_of(np.concatenate(parts)), ends[:-1])
    return [
        Behaviour(
            cut_text(state.user_id),
            clicks[clicks >= 0],
            orders[orders >= 0],
            _pairs(state.recent[-RECENT_SIZE:], recent.tolist()),
        )
        for state, clicks, orders, recent in zip(
            states, numbers[::3], numbers[1::3], numbers[2::3], strict=True
        )
    ]


def _pairs(recent: Sequence[Recent], numbers: Sequence[int]) -> tuple[Pair, ...]:
    pieces = [
        (typed_text(piece.query), number, piece.time)
        for piece, number in zip(recent, numbers, strict=True)
        if number >= 0 or piece.item == NO_ITEM
    ]
    if all(number >= 0 for _, number, _ in pieces):
        return tuple(Pair(query, number) for query, number, _ in pieces)
    answered: dict[str, int] = {}
    for query, number, time in pieces:
        if number >= 0:
            query = pair_text(query)
            answered[query] = max(time, answered.get(query, time))
    return tuple(
        Pair(query, number)
        for query, number, time in pieces
        if number >= 0 or (query and answered.get(pair_text(query), -1) < time)
    )
