"""A release: one immutable folder of tokenizer, user encoder, generator, reward and index.

.. code-block:: text

    <releases>/<name>/
        manifest.json, manifest.sha256    what it is, sha256 of every file
        config.toml                       the whole configuration it was trained with
        vocabulary/  index/               the prompts' id space; items, SIDs, vectors, codebooks
        tokenizer/ user_encoder/ generator/ reward/     exported: what servers open
        learners/<role>/                  saved learners: what further training opens
        reports/                          figures and plots
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import BaseModel, ValidationError

from onesearch import config as configuration
from onesearch._files import sync
from onesearch.contracts.offers import ROLES, Learner, Offer, Role, Server, ServingContext
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.errors import ArtifactError, ConfigError, OneSearchError, PluginError, UsageError
from onesearch.index import CatalogueIndex
from onesearch.plugins import CORE_DISTRIBUTION, Plugins, load_plugins
from onesearch.releases.manifest import ComponentEntry, Manifest, check_files, files_of, hash_files, now
from onesearch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onesearch.compiling.runtime import Runtime

CONFIG = "config.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Release:
    """An opened release.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
    """

    path: Path
    manifest: Manifest
    plugins: Plugins = field(default_factory=load_plugins, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, verify: bool = True, plugins: Plugins | None = None) -> Release:
        """Open a folder. Missing and truncated files are always noticed, changed ones when ``verify``.

        Raises:
            ArtifactError: a file is missing, truncated or changed; the message names it.
        """
        folder = Path(path)
        manifest = Manifest.read(folder)
        check_files(folder, manifest, contents=verify)
        return cls(folder, manifest, plugins or load_plugins())

    @property
    def name(self) -> str:
        """The release's name."""
        return self.manifest.name

    @cached_property
    def config(self) -> configuration.Config:
        """The configuration it was trained with. Raises ArtifactError where it does not fit this platform."""
        try:
            return configuration.load_config(self.path / CONFIG, self.plugins)
        except ConfigError as error:
            self.require_plugins()
            raise ArtifactError(str(error)) from error

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The id space of prompts."""
        return Vocabulary.load(self.path / "vocabulary")

    @cached_property
    def index(self) -> CatalogueIndex:
        """The catalogue."""
        return CatalogueIndex.load(self.path / "index", self.config.serving.node_vectors)

    def require_plugins(self) -> None:
        """Raise PluginError where a plugin is not installed in the version that the release needs."""
        for role in ROLES:
            self.offer(role)

    def offer(self, role: Role) -> Offer:
        """The offer of a role.

        Raises:
            PluginError: its plugin is not installed, or in another version.
        """
        entry = self.manifest.components[role]
        wanted = (
            f"release '{self.name}' needs {role} '{entry.component}' of {entry.distribution} {entry.version}"
        )
        try:
            found = self.plugins.find(role, entry.component)
        except ConfigError as error:
            reasons = [str(refused) for refused in self.plugins.refused]
            why = "; ".join(reasons) or "no installed plugin offers it"
            raise PluginError(f"{wanted}: {why}") from error
        if (found.distribution, found.version) != (entry.distribution, entry.version):
            raise PluginError(f"{wanted}; installed is {found.distribution} {found.version}")
        return found.offer

    def settings(self, role: Role) -> BaseModel:
        """The settings that a component was trained with."""
        try:
            return self.offer(role).config.model_validate(self.manifest.components[role].config)
        except ValidationError as error:
            raise ArtifactError(f"{self.path}: settings of {role} do not fit ({error})") from error

    def context(self, runtime: Runtime) -> ServingContext:
        """What servers may use of this release."""
        self.require_plugins()
        context = serving_context(self.path, self.vocabulary, self.index, runtime)
        return replace(context, query_sids=QuerySids(lambda: self.server("tokenizer", context)))

    def server(self, role: Role, context: ServingContext) -> Server:
        """Open the serving half of a component."""
        return self.offer(role).server_class().open(self.path / role, context, self.settings(role))

    def renewed(self, role: Role, server: Server, context: ServingContext) -> Server:
        """The serving half of a component for the catalogue generation of ``context``."""
        return server.renewed(context) or self.server(role, context)

    def learner(self, role: Role) -> Learner:
        """Load the learning half of a component, for further training."""
        return self.offer(role).learner_class().load(self.path / "learners" / role, self.settings(role))


def serving_context(
    folder: Path, vocabulary: Vocabulary, index: CatalogueIndex, runtime: Runtime
) -> ServingContext:
    """The context of servers over a release's folder, or over one that is about to become a release."""
    return ServingContext(folder, vocabulary, index, runtime, {role: folder / role for role in ROLES})


class QuerySids:
    """SIDs of query texts by a tokenizer that is opened when the first is asked for."""

    def __init__(self, open_tokenizer: Callable[[], Server]) -> None:
        self._open = open_tokenizer
        self._tokenizer: TokenizerServer | None = None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """i32[B, L]."""
        if self._tokenizer is None:
            self._tokenizer = cast(TokenizerServer, self._open())
        return self._tokenizer.quantise(self._tokenizer.embed(texts, "query"))


def write_release(
    releases: Path,
    name: str,
    source: Path,
    config: configuration.Config,
    store: str = "",
    store_path: str = "",
    metrics: dict[str, Any] | None = None,
) -> Release:
    """Copy a finished folder into ``<releases>/<name>``, seal it, and let it appear in one step.

    Args:
        releases: folder of all releases; made where missing.
        name: the release's name; must be free.
        source: folder laid out as a release, without config, manifest and seal.
        config: the configuration it was trained with.
        store: fingerprint of the store. store_path: where it is.
        metrics: figures by stage.

    Raises:
        UsageError: the name is taken or not fit for a folder.
        OneSearchError: there is no space, or the folder cannot be written; nothing is left behind.
    """
    target = releases / check_name(name)
    if target.exists():
        raise UsageError(f"release '{name}' exists already in {releases}; releases are never overwritten")
    draft = releases / f".draft-{os.getpid()}-{name}"
    try:
        releases.mkdir(parents=True, exist_ok=True)
        _sweep(releases)
        shutil.copytree(source, draft)
        (draft / CONFIG).write_text(config.dump(), encoding="utf-8")
        manifest = Manifest(
            name=name,
            created=now(),
            onesearch=platform_version(),
            store=store,
            store_path=store_path,
            components=_components(config),
            metrics=metrics or {},
            files=hash_files(draft, files_of(draft)),
        )
        manifest.write(draft)
        for path in [*files_of(draft), "manifest.json", "manifest.sha256"]:
            sync(draft / path)
        draft.rename(target)
        sync(releases)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OneSearchError(f"release '{name}' cannot be written to {releases}: {error}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Release(target, manifest, config.plugins)


def check_name(name: str) -> str:
    """The name itself where it may name a release; raises UsageError otherwise."""
    if not _NAME.fullmatch(name) or name in ("CHAMPION", "CHALLENGER", "PINNED"):
        raise UsageError(
            f"{name!r} cannot name a release: at most 100 letters, digits, '.', '_', '-', no '.' in front"
        )
    return name


def platform_version() -> str:
    """Version of the installed platform."""
    try:
        return version(CORE_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def _components(config: configuration.Config) -> dict[Role, ComponentEntry]:
    entries: dict[Role, ComponentEntry] = {}
    for role in ROLES:
        distribution, release = config.plugins.distribution_of(role, config.names[role])
        settings = config.settings[role].model_dump(mode="json")
        entries[role] = ComponentEntry(
            component=config.names[role], distribution=distribution, version=release, config=settings
        )
    return entries


def _sweep(releases: Path) -> None:
    """Remove drafts of processes that are gone."""
    for draft in releases.glob(".draft-*"):
        process = draft.name.split("-")[1]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(draft, ignore_errors=True)
