"""A release being served: Triton with its models, the gateway in front, and someone who watches both."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onesearch.config import ServingConfig
from onesearch.errors import ServingError
from onesearch.releases.release import Release
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.engine import Engine
from onesearch.serving.environment import ServingEnvironment
from onesearch.serving.fallback import MostClicked
from onesearch.serving.gateway import Gateway
from onesearch.serving.lookups import Lookups
from onesearch.serving.repository import RepositorySettings, build_repository
from onesearch.serving.triton import TritonServer, TritonSettings, reserve

_LOG = logging.getLogger("onesearch.service")
_LOOK_EVERY_S = 0.25
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Ready:
    """Where everything is, once it answers.

    Attributes:
        gateway, triton: ``host:port`` of their gRPC services.
        metrics: where Triton's Prometheus metrics are.
        pid, triton_pid: of this process and of Triton.
        ready_s: how long it took.
        states: where shoppers are looked up; empty: nowhere.
    """

    release: str
    generation: int
    items: int
    gateway: str
    triton: str
    metrics: str
    pid: int
    triton_pid: int
    ready_s: float
    states: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class Service:
    """Serves one release until told to stop."""

    def __init__(
        self,
        release: Release,
        settings: ServingConfig,
        environment: ServingEnvironment,
        log: Path | None = None,
    ) -> None:
        self.release = release
        self.settings = settings
        self._triton = TritonServer(
            environment,
            TritonSettings(
                host=settings.host,
                grpc_port=settings.triton_grpc_port,
                http_port=settings.triton_http_port,
                metrics_port=settings.triton_metrics_port,
                threads=settings.threads or os.cpu_count() or 1,
                ready_timeout_s=settings.ready_timeout_s,
                log=log,
            ),
        )
        self._models: tuple[str, ...] = ()
        self._stopping = asyncio.Event()
        # Triton lives as long as the thread that started it: this one.
        self._keeper = ThreadPoolExecutor(1, "triton-keeper")

    async def run(self, tell: Callable[[Ready], None]) -> None:
        """Start everything, call ``tell``, serve until :meth:`stop` or a signal, and leave nothing behind.

        Raises:
            OneSearchError: something does not start; the message says what and why.
        """
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.stop)
        working = asyncio.create_task(self._serve(tell))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
        finally:
            stopping.cancel()
            # Not by way of the keeper, which may be waiting for a Triton that does not come up.
            await loop.run_in_executor(None, self._triton.close)
            self._keeper.shutdown()

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stopping.set()

    async def _serve(self, tell: Callable[[Ready], None]) -> None:
        started = time.monotonic()
        settings, path = self.settings, self.release.path
        lookups = _lookups(settings)
        with reserve(settings.host, settings.port, "gateway port"):
            table = ItemTable.load(path / "index")
            fallback = MostClicked.of_release(path, table)
            await self._in_keeper(self._begin)
        engine = Engine(self._triton.address, self.release.name, settings.beams, settings.certify)
        gateway = Gateway(engine, table, fallback, settings, lookups)
        try:
            await engine.check_itself(settings.ready_timeout_s)
            fallback.items("a")  # the first call is slower, and later ones will be in a hurry
            port = await gateway.start(settings.host, settings.port)
            await gateway.tell_models(True)
            tell(
                Ready(
                    release=self.release.name,
                    generation=table.generation,
                    items=len(table),
                    gateway=f"{settings.host}:{port}",
                    triton=self._triton.address,
                    metrics=self._triton.metrics_url,
                    pid=os.getpid(),
                    triton_pid=self._triton.pid or 0,
                    ready_s=round(time.monotonic() - started, 3),
                    states=lookups.shown if lookups else "",
                )
            )
            await self._watch(gateway)
        finally:
            await gateway.stop()
            await engine.close()
            if lookups is not None:
                lookups.close()

    def _begin(self) -> None:
        threads = self.settings.threads or os.cpu_count() or 1
        self._models = build_repository(
            self.release,
            self._triton.repository,
            RepositorySettings(threads=threads, together=self.settings.together),
        )
        self._triton.start()
        self._triton.load(self._models)

    async def _watch(self, gateway: Gateway) -> None:
        """Start Triton again whenever it is gone; meanwhile answers are degraded."""
        pause = 0.5
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._triton.alive:
                continue
            await gateway.tell_models(False)
            _LOG.error("Triton is gone (%s); it is started again", self._triton.complaint())
            try:
                await self._in_keeper(self._triton.start)
                await self._in_keeper(lambda: self._triton.load(self._models))
                await gateway.tell_models(True)
                _LOG.warning("Triton is back")
                pause = 0.5
            except ServingError as error:
                _LOG.error("Triton does not come back: %s; trying again in %g s", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _in_keeper(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._keeper, work)


def _lookups(settings: ServingConfig) -> Lookups | None:
    """Look-ups of shoppers where a store is named."""
    if not settings.states:
        return None
    lookups = Lookups(settings.states, settings.states_timeout_ms / 1000)
    lookups.open()
    return lookups
