"""What a check says: a figure, its limits, and in plain words what it means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One figure that was held to limits.

    Attributes:
        name: what was looked at, e.g. ``volume``.
        about: ``data``, ``catalogue``, ``challenger``.
        value: the figure; None where it could not be measured.
        low, high: limits that it may touch; None: open.
        passed: whether it is within them.
        reason: what it means, for a reader who knows none of the names.
        blocking: whether a night is refused for it; else it is advice.
    """

    name: str
    about: str
    value: float | None
    low: float | None
    high: float | None
    passed: bool
    reason: str
    blocking: bool = True

    @property
    def refuses(self) -> bool:
        """Whether this check alone refuses the night."""
        return self.blocking and not self.passed

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what is not finite becomes None."""
        made = asdict(self)
        for key in ("value", "low", "high"):
            number = made[key]
            made[key] = number if number is not None and math.isfinite(number) else None
        return made


def within(
    name: str,
    about: str,
    value: float | None,
    reason: str,
    low: float | None = None,
    high: float | None = None,
    blocking: bool = True,
) -> Check:
    """A check that passes where the value is known, finite and within its limits."""
    known = value is not None and math.isfinite(value)
    passed = known and (low is None or value >= low) and (high is None or value <= high)  # type: ignore[operator]
    return Check(name, about, value if known else None, low, high, passed, reason, blocking)


def refusals(checks: Sequence[Check]) -> list[Check]:
    """The checks that refuse the night."""
    return [check for check in checks if check.refuses]


def advice(checks: Sequence[Check]) -> list[Check]:
    """The checks that failed and refuse nothing."""
    return [check for check in checks if not check.passed and not check.blocking]
