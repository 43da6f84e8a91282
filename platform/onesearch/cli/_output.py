"""How commands print: tables and JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from onesearch.progress import Task

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
_LINE_EVERY_S = 15.0


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output; what is not finite becomes null, as JSON knows no NaN."""
    sys.stdout.write(json.dumps(_plain(answer), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table: numbers stand to the right, None is a dash, text is never read as markup."""
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for at, column in enumerate(columns):
        numeric = any(_is_number(row[at]) for row in rows)
        justify: Literal["right", "left"] = "right" if numeric else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=numeric, min_width=len(column))
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(value: object) -> Text:
    match value:
        case None:
            return Text("–", style="dim")
        case bool() | np.bool_():
            return Text("yes" if value else "no")
        case float() | np.floating():
            return Text(_rounded(float(value)))
        case int() | np.integer():
            return Text(f"{int(value):,}")
        case Text():
            return value
        case _:
            return Text(str(value))


def _rounded(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case str() | bool() | None | int():
            return value
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case np.bool_() | np.integer():
            return value.item()
        case np.ndarray():
            return _plain(value.tolist())
        case PurePath():
            return str(value)
        case Sequence() | set() | frozenset():
            return [_plain(entry) for entry in value]
        case _:
            raise TypeError(f"a {type(value).__name__} has no JSON form")


class RichProgress:
    """Progress on standard error: bars on a terminal, otherwise a line at times, as suits a log.

    Implements :class:`onesearch.progress.Progress`. Tasks may be nested.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or err
        self._bars: Bars | None = None
        self._open = 0

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Task]:
        """Open a task: a bar on a terminal, else lines when it starts, now and then, and when it ends."""
        if not self._console.is_terminal:
            lines = _Lines(self, title, total)
            yield lines
            lines.end()
            return
        if self._bars is None:
            self._bars = Bars(
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=self._console,
            )
            self._bars.start()
        bars = self._bars
        self._open += 1
        bar = _Bar(bars, bars.add_task(title, total=total, note=""))
        try:
            yield bar
            bar.end()
        finally:
            self._open -= 1
            if not self._open:
                bars.stop()
                self._bars = None

    def say(self, message: str) -> None:
        """Print one line that stays."""
        self._console.print(Text(message))


class _Bar:
    def __init__(self, bars: Bars, task: Any) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        self._bars.advance(self._task, steps)
        if note is not None:
            self._bars.update(self._task, note=note)

    def end(self) -> None:
        """Show a bar without a known total as full."""
        task = next(task for task in self._bars.tasks if task.id == self._task)
        self._bars.update(
            self._task, total=task.total or task.completed or 1, completed=task.total or task.completed or 1
        )


class _Lines:
    def __init__(self, progress: RichProgress, title: str, total: float | None) -> None:
        self._say, self._title, self._total = progress.say, title, total
        self._done, self._note = 0.0, ""
        self._started = self._told = time.monotonic()
        self._say(f"{title} …")

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        self._done += steps
        self._note = self._note if note is None else note
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            share = f"{self._done / self._total:.0%}" if self._total else f"{self._done:,.0f}"
            self._say(f"{self._title} {share} after {now - self._started:.0f} s {self._note}".rstrip())

    def end(self) -> None:
        """Say that it is done, and what was last noted."""
        note = f" ({self._note})" if self._note else ""
        self._say(f"{self._title}: done in {time.monotonic() - self._started:.1f} s{note}")
