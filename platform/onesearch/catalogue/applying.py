"""From changes to the next generation: items are encoded, put into the tree, and written for all to map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from onesearch.catalogue.changes import Change
from onesearch.catalogue.generations import KEPT, Generations
from onesearch.catalogue.log import ChangeLog, locked
from onesearch.catalogue.planning import Planner
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.releases.release import Release


@dataclass(frozen=True)
class Applied:
    """What a batch of changes came to.

    Attributes:
        generation: the newest one now. items: that are alive in it.
        added, changed, withdrawn: items. encoded: of them, those that got a vector and a SID.
        ignored: changes that were nothing new.
        refused: id and reason of what could not be done.
        seconds: by part: ``encode``, ``tree``, ``write``.
    """

    generation: int
    items: int
    added: int = 0
    changed: int = 0
    withdrawn: int = 0
    encoded: int = 0
    ignored: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class Applier:
    """Makes the generations of one release's catalogue. Several processes may: one waits for the other."""

    def __init__(self, catalogue: Path, release: Release, keep: int = KEPT) -> None:
        """Opens the newest generation, or else the release's index, and the release's tokenizer.

        Raises OneSearchError where either cannot be opened.
        """
        self.log = ChangeLog(catalogue)
        self.generations = Generations.of_release(catalogue, release.path)
        self._keep = keep
        context = release.context(Runtime(threads=1))
        self._tokenizer = cast(TokenizerServer, release.server("tokenizer", context))
        newest = self.generations.newest()
        if newest is None:
            self._folder, self.index, self.through = release.path / "index", release.index, 0
        else:
            self._folder, self.index, self.through = newest.folder, newest.load(), newest.through

    def accept(self, changes: Sequence[Change], marks: Mapping[str, int] | None = None) -> Applied:
        """Write changes to the log, then make the generation that holds them."""
        self.log.append(changes, marks)
        return self.catch_up()

    def catch_up(self) -> Applied:
        """Make the generation that holds all that is in the log; the newest one if that does already."""
        with locked(self.generations.folder):
            newest = self.generations.newest()
            if newest is not None and newest.number != self.index.generation:  # another process made it
                self._folder, self.index, self.through = newest.folder, newest.load(), newest.through
            return self._catch_up()

    def _catch_up(self) -> Applied:
        known, through = self.log.since(self.through)
        plan = Planner(self.index, self._tokenizer).plan(list(known.values()))
        seconds = {"encode": plan.encode_s, "tree": 0.0, "write": 0.0}
        if not plan.nothing:
            number = max([self.index.generation, *self.generations.numbers()]) + 1
            started = time.perf_counter()
            index = self.index.following(plan.changes, number)
            written = time.perf_counter()
            made = self.generations.write(index, through, (self._folder, self.index))
            seconds |= {"tree": written - started, "write": time.perf_counter() - written}
            self._folder, self.index = made.folder, index
            self.generations.prune(self._keep)
        self.through = through
        return Applied(
            self.index.generation,
            self.index.live_count,
            plan.added,
            plan.changed,
            plan.withdrawn,
            plan.encoded,
            plan.ignored,
            plan.refused,
            {name: round(value, 4) for name, value in seconds.items()},
        )
