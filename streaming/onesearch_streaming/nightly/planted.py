"""Planted nights: which damage the data checks find, the smallest of each kind, and whether good days
pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import polars as pl
from onesearch.data.simulation import SimulatedShoppers, day_of

from onesearch_streaming.nightly.damage import KINDS, Kind
from onesearch_streaming.nightly.data_checks import check_catalogue, check_day
from onesearch_streaming.nightly.days import catalogue_figures, day_figures
from onesearch_streaming.nightly.settings import DataLimits
from onesearch_streaming.nightly.simulated import keyword_day
from onesearch_streaming.nightly.verdict import Check, refusals

STRENGTHS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""Strengths tried when the smallest damage is looked for."""
VOLUME_VARIES = 0.08
"""Good days have up to this share more or fewer searches, uniformly."""


@dataclass
class Planted:
    """A simulated shop's days, to be damaged.

    Attributes:
        items: its catalogue. baseline: figures of the good days before. number: the day that is judged.
        searches: of a day, on average.
    """

    shoppers: SimulatedShoppers
    items: pl.DataFrame
    baseline: list[dict[str, Any]]
    number: int
    searches: int
    limits: DataLimits

    @classmethod
    def of(
        cls,
        shoppers: SimulatedShoppers,
        items: pl.DataFrame,
        searches: int,
        seed: int,
        limits: DataLimits,
        days: int = 14,
    ) -> Planted:
        """Simulate ``days`` good days before the one that is judged."""
        made = cls(shoppers, items, [], days, searches, limits)
        for number in range(days):
            made.baseline += _rows(made._figures(made.day(number, seed + number), number))
        return made

    def day(self, number: int, seed: int) -> pl.DataFrame:
        """A good day's events."""
        rng = np.random.default_rng([seed, 0x56])
        count = round(self.searches * (1 + VOLUME_VARIES * (2 * rng.random() - 1)))
        return keyword_day(self.shoppers, count, number, seed)

    def check(self, events: pl.DataFrame | None = None, items: pl.DataFrame | None = None) -> list[Check]:
        """The checks of the judged day, or of a catalogue."""
        if items is not None:
            return check_catalogue(catalogue_figures(items, self.items), self.limits)
        assert events is not None
        [row] = [
            row for row in _rows(self._figures(events, self.number)) if row["day"] == day_of(self.number)
        ]
        return check_day(row, self.baseline[-self.limits.baseline_days :], self.limits)

    def damaged(self, kind: Kind, strength: float, seed: int) -> list[Check]:
        """The checks of a day, or a catalogue, hit so hard by something."""
        rng = np.random.default_rng([seed, 0xBA])
        if kind.hits == "items":
            return self.check(items=kind.damage(self.items, strength, rng))
        return self.check(kind.damage(self.day(self.number, seed), strength, rng))

    def smallest(self, kind: Kind, seed: int) -> float | None:
        """The smallest strength from which on damage is refused for the right reason; None: none is."""
        found: float | None = None
        for strength in reversed(STRENGTHS):
            if not right(kind, self.damaged(kind, strength, seed)):
                break
            found = strength
        return found

    def _figures(self, events: pl.DataFrame, number: int) -> pl.DataFrame:
        end = datetime.combine(day_of(number), time(), UTC) + timedelta(days=1)
        return day_figures(events.lazy(), self.items, end)


def right(kind: Kind, checks: Sequence[Check]) -> bool:
    """Whether something refuses it that is the matter with it."""
    return any(check.name in kind.right for check in refusals(checks))


def planted_rows(planted: Planted, seed: int, kinds: Sequence[Kind] = KINDS) -> list[dict[str, Any]]:
    """One row a kind: its planted strength, whether it was refused, for what, and the smallest strength that
    is."""
    rows = []
    for at, kind in enumerate(kinds):
        checks = planted.damaged(kind, kind.planted, seed + 100 + at)
        rows.append(
            {
                "kind": kind.name,
                "what": kind.what,
                "strength": kind.planted,
                "refused": bool(refusals(checks)),
                "right_reason": right(kind, checks),
                "reasons": [check.name for check in refusals(checks)],
                "smallest": planted.smallest(kind, seed + 200 + at),
            }
        )
    return rows


def _rows(figures: pl.DataFrame) -> list[dict[str, Any]]:
    return list(figures.iter_rows(named=True))
