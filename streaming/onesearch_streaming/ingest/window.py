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
        self._last: dict[int, int] = {}
        self._taken: deque[tuple[list[int], list[int]]] = deque()

    def fresh(self, offsets: Sequence[int], ids: Sequence[str]) -> list[bool]:
        """Take messages in, in order; whether each is the first of its id."""
        if not offsets:
            return []
        last, size = self._last, self.size
        # 64 bits: among a hundred thousand ids one in 10^14 is taken for another.
        keys = list(map(hash, ids))
        if len(set(keys)) == len(keys) and last.keys().isdisjoint(keys):
            found = [True] * len(keys)
            last.update(zip(keys, offsets, strict=True))
        else:
            found = []
            for offset, key in zip(offsets, keys, strict=True):
                known = last.get(key)
                found.append(known is None or known < offset - size)
                last[key] = offset
        self._taken.append((list(offsets), keys))
        self._forget(offsets[-1] - size)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._taken.clear()
        self._last.clear()

    def _forget(self, horizon: int) -> None:
        """Let go of portions that lie, up to the last of them, too far back for any later message."""
        last, taken = self._last, self._taken
        while taken and taken[0][0][-1] <= horizon:
            for offset, key in zip(*taken.popleft(), strict=True):
                if last.get(key) == offset:
                    del last[key]
