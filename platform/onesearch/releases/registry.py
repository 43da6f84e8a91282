"""The releases of a folder, and which of them is the champion."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch.plugins import nearest
from onesearch.releases.holding import is_held
from onesearch.releases.manifest import MANIFEST, Manifest, now
from onesearch.releases.release import Release, check_name

POINTER = "CHAMPION"
"""The file that names the champion; replaced in one step: a reader sees the old one or the new one."""
CHALLENGER = "CHALLENGER"
"""The file that names the challenger and its share, where there is one; replaced in one step as well."""
ANCHORS = "ANCHORS"
"""The file that says what each release was measured against in the long run; replaced in one step as well."""
M = TypeVar("M", bound=BaseModel)


class Promotion(BaseModel):
    """One change of champion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    at: datetime
    how: str
    """``promote`` or ``rollback``."""


class Challenger(BaseModel):
    """A release that answers some of the shoppers, to be compared with the champion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    share: float = Field(gt=0, lt=1)
    """Of the shoppers."""
    salt: str
    """Mixed into the hash that draws the shoppers, so that each comparison draws others."""
    since: datetime


class _Pointer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    champion: str
    previous: tuple[str, ...] = ()
    """Former champions, the latest last: what a rollback goes back to."""
    history: tuple[Promotion, ...] = ()


class _Anchors(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    of: dict[str, str] = {}
    """Release → its anchor."""


@dataclass(frozen=True)
class Listed:
    """One entry of a listing: a manifest, or what is wrong with it."""

    name: str
    champion: bool
    manifest: Manifest | None
    problem: str = ""
    challenger: bool = False
    served: bool = False
    """Whether a process of this machine holds it."""


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
        champion, challenger = self.champion(), self.challenger()
        found: list[Listed] = []
        for name in self.names():
            folder, manifest, problem = self.folder / name, None, ""
            try:
                manifest = Manifest.read(folder)
            except ArtifactError as error:
                problem = str(error)
            runs_up = challenger is not None and challenger.name == name
            found.append(Listed(name, name == champion, manifest, problem, runs_up, is_held(folder)))
        good = sorted((entry for entry in found if entry.manifest), key=_created, reverse=True)
        return good + [entry for entry in found if not entry.manifest]

    def champion(self) -> str | None:
        """Name of the champion, None where none was promoted yet."""
        pointer = self._pointer()
        return pointer.champion if pointer else None

    def previous(self) -> tuple[str, ...]:
        """Former champions that a rollback goes back to, the latest last."""
        pointer = self._pointer()
        return pointer.previous if pointer else ()

    def challenger(self) -> Challenger | None:
        """The challenger and its share, None where there is none."""
        return _read(self.folder / CHALLENGER, Challenger, "remove it, or name a challenger again")

    def anchor(self, name: str) -> str:
        """The release that successors of a release must not fall behind; itself where none was named.

        Each is compared with the one before it, and a little may be lost each time: an anchor stays where
        it is until something better comes, so that all of it together is held to one limit. Pruning keeps
        the champion's.
        """
        found = self._anchors().of.get(name, name)
        return found if found in self.names() else name

    def set_anchor(self, name: str, anchor: str) -> None:
        """Name the anchor of a release. Raises UsageError where one of them is not there."""
        for one in (name, anchor):
            self.path(one)
        with self.writing():
            there = self.names()
            known = {one: other for one, other in self._anchors().of.items() if one in there}
            _write(self.folder / ANCHORS, _Anchors(of=known | {name: anchor}))

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
        """Verify a release and its plugins, then make it the champion; on any error the old one stays.

        A challenger that is promoted is the challenger no more.
        """
        release = self._usable(name)
        with self.writing():
            pointer = self._pointer()
            if not pointer or pointer.champion != name:
                previous = (*pointer.previous, pointer.champion) if pointer else ()
                self._point(name, previous, "promote", pointer)
            self._end_challenge_of(name)
        return release

    def rollback(self) -> Release:
        """Make the previous champion the champion again. Raises UsageError where there is none."""
        pointer = self._pointer()
        if pointer is None or not pointer.previous:
            raise UsageError(f"{self.folder}: there is no previous champion to roll back to")
        release = self._usable(pointer.previous[-1])
        with self.writing():
            if self._pointer() != pointer:
                raise OneSearchError(f"{self.folder}: somebody changed the champion just now; look again")
            self._point(release.name, pointer.previous[:-1], "rollback", pointer)
            self._end_challenge_of(release.name)
        return release

    def challenge(self, name: str, share: float) -> Challenger:
        """Verify a release and its plugins, then let it answer a share of the shoppers.

        With the same name as before only the share changes: who was with the challenger stays with it where
        the share grows.

        Raises:
            UsageError: there is no champion, the release is it, or the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise UsageError(f"share {share:g}: the challenger's share of the shoppers is between 0 and 1")
        release = self._usable(name)
        with self.writing():
            champion, old = self.champion(), self.challenger()
            if champion is None:
                raise UsageError(f"{self.folder}: there is no champion yet that could be challenged")
            if champion == release.name:
                raise UsageError(f"'{release.name}' is the champion; name another release as challenger")
            if old is not None and old.name == release.name:
                new = old.model_copy(update={"share": share})
            else:
                new = Challenger(name=release.name, share=share, salt=secrets.token_hex(8), since=now())
            _write(self.folder / CHALLENGER, new)
        return new

    def end_challenge(self) -> str | None:
        """All shoppers go to the champion again; return whom it was that challenged."""
        with self.writing():
            challenger = self.challenger()
            (self.folder / CHALLENGER).unlink(missing_ok=True)
        return challenger.name if challenger else None

    def forget_previous(self) -> None:
        """Drop former champions that are gone, so that a rollback finds the latest one that is there."""
        with self.writing():
            pointer = self._pointer()
            names = self.names()
            if pointer and any(name not in names for name in pointer.previous):
                kept = tuple(name for name in pointer.previous if name in names)
                _write(self.folder / POINTER, pointer.model_copy(update={"previous": kept}))

    def _usable(self, name: str) -> Release:
        """A release that was verified, with all its plugins."""
        release = Release.open(self.path(check_name(name)))
        release.require_plugins()
        return release

    def _end_challenge_of(self, name: str) -> None:
        challenger = self.challenger()
        if challenger and challenger.name == name:
            (self.folder / CHALLENGER).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One writer at a time: reading a pointer and replacing it belong together."""
        try:
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _anchors(self) -> _Anchors:
        return _read(self.folder / ANCHORS, _Anchors, "remove it: each release is its own anchor then") or (
            _Anchors()
        )

    def _pointer(self) -> _Pointer | None:
        return _read(self.folder / POINTER, _Pointer, "promote a release again after removing it")

    def _point(self, name: str, previous: tuple[str, ...], how: str, old: _Pointer | None) -> None:
        history = (*(old.history if old else ()), Promotion(name=name, at=now(), how=how))
        _write(self.folder / POINTER, _Pointer(champion=name, previous=previous, history=history))


def _read(path: Path, kind: type[M], remedy: str) -> M | None:
    """What a pointer file says; None where there is no file."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(f"{path}: cannot be read; {remedy} ({error})") from error


def _write(path: Path, value: BaseModel) -> None:
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(value.model_dump_json(indent=1) + "\n")
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
