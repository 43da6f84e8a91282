"""The releases of a folder, and which of them is the champion."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch.plugins import nearest
from onesearch.releases.manifest import MANIFEST, Manifest, now
from onesearch.releases.release import Release, check_name

POINTER = "CHAMPION"
"""The file that names the champion; replaced in one step: a reader sees the old one or the new one."""


class Promotion(BaseModel):
    """One change of champion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    at: datetime
    how: str
    """``promote`` or ``rollback``."""


class _Pointer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    champion: str
    previous: tuple[str, ...] = ()
    """Former champions, the latest last: what a rollback goes back to."""
    history: tuple[Promotion, ...] = ()


@dataclass(frozen=True)
class Listed:
    """One entry of a listing: a manifest, or what is wrong with it."""

    name: str
    champion: bool
    manifest: Manifest | None
    problem: str = ""


class Registry:
    """A folder of releases."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def names(self) -> list[str]:
        """Names of all releases, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if not path.name.startswith(".") and (path / MANIFEST).is_file()
        )

    def listing(self) -> list[Listed]:
        """All releases, the newest first; broken ones last, with what is wrong."""
        champion = self.champion()
        found: list[Listed] = []
        for name in self.names():
            try:
                found.append(Listed(name, name == champion, Manifest.read(self.folder / name)))
            except ArtifactError as error:
                found.append(Listed(name, name == champion, None, str(error)))
        good = sorted((entry for entry in found if entry.manifest), key=_created, reverse=True)
        return good + [entry for entry in found if not entry.manifest]

    def champion(self) -> str | None:
        """Name of the champion, None where none was promoted yet."""
        pointer = self._pointer()
        return pointer.champion if pointer else None

    def history(self) -> tuple[Promotion, ...]:
        """All changes of champion, the oldest first."""
        pointer = self._pointer()
        return pointer.history if pointer else ()

    def path(self, name: str) -> Path:
        """Folder of a release. Raises UsageError naming the nearest one where there is none."""
        names = self.names()
        if name not in names:
            known = f"; there are: {', '.join(names)}" if names else ""
            raise UsageError(f"no release '{name}' in {self.folder}{nearest(name, names) or known}")
        return self.folder / name

    def promote(self, name: str) -> Release:
        """Verify a release and its plugins, then make it the champion; on any error the old one stays."""
        release = Release.open(self.path(check_name(name)))
        release.require_plugins()
        pointer = self._pointer()
        if pointer and pointer.champion == name:
            return release
        previous = (*pointer.previous, pointer.champion) if pointer else ()
        self._point(name, previous, "promote", pointer)
        return release

    def rollback(self) -> Release:
        """Make the previous champion the champion again. Raises UsageError where there is none."""
        pointer = self._pointer()
        if pointer is None or not pointer.previous:
            raise UsageError(f"{self.folder}: there is no previous champion to roll back to")
        name = pointer.previous[-1]
        release = Release.open(self.path(name))
        release.require_plugins()
        self._point(name, pointer.previous[:-1], "rollback", pointer)
        return release

    def _pointer(self) -> _Pointer | None:
        path = self.folder / POINTER
        try:
            return _Pointer.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            raise ArtifactError(
                f"{path}: cannot be read; promote a release again after removing it ({error})"
            ) from error

    def _point(self, name: str, previous: tuple[str, ...], how: str, old: _Pointer | None) -> None:
        history = (*(old.history if old else ()), Promotion(name=name, at=now(), how=how))
        pointer = _Pointer(champion=name, previous=previous, history=history)
        path = self.folder / POINTER
        draft = path.with_name(f".{POINTER}-{os.getpid()}")
        try:
            with draft.open("w", encoding="utf-8") as stream:
                stream.write(pointer.model_dump_json(indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OneSearchError(f"{path}: cannot be written ({error})") from error


def find_release(path: Path | str) -> Path:
    """The release that a path means: a release's folder itself, or the champion of a folder of releases."""
    folder = Path(path)
    if (folder / MANIFEST).is_file():
        return folder
    champion = Registry(folder).champion() if folder.is_dir() else None
    if champion is not None:
        return Registry(folder).path(champion)
    if not folder.exists():
        names = Registry(folder.parent).names()
        raise UsageError(f"{folder}: there is no such release{nearest(folder.name, names)}")
    raise UsageError(f"{folder}: neither a release (no {MANIFEST}) nor a folder of releases with a champion")


def _created(entry: Listed) -> datetime:
    assert entry.manifest is not None
    return entry.manifest.created
