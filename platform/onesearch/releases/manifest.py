"""What a release says of itself: its components, where they come from, and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onesearch.contracts.offers import Role
from onesearch.errors import ArtifactError

FORMAT = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""sha256 of the manifest's bytes, as ``sha256sum -c`` reads it: a changed manifest is noticed as well."""
REPORTS = "reports"
"""The one folder that may grow after a release is written (evaluations land there)."""


class FileEntry(BaseModel):
    """One file of a release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int = Field(ge=0)


class ComponentEntry(BaseModel):
    """One component of a release: code is not in the release, so this says which code is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: str
    """The offer's name."""
    distribution: str
    """The distribution that offers it."""
    version: str
    """That distribution's version; another one is refused."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The settings it was trained with."""


class Manifest(BaseModel):
    """``manifest.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    name: str
    created: datetime
    onesearch: str
    """Version of the platform that wrote it."""
    store: str = ""
    """Fingerprint of the store it was trained on."""
    store_path: str = ""
    """Where that store was; evaluation builds its baselines from it."""
    components: dict[Role, ComponentEntry]
    metrics: dict[str, Any] = Field(default_factory=dict)
    """Figures by training stage."""
    files: dict[str, FileEntry] = Field(default_factory=dict)

    def content_hash(self) -> str:
        """One hash of all that serving depends on: every file but the reports. Equal for equal releases."""
        lines = [
            f"{entry.sha256}  {path}\n"
            for path, entry in sorted(self.files.items())
            if not path.startswith(f"{REPORTS}/")
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write manifest and seal into a folder."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        (folder / SEAL).write_text(f"{digest}  {MANIFEST}\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest. Raises ArtifactError naming what is missing or changed."""
        path = folder / MANIFEST
        if not path.is_file():
            raise ArtifactError(f"{folder}: not a release (there is no {MANIFEST})")
        try:
            raw = path.read_bytes()
            seal = (folder / SEAL).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{folder / SEAL}: cannot be read ({error})") from error
        if seal != f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n":
            raise ArtifactError(f"{path}: it was changed after the release was written ({SEAL} does not fit)")
        try:
            about = json.loads(raw)
            found = about.get("format")
            if found != FORMAT:
                raise ArtifactError(
                    f"{path}: release format {found!r}; this version of onesearch reads format {FORMAT}"
                )
            return cls.model_validate(about)
        except (ValueError, AttributeError, ValidationError) as error:
            raise ArtifactError(f"{path}: not a release manifest ({error})") from error


def hash_files(folder: Path, paths: Iterable[str], threads: int = 4) -> dict[str, FileEntry]:
    """sha256 and size of files of a folder, several at a time (hashing lets other threads run)."""

    def entry(path: str) -> FileEntry:
        file = folder / path
        with file.open("rb") as stream:
            return FileEntry(
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(),
                size=os.fstat(stream.fileno()).st_size,
            )

    names = sorted(paths)
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(names, pool.map(entry, names), strict=True))


def files_of(folder: Path) -> list[str]:
    """Relative paths of all files of a release folder, manifest and seal aside."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path not in (MANIFEST, SEAL))


def check_files(folder: Path, manifest: Manifest, contents: bool) -> None:
    """Compare a folder with its manifest: presence and sizes always, every byte where ``contents``.

    Raises:
        ArtifactError: a file is missing, truncated, changed, or not of the release; the message names it.
    """
    for path, entry in manifest.files.items():
        try:
            size = (folder / path).stat().st_size
        except OSError:
            raise ArtifactError(f"{folder / path}: missing from release '{manifest.name}'") from None
        if size != entry.size:
            raise ArtifactError(
                f"{folder / path}: {size} bytes, release '{manifest.name}' was written with {entry.size}"
            )
    for path in files_of(folder):
        if path not in manifest.files and not path.startswith(f"{REPORTS}/"):
            raise ArtifactError(f"{folder / path}: not a part of release '{manifest.name}'")
    if contents:
        try:
            found = hash_files(folder, manifest.files)
        except OSError as error:
            raise ArtifactError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
        for path, entry in manifest.files.items():
            if found[path] != entry:
                raise ArtifactError(
                    f"{folder / path}: it was changed after release '{manifest.name}' was written"
                )


def now() -> datetime:
    """The present moment in whole seconds, UTC."""
    return datetime.now(UTC).replace(microsecond=0)
