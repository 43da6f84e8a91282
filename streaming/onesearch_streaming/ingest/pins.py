"""Versions of the log that somebody is at work on: whoever vacuums it spares their files.

::

    <log>/_pins/<name>    the number of a version; Delta's readers and writers pass over the folder
"""

from __future__ import annotations

from pathlib import Path

from onesearch.errors import ArtifactError

PINS = "_pins"


def pin(path: Path | str, name: str, version: int) -> None:
    """Keep a version's files until :func:`unpin`: somebody is at work on it."""
    folder = Path(path) / PINS
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.draft"
    draft.write_text(f"{version}\n", encoding="utf-8")
    draft.replace(folder / name)


def unpin(path: Path | str, name: str) -> None:
    """Let go of a version; one that is not pinned is left alone."""
    (Path(path) / PINS / name).unlink(missing_ok=True)


def pins(path: Path | str) -> dict[str, int]:
    """Pinned versions by name. Raises ArtifactError where one cannot be read."""
    folder = Path(path) / PINS
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith("."):
            continue
        try:
            found[file.name] = int(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{file}: does not name a version ({error})") from error
    return found
