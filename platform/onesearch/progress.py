"""Progress of long work, told to whoever looks: a bar on a terminal, lines in a log, nothing in a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        """Tell that ``steps`` more of the total are done; ``note`` replaces the text behind the bar."""


class Progress(Protocol):
    """Where work tells how far it is."""

    def task(self, title: str, total: float | None = None) -> _TaskContext:
        """Open a task; use as a context manager."""

    def say(self, message: str) -> None:
        """Print one line that stays."""


class _TaskContext(Protocol):
    def __enter__(self) -> Task: ...
    def __exit__(self, *exc: Any) -> bool | None: ...


class _SilentTask:
    def advance(self, steps: float = 1, note: str | None = None) -> None:
        """Do nothing."""


class SilentProgress:
    """Tells nobody: for tests and servers."""

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield _SilentTask()

    def say(self, message: str) -> None:
        """Say nothing."""
