"""What a night reads, all of it as its first step pinned it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.catalogue.changes import Change
from onesearch.config import Config
from onesearch.data.store import Store
from onesearch.errors import OneSearchError, UsageError
from onesearch.releases.manifest import Manifest
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release

from onesearch_streaming.nightly.delta import log_version, read_log
from onesearch_streaming.nightly.pinning import copied_changes, copy_changes
from onesearch_streaming.nightly.settings import NightlySettings
from onesearch_streaming.nightly.window import Window, events_of, without_days
from onesearch_streaming.snapshot import changed_items


@dataclass
class Inputs:
    """What the steps of a night read.

    Attributes:
        store_path, log_path, releases, config, night, catalogue: as :func:`run_night` is given them.
        folder: of the night, for messages.
        pinned: what :meth:`pin` returned; told: changes of the live catalogue by item id. Set by
            :meth:`hold_to`, and read by all that follows.
    """

    store_path: Path
    log_path: Path | None
    releases: Path
    config: Config
    night: date
    catalogue: Path | None
    folder: Path
    pinned: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Change] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The challenger's name."""
        return f"night-{self.night.isoformat()}"

    @cached_property
    def settings(self) -> NightlySettings:
        """The table ``[nightly]``."""
        return self.config.section("nightly", NightlySettings)

    @cached_property
    def window(self) -> Window:
        """The night's days."""
        return Window.of(self.night, self.settings)

    @cached_property
    def registry(self) -> Registry:
        """Of the releases."""
        return Registry(self.releases)

    def pin(self, out: Path) -> dict[str, Any]:
        """What could differ between two tries. The live catalogue's changes are copied to a folder.

        Raises UsageError where there is no champion, or the challenger's name is taken.
        """
        champion = self.registry.champion()
        if champion is None:
            raise UsageError(
                f"{self.releases} has no champion to learn on from: onesearch train … --promote, first"
            )
        if (self.releases / self.name).exists():
            raise UsageError(
                f"release '{self.name}' exists already, and {self.folder} knows nothing of it: remove "
                "one to do "
                f"the night of {self.night} again"
            )
        manifest = Manifest.read(self.registry.path(champion))
        anchor = self.registry.anchor(champion)
        return {
            "champion": champion,
            "champion_content": manifest.content_hash(),
            "anchor": anchor,
            "anchor_content": Manifest.read(self.registry.path(anchor)).content_hash(),
            "version": None if self.log_path is None else log_version(self.log_path),
            "store": Store.open(self.store_path).fingerprint(),
            "catalogue": copy_changes(self.catalogue, out),
        }

    def hold_to(self, pinned: dict[str, Any], changes: Path) -> None:
        """Read from now on what was pinned, and the changes that were copied to a folder."""
        self.pinned, self.told = pinned, copied_changes(changes)

    @cached_property
    def base(self) -> Store:
        """The base store. Raises OneSearchError where it changed since the night began."""
        store = Store.open(self.store_path)
        if store.fingerprint() != self.pinned["store"]:
            raise OneSearchError(
                f"{store.path} changed since the night of {self.night} began; remove {self.folder} to "
                "begin anew"
            )
        return store

    @cached_property
    def items(self) -> pl.DataFrame:
        """The catalogue: the base's, with what the live one was told."""
        return changed_items(self.base.items(), self.told) if self.told else self.base.items()

    @cached_property
    def champion(self) -> Release:
        """The champion of when the night began."""
        return self._as_pinned("champion")

    def anchor(self) -> Release | None:
        """The anchor, where it is another one than the champion."""
        if not self.settings.gate.anchor or self.pinned["anchor"] == self.pinned["champion"]:
            return None
        return self._as_pinned("anchor")

    def challenger(self) -> Release:
        """What the night trained."""
        return Release.open(self.registry.path(self.name), verify=False, plugins=self.config.plugins)

    def events(self, baseline: bool = False) -> pl.LazyFrame:
        """What happened in the window, as pinned; ``baseline``: and in the days that checks compare with."""
        since = self.window.baseline if baseline else self.window.start
        log = None
        if self.log_path is not None:
            log = read_log(self.log_path, self.pinned["version"], since)
        return events_of(self.base, log, since, self.window.end)

    def good_events(self, skipped: list[str]) -> pl.LazyFrame:
        """The same without some days (ISO dates)."""
        return without_days(self.events(), [date.fromisoformat(day) for day in skipped])

    def _as_pinned(self, role: str) -> Release:
        release = Release.open(
            self.registry.path(self.pinned[role]), verify=False, plugins=self.config.plugins
        )
        if release.manifest.content_hash() != self.pinned[f"{role}_content"]:
            raise OneSearchError(
                f"release '{release.name}' is another one than when the night of {self.night} began; remove "
                f"{self.folder} to begin anew"
            )
        return release
