"""What a model has made of the last generations of the catalogue, each for the requests that name it.

A model process opens a generation when it first hears of its number, in a thread of its own while it goes on
answering under the others; only who asks for the new one is told to wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from onesearch.catalogue.generations import Generation, Generations
from onesearch.errors import OneSearchError, ServingError

KEPT = 3
"""Generations at once: the announced one, the one before (pages, and what is under way), and the next."""
_LOG = logging.getLogger("onesearch.held")
Part = TypeVar("Part")


class NotHeldError(ServingError):
    """A generation is not open (yet)."""


class Held(Generic[Part]):
    """The last few generations of one part of a model."""

    def __init__(
        self,
        number: int,
        part: Part,
        follow: Callable[[Generation, Part], Part],
        generations: Generations | None,
    ) -> None:
        """Begins with a part made of the release's own generation.

        Args:
            number, part: of that generation.
            follow: makes the part of a generation, given that of an earlier one, which stays in use.
            generations: where they come from; None: there is only the first.
        """
        self._parts = {number: part}
        self._follow = follow
        self._generations = generations
        self._failed: dict[int, str] = {}
        self._lock = threading.Lock()
        self._opening: threading.Thread | None = None

    @property
    def newest(self) -> int:
        """The highest number that is open."""
        return max(self._parts)

    def at(self, number: int) -> Part:
        """The part of a generation; of the newest for a number below 0.

        Raises:
            NotHeldError: it is not open. It will be soon if it can be opened, or the message says why not.
        """
        parts = self._parts
        if number < 0:
            return parts[max(parts)]
        if number not in parts:
            why = self._failed.get(number, "")
            self.prepare(number)
            raise NotHeldError(f"generation {number} of the catalogue is not open{why and ': '}{why}")
        return parts[number]

    def prepare(self, number: int) -> None:
        """Begin to open a generation, where that is not done or under way."""
        with self._lock:
            if number in self._parts or (self._opening is not None and self._opening.is_alive()):
                return
            self._opening = threading.Thread(target=self._open, args=(number,), daemon=True)
            self._opening.start()

    def wait(self) -> None:
        """Wait for what is being opened."""
        if self._opening is not None:
            self._opening.join()

    def _open(self, number: int) -> None:
        try:
            if self._generations is None:
                raise ServingError("no live catalogue is followed")
            made = self._follow(self._generations.get(number), self.at(-1))
        except Exception as error:  # whatever a plugin raises, the other generations go on
            told = str(error) if isinstance(error, OneSearchError) else f"{type(error).__name__}: {error}"
            _LOG.warning("generation %d cannot be opened: %s", number, told)
            self._failed = {number: told}
            return
        parts = {**self._parts, number: made}
        self._parts = {one: parts[one] for one in sorted(parts)[-KEPT:]}
        self._failed.pop(number, None)
