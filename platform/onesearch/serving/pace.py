"""How fast the models get through what they are asked, and so how long one more search would wait."""

from __future__ import annotations

import time
from dataclasses import dataclass

# How far the last search moves what is held to be usual: a batch ends at once, so single ones say little.
_FOLLOW = 0.05


@dataclass
class Pace:
    """The usual time from the end of one search to the end of the next, while there is something to do.

    Attributes:
        gap_s: that time; 0: nothing is known yet.
    """

    gap_s: float = 0.0
    _last: float = 0.0

    def ended(self, began: float, answered: bool) -> None:
        """A search that began at ``began`` (``time.perf_counter``) is answered, or has been given up."""
        now = time.perf_counter()
        gap_s, self._last = now - max(began, self._last), now
        if not answered:  # nobody knows how much longer it would have taken
            gap_s = max(gap_s, self.gap_s)
        self.gap_s = self.gap_s + _FOLLOW * (gap_s - self.gap_s) if self.gap_s else gap_s

    def wait_s(self, in_flight: int) -> float:
        """How long the last of so many searches takes."""
        return in_flight * self.gap_s
