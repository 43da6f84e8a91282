"""Knows an event that comes again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class Window:
    """The ids of the last ``size`` messages of one partition.

    Whether a message is a repetition depends on what the partition holds before it, and on nothing else: not
    on how messages were portioned, nor on when the reader started, as long as it began ``size`` messages
    earlier.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._order: deque[tuple[int, int]] = deque()
        self._last: dict[int, int] = {}

    def fresh(self, offsets: Sequence[int], ids: Sequence[str]) -> list[bool]:
        """Take messages in, in order; whether each is the first of its id."""
        size, order, last = self.size, self._order, self._last
        found = []
        for offset, event_id in zip(offsets, ids, strict=True):
            while order and order[0][0] < offset - size:
                gone, key = order.popleft()
                if last[key] == gone:
                    del last[key]
            # 64 bits: among a hundred thousand ids one in 10^14 is taken for another.
            key = hash(event_id)
            found.append(key not in last)
            last[key] = offset
            order.append((offset, key))
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._order.clear()
        self._last.clear()
