"""Who is using a release: a shared lock on its manifest, which the kernel lets go when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from onesearch.errors import ArtifactError
from onesearch.releases.manifest import MANIFEST

_WAIT_S = 1.0


class Hold:
    """Keeps a release from being pruned until :meth:`release` is called or the process ends, by a kill too.

    On one machine, and on network file systems that carry ``flock`` (NFS 4, CephFS …).
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises ArtifactError where there is no release (any more)."""
        path = folder / MANIFEST
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
        until = time.monotonic() + _WAIT_S
        while not _locked(self._handle, fcntl.LOCK_SH):
            # Somebody asks just now whether anybody holds it, or removes it.
            if time.monotonic() > until:
                self.release()
                raise ArtifactError(f"{folder}: is being removed")
            time.sleep(0.01)
        if not path.exists():
            self.release()
            raise ArtifactError(f"{folder}: was removed just now")

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
    if _locked(handle, fcntl.LOCK_EX):
        return handle
    os.close(handle)
    return None


def _locked(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
