"""What a stage of training tells of itself: figures, kept as JSON and shown on one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class StageReport:
    """One line of the table that training ends with."""

    stage: str
    seconds: float
    figures: dict[str, Any]
    resumed: bool
    """Whether it was done by an earlier run."""


def brief(figures: dict[str, Any], limit: int = 6) -> str:
    """The first plain numbers and words of a stage's figures on one line."""
    shown: list[str] = []
    for key, value in figures.items():
        name = key.replace("_", " ")
        if key == "seconds":
            continue
        if isinstance(value, float):
            shown.append(f"{name} {value:.4g}")
        elif isinstance(value, int | str) and not isinstance(value, bool):
            shown.append(f"{name} {value}")
    return " · ".join(shown[:limit])


def plain_figures(figures: Any) -> dict[str, Any]:
    """Figures as JSON holds them (numpy numbers become plain ones)."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return cast(dict[str, Any], json.loads(json.dumps(figures, default=plain)))
