"""Keeps the generations of releases up to what the log of changes says, whoever writes the log."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from onesearch.catalogue.applying import Applied, Applier
from onesearch.catalogue.log import ChangeLog
from onesearch.errors import OneSearchError
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release

_LOG = logging.getLogger("onesearch.catalogue")
LOOK_EVERY_S = 0.1
_PAUSE_S = 2.0


class Keeper:
    """Makes generations for those releases that serve. Several may run over one catalogue."""

    def __init__(self, catalogue: Path, wanted: Callable[[], Sequence[Path]]) -> None:
        """``wanted`` names the folders of the releases, and is asked again and again."""
        self._log = ChangeLog(catalogue)
        self._catalogue = catalogue
        self._wanted = wanted
        self._appliers: dict[Path, Applier] = {}

    def run(self, told: Callable[[str, Applied], None], stop: Callable[[], bool]) -> None:
        """Look ten times a second until ``stop``; what fails is told in the log and tried again."""
        while not stop():
            try:
                for name, applied in self.step():
                    told(name, applied)
            except OneSearchError as error:
                _LOG.error("%s; trying again", error)
                self._appliers.clear()
                time.sleep(_PAUSE_S)
            time.sleep(LOOK_EVERY_S)

    def step(self) -> list[tuple[str, Applied]]:
        """Make what is missing; what was made, by release.

        Raises OneSearchError where that fails.
        """
        last, wanted = self._log.last, list(self._wanted())
        self._appliers = {path: own for path, own in self._appliers.items() if path in wanted}
        made = []
        for path in wanted:
            applier = self._appliers.get(path)
            if applier is None:
                applier = self._appliers[path] = Applier(self._catalogue, Release.open(path, verify=False))
            if last > applier.through:
                made.append((path.name, applier.catch_up()))
        return made


def serving(registry: Registry) -> list[Path]:
    """Folders of the releases that a registry has answer: champion and challenger."""
    champion, challenger = registry.champion(), registry.challenger()
    names = dict.fromkeys([*([champion] if champion else []), *([challenger.name] if challenger else [])])
    return [registry.path(name) for name in names]


def orphaned(parent: int) -> bool:
    """Whether the process that started this one is gone."""
    return os.getppid() != parent
