"""What a hook returns, and what every component shares.

A component has two halves. The *learner* fits, saves, loads and exports; it may import torch. The *server*
reads what the learner exported and answers requests with numpy arrays; it never imports torch. An
:class:`Offer` names both by their import paths, so that a plugin's entry point can be imported in either
environment.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel

from onesearch.codebooks import Codebooks
from onesearch.errors import PluginError

if TYPE_CHECKING:
    from onesearch.compiling.runtime import Runtime
    from onesearch.index import CatalogueIndex
    from onesearch.vocabulary import Vocabulary

Role = Literal["tokenizer", "user_encoder", "generator", "reward"]
ROLES: tuple[Role, ...] = ("tokenizer", "user_encoder", "generator", "reward")


@dataclass(frozen=True)
class Offer:
    """One named component, as a hook returns it.

    Attributes:
        name: what the configuration picks it by; unique within its hook.
        config: its typed configuration, every field with a documented default.
        learner: ``"package.module:Class"`` of the learning half; imported only where learning happens.
        server: ``"package.module:Class"`` of the serving half; never imports torch.
        summary: one line for ``onesearch plugins list``.
        quick: settings (a TOML table's worth) that fit in seconds, for the conformance suite.
    """

    name: str
    config: type[BaseModel]
    learner: str
    server: str
    summary: str = ""
    quick: Mapping[str, Any] = field(default_factory=dict)

    def learner_class(self) -> type[Learner]:
        """Import the learning half."""
        return self._load(self.learner, Learner)

    def server_class(self) -> type[Server]:
        """Import the serving half."""
        return self._load(self.server, Server)

    def _load(self, path: str, base: type[Any]) -> Any:
        module, _, name = path.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"component '{self.name}': cannot import {path}: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise PluginError(f"component '{self.name}': {path} is not a {base.__name__}")
        return loaded


@dataclass(frozen=True)
class ServingContext:
    """What a server may use of the release that it belongs to.

    Attributes:
        release: the release's folder (read-only).
        vocabulary: the id space of prompts: text tokens and SID codes.
        index: the catalogue's items, SIDs, vectors and prefix tree.
        runtime: makes sessions of exported graphs with this process' share of the threads.
        siblings: the other components' folders by role: a reward may read the tokenizer's artifacts, say.
        query_sids: the tokenizer's SIDs i32[B, L] of query texts; None where a server has no tokenizer beside
            it.
    """

    release: Path
    vocabulary: Vocabulary
    index: CatalogueIndex
    runtime: Runtime
    siblings: dict[str, Path] = field(default_factory=dict)
    query_sids: Callable[[Sequence[str]], np.ndarray] | None = None

    @cached_property
    def codebooks(self) -> Codebooks:
        """The tokenizer's codebooks. Raises ArtifactError where the release has none."""
        return Codebooks.load(self.release / "index")


class Learner(ABC):
    """The learning half of a component."""

    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: BaseModel) -> None:
        self.config = config

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything needed to load this learner again: safetensors, Arrow, JSON; never pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what the server opens: ONNX graphs with named, typed, batched tensors, and plain data."""


class Server(ABC):
    """The serving half of a component. Called from one thread at a time."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open what the learner exported to ``folder``.

        Raises ArtifactError naming the file that does not fit.
        """

    def renewed(self, context: ServingContext) -> Self | None:
        """A server of another generation of the catalogue: that of ``context.index``.

        Both are called from then on, by the generation that a request names. None: there is no quicker way
        than :meth:`open`. See :class:`onesearch.index.CatalogueIndex` for what a generation keeps.
        """
        return None
