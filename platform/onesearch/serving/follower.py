"""Follows a folder of releases: whatever it names as champion and challenger answers, without a pause.

A new release is loaded beside the old one and answers a search of its own; then the line-up changes,
between two requests. The old one finishes what it began and is unloaded. Where the new one fails, the old
one goes on, and the new one is tried again after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from onesearch.errors import ArtifactError, OneSearchError
from onesearch.releases.registry import Challenger, Registry
from onesearch.releases.release import Release
from onesearch.serving.deployment import Deployment, Lineup
from onesearch.serving.fleet import Fleet
from onesearch.serving.gateway import Gateway

_LOG = logging.getLogger("onesearch.follower")
_LOOK_EVERY_S = 0.25
_DRAIN_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 300.0


@dataclass(frozen=True)
class Wanted:
    """What the folder says."""

    champion: str
    challenger: Challenger | None = None


@dataclass(frozen=True)
class _Failure:
    why: str
    again: float
    pause: float


class Follower:
    """Keeps a gateway's line-up as the pointers say. Runs until cancelled."""

    def __init__(
        self, registry: Registry, fleet: Fleet, gateway: Gateway, changed: Callable[[], None]
    ) -> None:
        """``changed`` is called after every change of who answers, or of what is wrong."""
        self._registry = registry
        self._fleet = fleet
        self._gateway = gateway
        self._changed = changed
        self._failures: dict[str, _Failure] = {}
        self._pointers = ""  # what is wrong with the pointers themselves
        self._retiring: dict[Deployment, asyncio.Task[None]] = {}
        self._unloading: set[Deployment] = set()

    async def run(self) -> None:
        """Look a few times a second."""
        try:
            while True:
                wanted = await self._look()
                if wanted is not None:
                    await self._safely(wanted)
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            for task in self._retiring.values():
                task.cancel()

    async def _safely(self, wanted: Wanted) -> None:
        try:
            await self._reach(wanted)
        except Exception:  # whatever it is, it must not take down what serves
            _LOG.exception("the releases cannot be followed just now")

    def lose(self, deployment: Deployment) -> None:
        """A deployment is loaded no more (not the champion): nobody is sent to it, and it is tried anew."""
        lineup = self._gateway.lineup
        self._unloading.add(deployment)  # not to be taken back
        if deployment is lineup.challenger:
            self._gateway.lineup = lineup.only_champion()
        self._retire(deployment)

    async def _look(self) -> Wanted | None:
        try:
            wanted = await asyncio.to_thread(self._read)
            self._pointers = ""
        except OneSearchError as error:
            if str(error) != self._pointers:
                _LOG.error("%s; what is loaded goes on", error)
            self._pointers = str(error)
            self._tell(())
            return None
        return wanted

    def _read(self) -> Wanted:
        champion, challenger = self._registry.champion(), self._registry.challenger()
        if champion is None:
            raise ArtifactError(f"{self._registry.folder}: names no champion any more")
        if challenger is not None and challenger.name == champion:
            challenger = None
        return Wanted(champion, challenger)

    async def _reach(self, wanted: Wanted) -> None:
        """One round: load what is wanted, change the line-up, let go of what it does not hold."""
        names = {wanted.champion, *([wanted.challenger.name] if wanted.challenger else [])}
        self._failures = {name: failure for name, failure in self._failures.items() if name in names}
        lineup = self._gateway.lineup
        if lineup.champion.name != wanted.champion:
            loaded = await self._have(wanted.champion)
            if loaded is not None and await self._look() == wanted:
                other, stays = lineup.challenger, wanted.challenger
                both = other is not None and stays is not None and other.name == stays.name
                self._line_up(replace(lineup if both else lineup.only_champion(), champion=loaded))
        await self._reach_challenger(wanted)
        for deployment in self._fleet.deployments:
            if deployment not in self._gateway.lineup.deployments:
                self._retire(deployment)
        self._tell(names)

    async def _reach_challenger(self, wanted: Wanted) -> None:
        lineup, challenger = self._gateway.lineup, wanted.challenger
        if challenger is None or challenger.name == lineup.champion.name:
            if lineup.challenger is not None:
                self._line_up(lineup.only_champion())
            return
        drawn = (lineup.share, lineup.salt) == (challenger.share, challenger.salt)
        if lineup.challenger is not None and lineup.challenger.name == challenger.name and drawn:
            return
        loaded = await self._have(challenger.name)
        if loaded is None:
            if lineup.challenger is not None:
                self._line_up(lineup.only_champion())
        elif await self._look() == wanted:
            self._line_up(Lineup(lineup.champion, loaded, challenger.share, challenger.salt))

    def _line_up(self, lineup: Lineup) -> None:
        self._gateway.lineup = lineup
        challenger = lineup.challenger
        also = f", {challenger.name} answers {lineup.share:.1%} of the shoppers" if challenger else ""
        _LOG.warning("release %s answers%s", lineup.champion.name, also)
        self._changed()

    async def _have(self, name: str) -> Deployment | None:
        """The deployment of a release, loaded where need be; None where that fails, or just failed."""
        for deployment in self._fleet.deployments:
            if deployment.name == name and deployment not in self._unloading:
                task = self._retiring.pop(deployment, None)
                if task is not None:
                    task.cancel()
                return deployment
        for deployment in [one for one in self._unloading if one.name == name]:
            await asyncio.wait([self._retiring[deployment]])
        now, failure = asyncio.get_running_loop().time(), self._failures.get(name)
        if failure is not None and now < failure.again:
            return None
        try:
            release = await asyncio.to_thread(self._open, name)
            deployment = await self._fleet.add(release)
        except OneSearchError as error:
            pause = min(2 * failure.pause, _LONGEST_PAUSE_S) if failure else _FIRST_PAUSE_S
            self._failures[name] = _Failure(str(error), asyncio.get_running_loop().time() + pause, pause)
            answers = self._gateway.lineup.champion.name
            _LOG.error("release %s cannot be loaded, %s goes on: %s", name, answers, error)
            return None
        self._failures.pop(name, None)
        return deployment

    def _open(self, name: str) -> Release:
        release = Release.open(self._registry.path(name))
        release.require_plugins()
        self._fleet.settings(release)  # reads its configuration here, not in the event loop
        return release

    def _retire(self, deployment: Deployment) -> None:
        if deployment not in self._retiring:
            self._retiring[deployment] = asyncio.create_task(self._let_go(deployment))

    async def _let_go(self, deployment: Deployment) -> None:
        if not await deployment.drained(_DRAIN_S):
            _LOG.warning(
                "release %s still works on %d requests after %g s; it is unloaded nevertheless",
                deployment.name, deployment.in_flight, _DRAIN_S,
            )  # fmt: skip
        self._unloading.add(deployment)
        try:
            await self._fleet.retire(deployment)
            _LOG.warning("release %s is unloaded", deployment.name)
        finally:
            self._unloading.discard(deployment)
            if self._retiring.get(deployment) is asyncio.current_task():
                del self._retiring[deployment]

    def _tell(self, names: set[str] | tuple[str, ...]) -> None:
        """Let the gateway say what is wrong."""
        troubles = [f"release {name}: {self._failures[name].why}" for name in names if name in self._failures]
        problem = "; ".join([*([self._pointers] if self._pointers else []), *sorted(troubles)])
        if problem != self._gateway.problem:
            self._gateway.problem = problem
            self._changed()
