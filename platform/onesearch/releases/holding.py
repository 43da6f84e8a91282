"""Who is using a release: a shared lock on its manifest, which the kernel lets go when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from onesearch.errors import ArtifactError
from onesearch.releases.manifest import MANIFEST


class Hold:
    """Keeps a release from being pruned until :meth:`release` is called or the process ends, by a kill too.

    On one machine, and on network file systems that carry ``flock`` (NFS 4, CephFS …).
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises ArtifactError where there is no release (any more)."""
        path = folder / MANIFEST
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise ArtifactError(f"{folder}: is being removed") from None
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error

    def release(self) -> None:
        """Let go. Safe to call twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_held(folder: Path) -> bool:
    """Whether any process holds the release."""
    handle = _exclusive(folder)
    if handle is None:
        return True
    os.close(handle)
    return False


def _exclusive(folder: Path) -> int | None:
    """A handle with the exclusive lock, until it is closed; None while anybody holds the release."""
    handle = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def take_away(folder: Path, target: Path) -> bool:
    """Rename a release that nobody holds; False, and nothing done, where somebody does."""
    handle = _exclusive(folder)
    if handle is None:
        return False
    try:
        folder.rename(target)
    finally:
        os.close(handle)
    return True
