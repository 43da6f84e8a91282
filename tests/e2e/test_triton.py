"""The embedded server itself: two releases side by side, and the trap of the wrong numpy."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.contracts import ShopperState
from onesearch.errors import ServingError
from onesearch.serving.conversion import answer_from
from onesearch.serving.engine import Engine
from onesearch.serving.environment import ServingEnvironment, probe
from onesearch.serving.inference import EngineUnavailableError
from onesearch.serving.pipeline import Pipeline
from onesearch.serving.repository import build_repository
from onesearch.serving.requests import SearchRequest
from onesearch.serving.triton import TritonServer, TritonSettings

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def environment(toy: Any) -> ServingEnvironment:
    return probe(toy.python)


@pytest.fixture
def server(environment: ServingEnvironment) -> Iterator[TritonServer]:
    with TritonServer(environment, TritonSettings(threads=1)) as server:
        yield server


async def test_two_releases_side_by_side(server: TritonServer, toy: Any) -> None:
    fast = build_repository(toy.fast, server.repository)
    slow = build_repository(toy.slow, server.repository)
    server.load(fast)
    request = SearchRequest("oak desk", k=3)
    async with (
        Engine(server.http_address, "fast", 32) as one,
        Engine(server.http_address, "slow", 16) as other,
    ):
        assert await one.ready() and not await other.ready()
        with pytest.raises(EngineUnavailableError):
            await other.search(request, ShopperState(), 5)
        server.load(slow)
        for engine in (one, other):
            await engine.check_itself()
            assert (await engine.search(request, ShopperState(), 5)).release == engine.release
        # Side by side in one batch, where tensors are put together: prefixes without elements too.
        queries = ["oak desk", "a long query about a white wool rug", "台灯", "lamp"]
        for engine, release in ((one, toy.fast), (other, toy.slow)):
            pipeline = Pipeline.of_release(release)
            answers = await asyncio.gather(
                *(engine.search(SearchRequest(query, k=3), ShopperState(), 9) for query in queries)
            )
            for query, answer in zip(queries, answers, strict=True):
                assert answer_from(answer).hits == pipeline.search(SearchRequest(query, k=3)).hits
        server.unload(fast)
        assert not await one.ready() and await other.ready()
        assert (await other.search(request, ShopperState(), 5)).hits
    # Nothing was written beside the models while they ran.
    assert all(path.stat().st_size == 0 for path in server.repository.glob("*/1/__pycache__"))
    assert server.environment.triton not in [*server.folder.parents]


async def test_a_release_that_cannot_be_loaded_gives_its_own_reason(server: TritonServer, toy: Any) -> None:
    names = build_repository(toy.fast, server.repository)
    config = server.repository / "fast--reward" / "config.pbtxt"
    config.write_text(config.read_text().replace(str(toy.fast.path), "/nowhere"))
    with pytest.raises(
        ServingError, match=r"model 'fast--reward' cannot be loaded: .*/nowhere: not a release"
    ):
        server.load(names)
    assert server.alive


@pytest.mark.skipif(int(np.__version__[0]) < 2, reason="needs an environment with numpy 2")
def test_the_wrong_numpy_is_noticed_even_past_the_probe(environment: ServingEnvironment, toy: Any) -> None:
    """As if the probe had been fooled: a Python with numpy 2 under a stub built for numpy 1."""
    wrong = replace(environment, python=Path(sys.executable))
    with TritonServer(wrong) as server:
        names = build_repository(toy.fast, server.repository)
        with pytest.raises(ServingError, match="built for numpy 1"):
            server.load(names)


def test_a_binary_that_ends_at_once_is_explained(environment: ServingEnvironment, tmp_path: Path) -> None:
    triton = tmp_path / "tritonserver"
    (triton / "bin").mkdir(parents=True)
    (triton / "backends").symlink_to(environment.triton / "backends")
    (triton / "python_backend_stubs").symlink_to(environment.triton / "python_backend_stubs")
    (triton / "bin" / "tritonserver").write_text("#!/bin/sh\necho error: out of luck; exit 3\n")
    (triton / "bin" / "tritonserver").chmod(0o755)
    server = TritonServer(replace(environment, triton=triton))
    with pytest.raises(ServingError, match="ended while it was starting: error: out of luck"):
        server.start()
    server.close()
    assert not server.folder.exists() and not [*Path("/dev/shm").glob(f"onesearch-serve-{os.getpid()}-*")]
