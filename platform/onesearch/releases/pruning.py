"""Removing releases that nobody needs any more: never one that serves, or that a rollback would want."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from onesearch.errors import OneSearchError, UsageError
from onesearch.releases.holding import take_away
from onesearch.releases.registry import Registry

PINNED = "PINNED"
"""The file with the names of releases that are never pruned, one a line."""


@dataclass(frozen=True)
class Pruned:
    """What was done.

    Attributes:
        removed: names, and their size in bytes together.
        kept: name → why.
    """

    removed: tuple[str, ...]
    kept: dict[str, str]
    freed: int


def pinned(registry: Registry) -> list[str]:
    """Names of pinned releases."""
    try:
        return (registry.folder / PINNED).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise OneSearchError(f"{registry.folder / PINNED}: cannot be read ({error})") from error


def pin(registry: Registry, name: str, wanted: bool = True) -> list[str]:
    """Pin a release, or let it go; return the names that are pinned then."""
    registry.path(name)
    with registry.writing():
        names = [other for other in pinned(registry) if other != name] + ([name] if wanted else [])
        path = registry.folder / PINNED
        draft = path.with_name(f".{PINNED}-{os.getpid()}")
        try:
            draft.write_text("".join(f"{one}\n" for one in names), encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise OneSearchError(f"{path}: cannot be written ({error})") from error
    return names


def prune(registry: Registry, keep: int, dry_run: bool = False) -> Pruned:
    """Remove all releases but those that are needed.

    Kept are the champion, the one before it (a rollback's), the anchors of both, the challenger, pinned ones,
    whatever a process holds (serves, say), and the ``keep`` newest of the rest; broken ones are of the rest,
    and the oldest.

    Raises:
        UsageError: ``keep`` is negative.
        OneSearchError: a pointer cannot be read, or a folder not be removed; nothing further is touched.
    """
    if keep < 0:
        raise UsageError(f"keep {keep}: at least 0 releases are kept")
    with registry.writing():
        kept = _needed(registry)
        rest = [entry for entry in registry.listing() if entry.name not in kept]
        kept |= {entry.name: "served" for entry in rest if entry.served}
        rest = [entry for entry in rest if not entry.served]
        kept |= {entry.name: "new" for entry in rest[:keep]}
        removed, freed = [], 0
        for entry in rest[keep:]:
            folder = registry.folder / entry.name
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if not dry_run and not _remove(folder):
                kept[entry.name] = "served"  # by somebody who began just now
                continue
            removed.append(entry.name)
            freed += size
    if removed and not dry_run:
        registry.forget_previous()
    return Pruned(tuple(removed), kept, freed)


def _needed(registry: Registry) -> dict[str, str]:
    """Name → why, the first reason that holds."""
    kept = dict.fromkeys(pinned(registry), "pinned")
    challenger, champion, previous = registry.challenger(), registry.champion(), registry.previous()
    if challenger is not None:
        kept[challenger.name] = "challenger"
    for name in (*previous[-1:], *([champion] if champion else [])):
        kept[registry.anchor(name)] = "anchor"
    if previous:
        kept[previous[-1]] = "previous champion"
    if champion is not None:
        kept[champion] = "champion"
    return {name: why for name, why in kept.items() if name in registry.names()}


def _remove(folder: Path) -> bool:
    """Remove a release in two steps: at no moment is half of it a release. False where it is held."""
    for left in folder.parent.glob(".pruned-*"):  # of one that was interrupted
        shutil.rmtree(left, ignore_errors=True)
    away = folder.with_name(f".pruned-{os.getpid()}-{folder.name}")
    try:
        if not take_away(folder, away):
            return False
        shutil.rmtree(away)
    except OSError as error:
        raise OneSearchError(f"{folder}: cannot be removed ({error})") from error
    return True
