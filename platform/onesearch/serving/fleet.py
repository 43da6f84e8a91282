"""The releases loaded in one Triton: added and retired while it serves, and there after a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from onesearch.catalogue.generations import Generations
from onesearch.config import ServingConfig
from onesearch.errors import ServingError
from onesearch.releases.holding import Hold
from onesearch.releases.release import Release
from onesearch.serving.advancing import advance, make_current
from onesearch.serving.deployment import Deployment, read_catalogue
from onesearch.serving.engine import Engine
from onesearch.serving.repository import RepositorySettings, build_repository, model_names
from onesearch.serving.triton import TritonServer

_LOG = logging.getLogger("onesearch.fleet")
T = TypeVar("T")


class Fleet:
    """Deployments and the Triton under them. For one event loop."""

    def __init__(self, triton: TritonServer, changes: Mapping[str, Any]) -> None:
        """Nothing is started yet.

        Args:
            triton: holds the models.
            changes: settings of ``[serving]`` that hold for every release, whatever its own configuration.
        """
        self.triton = triton
        self.deployments: list[Deployment] = []
        self._changes = dict(changes)
        # Triton lives as long as the thread that started it: this one. It does one thing after the other.
        self._keeper = ThreadPoolExecutor(1, "triton-keeper")

    def settings(self, release: Release) -> ServingConfig:
        """How a release is served."""
        return release.config.serving.model_copy(update=self._changes)

    async def start(self) -> None:
        """Start Triton without any model. Raises ServingError saying why it does not start."""
        await self._in_keeper(self.triton.start)

    async def add(self, release: Release) -> Deployment:
        """Load a release beside those that are there, and let it answer a search of its own.

        Raises:
            OneSearchError: it does not load or does not answer; nothing of it is left behind.
        """
        settings = self.settings(release)
        together = settings.processes == "one"
        threads = settings.threads or os.cpu_count() or 1
        how = RepositorySettings(threads, together=together, gpu=settings.gpu)
        hold = await asyncio.to_thread(Hold, release.path)
        models = model_names(release.name, together)
        engine = Engine(self.triton.http_address, release.name, settings.beams, settings.certify)
        try:
            table, fallback = await asyncio.to_thread(read_catalogue, release)
            generations = None
            if settings.catalogue:
                generations = await asyncio.to_thread(make_current, Path(settings.catalogue), release)
            await self._in_keeper(lambda: self._load(release, how, generations))
            await engine.check_itself(settings.ready_timeout_s)
            kept = (table.generation,)
            deployment = Deployment(engine, table, fallback, models, hold, generations=generations, kept=kept)
            await advance(deployment, settings.ready_timeout_s)
        except BaseException as error:
            await engine.close()
            hold.release()
            if isinstance(error, Exception):  # else all ends, and nobody waits for the keeper
                await self._in_keeper(lambda: self._unload(models))
            raise
        self.deployments.append(deployment)
        return deployment

    async def retire(self, deployment: Deployment) -> None:
        """Unload a deployment that answers nobody any more, and remove its models."""
        self.deployments.remove(deployment)
        await self._in_keeper(lambda: self._unload(deployment.models))
        await deployment.close()

    async def revive(self, first: Deployment) -> list[Deployment]:
        """Start a Triton that is gone, and load everything again; return those that do not load any more.

        Raises:
            ServingError: Triton does not start, or ``first`` does not load.
        """
        await self._in_keeper(self.triton.start)
        await self._in_keeper(lambda: self.triton.load(first.models))
        lost = []
        for deployment in [other for other in self.deployments if other is not first]:
            try:
                await self._in_keeper(partial(self.triton.load, deployment.models))
            except ServingError as error:
                _LOG.error("release %s is not loaded again: %s", deployment.name, error)
                lost.append(deployment)
        return lost

    async def close(self) -> None:
        """Stop Triton and let go of everything."""
        # Not by way of the keeper, which may be waiting for a Triton that does not come up.
        await asyncio.to_thread(self.triton.close)
        for deployment in self.deployments:
            await deployment.close()
        self._keeper.shutdown()

    def _load(self, release: Release, how: RepositorySettings, generations: Generations | None) -> None:
        models = build_repository(
            release,
            self.triton.repository,
            how,
            catalogue=generations.folder if generations else None,
        )
        self.triton.load(models, at_once=not self.deployments)

    def _unload(self, models: tuple[str, ...]) -> None:
        if self.triton.alive:
            try:
                self.triton.unload(models)
            except ServingError as error:
                _LOG.error("%s", error)
        for name in models:
            with suppress(OSError):
                shutil.rmtree(self.triton.repository / name)

    async def _in_keeper(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._keeper, work)
