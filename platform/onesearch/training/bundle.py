"""A folder laid out as the release, of links to what the stages made: servers open it meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

from onesearch.contracts.offers import Role


class Bundle:
    """The links of one training, made anew by every run."""

    def __init__(self, folder: Path) -> None:
        """In this folder; what an earlier run left there is removed."""
        if folder.exists():
            shutil.rmtree(folder)
        (folder / "learners").mkdir(parents=True)
        self.folder = folder

    def link(self, part: str, made: Path) -> None:
        """Let a part of the release be what stands there, now or later."""
        link = self.folder / part
        link.unlink(missing_ok=True)
        link.symlink_to(made.resolve())

    def follow(self, role: Role, made: Path) -> None:
        """Let a component be the one exported to ``made/served`` and saved in ``made/learner``."""
        self.link(role, made / "served")
        self.link(f"learners/{role}", made / "learner")
