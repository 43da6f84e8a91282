"""Configurations of the benchmarks' nights, cut short: where it is not looked at what they teach."""

from __future__ import annotations

import re
from pathlib import Path

_COUNTS = ("steps", "eval_every", "warmup", "max_steps", "reward_queries", "preference_lists")
_LINE = re.compile(rf"^((?:{'|'.join(_COUNTS)}) = )(\d+)", re.MULTILINE)


def cut_short(config: Path, by: int = 5) -> str:
    """The text of a configuration whose stages take the ``by``-th part of their steps."""
    text = config.read_text(encoding="utf-8")
    return _LINE.sub(lambda found: f"{found[1]}{max(1, int(found[2]) // by)}", text)
