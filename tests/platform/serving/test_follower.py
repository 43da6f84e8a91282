"""What a follower does as pointers change. A fleet in memory stands in for Triton; the gateway is real."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onesearch.config import ServingConfig
from onesearch.errors import ServingError
from onesearch.releases import release as release_module
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.serving import follower as module
from onesearch.serving.deployment import Deployment, Lineup
from onesearch.serving.follower import Follower
from onesearch.serving.gateway import Gateway


class Engine:
    def __init__(self, release: str) -> None:
        self.release, self.beams = release, 8

    async def close(self) -> None:
        self.release += " closed"


class Fleet:
    """Loads at once, unless told otherwise."""

    def __init__(self) -> None:
        self.deployments: list[Deployment] = []
        self.broken: set[str] = set()
        self.loads: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()

    def settings(self, release: Release) -> ServingConfig:
        return ServingConfig()

    async def add(self, release: Release) -> Deployment:
        self.loads.append(release.name)
        await self.hold.wait()
        if release.name in self.broken:
            raise ServingError(f"{release.name} has no weights")
        made = Deployment(Engine(release.name), table=None, fallback=None)  # type: ignore[arg-type]
        self.deployments.append(made)
        return made

    async def retire(self, deployment: Deployment) -> None:
        self.deployments.remove(deployment)
        await deployment.close()

    @property
    def names(self) -> list[str]:
        return [deployment.name for deployment in self.deployments]


@pytest.fixture
def registry(toy_release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Releases a, b and c; a is the champion."""
    monkeypatch.setattr(release_module, "load_plugins", lambda: toy_release.plugins)
    for name in "abc":
        shutil.copytree(toy_release.path, tmp_path / name)
        toy_release.manifest.model_copy(update={"name": name}).write(tmp_path / name)
    registry = Registry(tmp_path)
    registry.promote("a")
    return registry


@asynccontextmanager
async def following(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.2)
    fleet, told = Fleet(), []
    champion = await fleet.add(Release.open(registry.path("a")))
    gateway = Gateway(Lineup(champion), ServingConfig())
    follower = Follower(registry, fleet, gateway, lambda: told.append(gateway.lineup))  # type: ignore[arg-type]
    task = asyncio.create_task(follower.run())
    try:
        yield SimpleNamespace(fleet=fleet, gateway=gateway, follower=follower, told=told, registry=registry)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(holds: Any, limit_s: float = 20) -> None:
    async def look() -> None:
        while not holds():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), limit_s)


async def test_the_old_one_finishes_what_it_began(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(registry, monkeypatch) as own:
        with own.gateway.lineup.pick("u", "r").working() as began:
            registry.promote("b")
            await until(lambda: own.gateway.lineup.champion.name == "b")
            await asyncio.sleep(0.1)
            assert began.name == "a" and own.fleet.names == ["a", "b"]
        await until(lambda: own.fleet.names == ["b"])
        assert began.name == "a closed" and len(own.told) == 1


async def test_a_rollback_takes_back_what_still_drains(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(registry, monkeypatch) as own:
        champion = own.gateway.lineup.champion
        with champion.working():
            registry.promote("b")
            await until(lambda: own.gateway.lineup.champion.name == "b")
            registry.rollback()
            await until(lambda: own.gateway.lineup.champion is champion)
            await until(lambda: own.fleet.names == ["a"])
        await asyncio.sleep(0.1)
        assert own.fleet.names == ["a"] and own.fleet.loads == ["a", "b"]


async def test_two_gateways_over_one_folder_both_follow(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself: one that cannot load goes on with the old release, and comes after when it can."""
    async with following(registry, monkeypatch) as one, following(registry, monkeypatch) as other:
        other.fleet.broken = {"b"}
        registry.promote("b")
        await until(lambda: one.gateway.lineup.champion.name == "b")
        await until(lambda: "b has no weights" in other.gateway.problem)
        assert other.gateway.lineup.champion.name == "a" and one.gateway.problem == ""
        other.fleet.broken = set()
        await until(lambda: other.gateway.lineup.champion.name == "b" and other.gateway.problem == "")
        challenger = registry.challenge("c", 0.5)
        for own in (one, other):
            await until(lambda own=own: own.gateway.lineup.challenger is not None)
        # The same shoppers see the same release, whichever gateway they come to.
        for user in map(str, range(50)):
            assert one.gateway.lineup.pick(user, "r").name == other.gateway.lineup.pick(user, "r").name
        assert one.gateway.lineup.salt == other.gateway.lineup.salt == challenger.salt
        registry.end_challenge()
        registry.rollback()
        for own in (one, other):
            await until(lambda own=own: own.fleet.names == ["a"])


async def test_a_pointer_that_moves_on_while_loading(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(registry, monkeypatch) as own:
        own.fleet.hold.clear()
        registry.promote("b")
        await until(lambda: own.fleet.loads == ["a", "b"])
        registry.promote("c")
        own.fleet.hold.set()
        await until(lambda: own.fleet.names == ["c"])
        assert [lineup.champion.name.split()[0] for lineup in own.told] == ["c"]


async def test_a_broken_release_leaves_the_champion_and_is_tried_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(registry, monkeypatch) as own:
        own.fleet.broken.add("b")
        registry.promote("b")
        await until(lambda: own.gateway.problem == "release b: b has no weights")
        assert own.gateway.lineup.champion.name == "a" and own.fleet.names == ["a"]
        assert own.told  # so that files say it as well
        await until(lambda: own.fleet.loads.count("b") >= 3)
        assert own.fleet.loads.count("b") <= 4  # with pauses that grow
        own.fleet.broken.clear()
        await until(lambda: own.gateway.lineup.champion.name == "b" and own.gateway.problem == "")
        (registry.folder / "c" / "reward" / "toy.json").write_text("{}")
        (registry.folder / "CHAMPION").write_text(
            (registry.folder / "CHAMPION").read_text().replace('"champion": "b"', '"champion": "c"')
        )
        await until(lambda: "toy.json" in own.gateway.problem)
        registry.promote("b")
        await until(lambda: own.gateway.problem == "" and own.fleet.names == ["b"])


async def test_challengers_come_and_go(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(registry, monkeypatch) as own:
        first = registry.challenge("b", 0.5)
        await until(lambda: own.gateway.lineup.challenger is not None)
        lineup = own.gateway.lineup
        assert (lineup.share, lineup.salt, lineup.challenger.name) == (0.5, first.salt, "b")
        registry.challenge("b", 0.9)
        await until(lambda: own.gateway.lineup.share == 0.9)
        assert own.gateway.lineup.challenger is lineup.challenger
        own.fleet.broken.add("c")
        registry.challenge("c", 0.1)
        await until(lambda: "c has no weights" in own.gateway.problem)
        assert own.gateway.lineup.challenger is None
        registry.challenge("b", 0.1)
        await until(lambda: own.gateway.lineup.challenger is not None and own.gateway.problem == "")
        challenger = own.gateway.lineup.challenger
        registry.promote("b")  # no load: it is there already
        await until(lambda: own.fleet.names == ["b"])
        assert own.gateway.lineup == Lineup(challenger)
        registry.challenge("a", 0.2)
        await until(lambda: own.gateway.lineup.challenger is not None)
        registry.end_challenge()
        await until(lambda: own.fleet.names == ["b"])


async def test_a_lost_challenger_is_loaded_anew(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(registry, monkeypatch) as own:
        registry.challenge("b", 0.5)
        await until(lambda: own.gateway.lineup.challenger is not None)
        lost = own.gateway.lineup.challenger
        own.follower.lose(lost)
        assert own.gateway.lineup.challenger is None
        await until(lambda: own.gateway.lineup.challenger not in (None, lost))
        assert own.fleet.loads == ["a", "b", "b"] and sorted(own.fleet.names) == ["a", "b"]


async def test_pointers_that_cannot_be_read_change_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(registry, monkeypatch) as own:
        pointer = (registry.folder / "CHAMPION").read_text()
        for content, said in ((pointer[:-9], "cannot be read"), (None, "names no champion any more")):
            if content is None:
                (registry.folder / "CHAMPION").unlink()
            else:
                (registry.folder / "CHAMPION").write_text(content)
            await until(lambda said=said: said in own.gateway.problem)
        assert own.fleet.names == ["a"]
        (registry.folder / "CHAMPION").write_text(pointer)
        await until(lambda: own.gateway.problem == "")
