"""What is known of a shopper when a request arrives.

Items are named by :func:`item_key`, a 64-bit hash of the item's id, which holds in every release and every
catalogue generation; the release that answers looks its own item numbers and SIDs up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

RING_SIZE = 1_000
"""Events kept in each ring; older ones are forgotten."""
RECENT_SIZE = 16
"""Different (query, item) pairs kept of the newest behaviour."""
SCENES = ("search", "recommend")
NO_ITEM = 0
"""The key of no item: a query that nothing was clicked for."""


def item_key(item_id: str) -> int:
    """The 64-bit key of an item id; never :data:`NO_ITEM`."""
    text = item_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") or 1


def item_keys(item_ids: list[str]) -> np.ndarray:
    """u64[N]: :func:`item_key` of each id."""
    return np.fromiter((item_key(item_id) for item_id in item_ids), np.uint64, len(item_ids))


@dataclass(frozen=True, eq=False)
class Ring:
    """Events of one kind, oldest first, at most :data:`RING_SIZE`.

    Attributes:
        items: u64[n], item keys.
        times: u32[n], whole seconds since 1970, rising.
        scenes: u8[n], positions in :data:`SCENES`.
    """

    items: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    scenes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and all(
            np.array_equal(own, theirs)
            for own, theirs in (
                (self.items, other.items),
                (self.times, other.times),
                (self.scenes, other.scenes),
            )
        )


@dataclass(frozen=True)
class Recent:
    """A piece of the newest behaviour: a query and what was clicked or ordered for it.

    Attributes:
        query: as typed; empty for a click on something recommended.
        item: item key; :data:`NO_ITEM` for a query that nothing was clicked for.
        time: seconds since 1970, of the last event of this query and item.
        scene: position in :data:`SCENES`.
    """

    query: str
    item: int
    time: int
    scene: int = 0


@dataclass(frozen=True)
class ShopperState:
    """A shopper; empty when unknown.

    Attributes:
        clicks, orders: the long sequences.
        recent: the newest different (query, item) pairs, oldest first, at most :data:`RECENT_SIZE`.
        counts: impressions, clicks and orders ever seen, forgotten ones included.
    """

    user_id: str = ""
    clicks: Ring = field(default_factory=Ring)
    orders: Ring = field(default_factory=Ring)
    recent: tuple[Recent, ...] = ()
    counts: tuple[int, int, int] = (0, 0, 0)

    @property
    def known(self) -> bool:
        """Whether anything is known of the shopper."""
        return bool(len(self.clicks) or len(self.orders) or self.recent)
