"""Releases being served: Triton with their models, the gateway in front, and someone who watches both."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onesearch.config import KafkaConfig, ServingConfig
from onesearch.errors import ServingError
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.serving.advancing import Advancing, restore
from onesearch.serving.deployment import Lineup
from onesearch.serving.environment import ServingEnvironment
from onesearch.serving.fleet import Fleet
from onesearch.serving.follower import Follower
from onesearch.serving.gateway import Gateway
from onesearch.serving.lookups import Lookups
from onesearch.serving.reporting import Reporter
from onesearch.serving.triton import TritonServer, TritonSettings, reserve

_LOG = logging.getLogger("onesearch.service")
_LOOK_EVERY_S = 0.25
_LONGEST_PAUSE_S = 30.0
_SWITCH_S = 0.001  # a release's catalogue is read by a thread beside the event loop, which must not wait long


@dataclass(frozen=True)
class Ready:
    """Where everything is, once it answers, and again whenever something of it changes.

    Attributes:
        release, generation, items: of the champion.
        gateway, triton: ``host:port`` of their gRPC services. triton_http: of Triton's HTTP service.
        metrics: where Triton's Prometheus metrics are.
        pid, triton_pid: of this process and of Triton.
        ready_s: how long it took.
        states: where shoppers are looked up; empty: nowhere.
        kafka: where events go; empty: nowhere.
        releases: the folder whose champion answers; empty: one release does, come what may.
        challenger, challenger_share: who else answers, and what share of the shoppers; empty: nobody.
        problem: why a release that should answer does not; empty: all is as it should be.
    """

    release: str
    generation: int
    items: int
    gateway: str
    triton: str
    triton_http: str
    metrics: str
    pid: int
    triton_pid: int
    ready_s: float
    states: str = ""
    kafka: str = ""
    releases: str = ""
    challenger: str = ""
    challenger_share: float = 0.0
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class Service:
    """Serves until told to stop: one release, or whatever is the champion of a folder of releases."""

    def __init__(
        self,
        release: Release,
        changes: Mapping[str, Any],
        environment: ServingEnvironment,
        log: Path | None = None,
        registry: Registry | None = None,
        kafka: KafkaConfig | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            release: what answers first. Ports and limits of the gateway are those of its configuration.
            changes: settings of ``[serving]`` that hold whatever a release's configuration says.
            environment: that Triton runs in.
            log: where Triton's log goes.
            kafka: where what is shown and done is told; None: nowhere.
            registry: whose champion and challenger are followed; None: the release answers to the end.
        """
        self.release = release
        self.registry = registry
        self._kafka = kafka
        self.settings = settings = release.config.serving.model_copy(update=dict(changes))
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
        self._fleet = Fleet(self._triton, changes)
        self._stopping = asyncio.Event()

    async def run(self, tell: Callable[[Ready], None]) -> None:
        """Start everything, call ``tell``, serve until :meth:`stop` or a signal, and leave nothing behind.

        ``tell`` is called again whenever who answers changes, or what is wrong.

        Raises:
            OneSearchError: something does not start; the message says what and why.
        """
        sys.setswitchinterval(_SWITCH_S)
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
            await self._fleet.close()

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stopping.set()

    async def _serve(self, tell: Callable[[Ready], None]) -> None:
        started = time.monotonic()
        settings = self.settings
        lookups = _lookups(settings)
        reporter = None
        if self._kafka is not None:
            reporter = Reporter(self._kafka, Path(settings.spool), settings.spool_mb)
        gateway: Gateway | None = None
        # It opens what it needs while the models load.
        keeping = (
            asyncio.create_task(self._keep_catalogue(settings.catalogue)) if settings.catalogue else None
        )
        try:
            with reserve(settings.host, settings.port, "gateway port"):
                await self._fleet.start()
                champion = await self._fleet.add(self.release)
            gateway = Gateway(Lineup(champion), settings, lookups, reporter)
            port = await gateway.start(settings.host, settings.port)
            await gateway.tell_models(True)
            ready_s = round(time.monotonic() - started, 3)
            address = f"{settings.host}:{port}"

            def say() -> None:
                tell(self._ready(gateway, address, ready_s, lookups))

            say()
            async with asyncio.TaskGroup() as tasks:
                follower = None
                if self.registry is not None:
                    follower = Follower(self.registry, self._fleet, gateway, say)
                    tasks.create_task(follower.run())
                tasks.create_task(self._watch(gateway, follower, say))
                tasks.create_task(Advancing(lambda: self._fleet.deployments, say).run())
        finally:
            if keeping is not None:
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping
            if gateway is not None:
                await gateway.stop()
            if reporter is not None:
                await reporter.close()
            if lookups is not None:
                lookups.close()

    def _ready(self, gateway: Gateway, address: str, ready_s: float, lookups: Lookups | None) -> Ready:
        lineup = gateway.lineup
        table, challenger = lineup.champion.table, lineup.challenger
        return Ready(
            release=lineup.champion.name,
            generation=table.generation,
            items=table.live_count,
            gateway=address,
            triton=self._triton.address,
            triton_http=self._triton.http_address,
            metrics=self._triton.metrics_url,
            pid=os.getpid(),
            triton_pid=self._triton.pid or 0,
            ready_s=ready_s,
            states=lookups.shown if lookups else "",
            kafka=self._kafka.servers if self._kafka else "",
            releases=str(self.registry.folder.resolve()) if self.registry else "",
            challenger=challenger.name if challenger else "",
            challenger_share=lineup.share,
            problem=gateway.problem,
        )

    async def _keep_catalogue(self, catalogue: str) -> None:
        """Have a process of its own make generations: encoding items must not hold up searches."""
        which = ["--release", str(self.release.path)]
        if self.registry is not None:
            which = ["--releases", str(self.registry.folder)]
        command = [sys.executable, "-m", "onesearch.cli.main", "catalogue", "follow", "--with-parent", *which]
        while True:
            keeper = await asyncio.create_subprocess_exec(
                *command, "--catalogue", catalogue, stdout=asyncio.subprocess.DEVNULL
            )
            try:
                await keeper.wait()
                _LOG.error("who keeps the catalogue has ended (%s); it is started again", keeper.returncode)
            finally:
                with suppress(ProcessLookupError):
                    keeper.terminate()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _watch(self, gateway: Gateway, follower: Follower | None, changed: Callable[[], None]) -> None:
        """Start Triton again whenever it is gone; meanwhile answers are degraded."""
        pause = 0.5
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._triton.alive:
                continue
            await gateway.tell_models(False)
            _LOG.error("Triton is gone (%s); it is started again", self._triton.complaint())
            try:
                lost = await self._fleet.revive(gateway.lineup.champion)
                if follower is not None:  # else there is only one
                    for deployment in lost:
                        follower.lose(deployment)
                for deployment in gateway.lineup.deployments:
                    await restore(deployment, self.settings.ready_timeout_s)
                await gateway.tell_models(True)
                changed()
                _LOG.warning("Triton is back")
                pause = 0.5
            except ServingError as error:
                _LOG.error("Triton does not come back: %s; trying again in %g s", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)


def _lookups(settings: ServingConfig) -> Lookups | None:
    """Look-ups of shoppers where a store is named."""
    if not settings.states:
        return None
    lookups = Lookups(settings.states, settings.states_timeout_ms / 1000)
    lookups.open()
    return lookups
