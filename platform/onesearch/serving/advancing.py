"""Follows a live catalogue: deployments answer under a new generation once all their models hold it.

The order makes an answer of one generation: the generation is on disk, every model opens it while it goes on
under the others, one search from end to end is answered under it, and only then requests are sent there,
each naming it. Those under way finish under the one that they began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from onesearch.catalogue.applying import Applier
from onesearch.catalogue.generations import Generations
from onesearch.catalogue.log import ChangeLog
from onesearch.releases.release import Release
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.deployment import Deployment

_LOG = logging.getLogger("onesearch.advancing")
_LOOK_EVERY_S = 0.1
_OPEN_S = 30.0
_PAUSE_S = 2.0


class Advancing:
    """Keeps all deployments of a fleet at their newest generation. Runs until cancelled."""

    def __init__(
        self, deployments: Callable[[], Collection[Deployment]], changed: Callable[[], None]
    ) -> None:
        """``deployments`` tells those of the fleet at a moment; ``changed`` is called after one has
        advanced."""
        self._deployments = deployments
        self._changed = changed
        self._again: dict[Deployment, float] = {}

    async def run(self) -> None:
        """Look ten times a second; what cannot be opened is tried again."""
        loop = asyncio.get_running_loop()
        while True:
            for deployment in list(self._deployments()):
                if loop.time() < self._again.get(deployment, 0.0):
                    continue
                try:
                    if await advance(deployment, _OPEN_S):
                        self._changed()
                except Exception as error:  # whatever it is, the generation before goes on
                    self._again[deployment] = loop.time() + _PAUSE_S
                    _LOG.error(
                        "release %s stays at generation %d: %s", deployment.name, deployment.generation, error
                    )
            there = self._deployments()
            self._again = {one: at for one, at in self._again.items() if one in there}
            await asyncio.sleep(_LOOK_EVERY_S)


async def advance(deployment: Deployment, timeout_s: float) -> bool:
    """Answer under the newest generation there is; whether that is another one than before.

    Raises OneSearchError where it cannot be opened: the deployment stays where it was.
    """
    generations = deployment.generations
    if generations is None:
        return False
    newest = await asyncio.to_thread(generations.newest)
    if newest is None or newest.number <= deployment.generation:
        return False
    table = asyncio.create_task(asyncio.to_thread(ItemTable.load, newest.folder))
    try:
        await deployment.engine.open_generation(newest.number, timeout_s)
    finally:
        await asyncio.wait([table])
    deployment.take(table.result())
    return True


async def restore(deployment: Deployment, timeout_s: float) -> None:
    """Have models that were started anew open what the deployment answers under.

    Raises ServingError where they do not.
    """
    if deployment.generations is not None:
        await deployment.engine.open_generation(deployment.generation, timeout_s)
        deployment.kept = (deployment.generation,)


def make_current(catalogue: Path, release: Release) -> Generations:
    """The generations of a release in a live catalogue; the newest holds all that the log says by now.

    A release that comes to be served later than a change was made has to hear of it, too.

    Raises OneSearchError where that generation cannot be made.
    """
    generations, last = Generations.of_release(catalogue, release.path), ChangeLog(catalogue).last
    newest = generations.newest()
    if last > (newest.through if newest else 0):
        Applier(catalogue, release).catch_up()
    return generations
