"""A release as the gateway sees it, and which of those that are loaded answers whom."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from onesearch.catalogue.generations import Generations
from onesearch.releases.holding import Hold
from onesearch.releases.release import Release
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.engine import Engine
from onesearch.serving.fallback import MostClicked
from onesearch.serving.held import KEPT

_LOOK_EVERY_S = 0.02


@dataclass(eq=False)
class Deployment:
    """One release, loaded: everything that an answer of this release is made of.

    Attributes:
        engine: its models in Triton. table, fallback: its catalogue, and what is shown without models.
        models: their names in Triton, the ensemble last.
        hold: keeps the release's folder from being pruned.
        generations: those of its live catalogue; None: it has only its own.
        kept: numbers of the generations that its models hold; the last one answers.
        in_flight: requests that it is working on.
    """

    engine: Engine
    table: ItemTable
    fallback: MostClicked
    models: tuple[str, ...] = ()
    hold: Hold | None = field(default=None, repr=False)
    in_flight: int = 0
    generations: Generations | None = None
    kept: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The release's name."""
        return self.engine.release

    @property
    def generation(self) -> int:
        """The catalogue generation that answers who names none."""
        return self.table.generation

    def take(self, table: ItemTable) -> None:
        """Answer under another generation, which all models hold, from the next request on.

        What is shown without models knows words and clicks of the release's own items only.
        """
        self.table = table
        self.kept = (*self.kept, table.generation)[-KEPT:]

    @contextmanager
    def working(self) -> Iterator[Self]:
        """Counts one request in for the block."""
        self.in_flight += 1
        try:
            yield self
        finally:
            self.in_flight -= 1

    async def drained(self, limit_s: float) -> bool:
        """Wait until nothing is in flight; False where that takes longer than ``limit_s``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        while self.in_flight:
            if loop.time() > until:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
        return True

    async def close(self) -> None:
        """Close the channel, and let the release's folder go."""
        await self.engine.close()
        if self.hold is not None:
            self.hold.release()


def read_catalogue(release: Release) -> tuple[ItemTable, MostClicked]:
    """What the gateway itself keeps of a release."""
    table = ItemTable.load(release.path / "index")
    fallback = MostClicked.of_release(release.path, table)
    fallback.items("a")  # the first call is slower, and later ones will be in a hurry
    return table, fallback


@dataclass(frozen=True)
class Lineup:
    """Who answers whom. Replaced as a whole, between two requests.

    Attributes:
        champion: answers everybody but the challenger's share.
        challenger: answers ``share`` of the shoppers, None: nobody.
        salt: mixed into the hash that draws them.
    """

    champion: Deployment
    challenger: Deployment | None = None
    share: float = 0.0
    salt: str = ""

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """All that answer."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)

    def pick(self, user_id: str, request_id: str) -> Deployment:
        """Who answers a request: the same for all requests of a shopper; without an id each is drawn anew."""
        if self.challenger is not None and drawn(self.salt, user_id or request_id) < self.share:
            return self.challenger
        return self.champion

    def only_champion(self) -> Lineup:
        """The same without the challenger."""
        return replace(self, challenger=None, share=0.0, salt="")


def drawn(salt: str, unit: str) -> float:
    """A number in [0, 1) that is always the same for a salt and a shopper, and uniform over shoppers."""
    digest = hashlib.blake2b(f"{salt}\0{unit}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
