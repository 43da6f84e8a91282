"""Look-ups of shoppers: whatever the store does, an answer comes in time."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onesearch.contracts import ShopperState
from onesearch.errors import ArtifactError, ServingError, UsageError
from onesearch.serving.lookups import Lookups, without_password
from onesearch.serving.triton import reserve
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.state import Ring

REMOTE = "redis://somewhere:6379/0"
_STATE = """
import numpy as np
from onesearch.contracts import ShopperState
from onesearch.shoppers.state import Ring
def clicked(user, item):
    zeros = np.zeros(1, np.uint32), np.zeros(1, np.uint8)
    return ShopperState(user, Ring(np.array([item], np.uint64), *zeros))
"""
PUT = _STATE + "open_states('lmdb:{path}').put_many([clicked('{user}', {click})])"
BREAK = """
import lmdb
with lmdb.open('{path}').begin(write=True) as transaction:
    transaction.put(b's{user}', b'\\x01broken')
"""
ENLARGE = (
    _STATE
    + """
store = open_states('lmdb:{path}', map_bytes=64 << 20)
store.put_many(clicked(f'carl{{at}}', 5) for at in range(20_000))
"""
)


def clicked(user_id: str, *items: int) -> ShopperState:
    keys = np.array(items, np.uint64)
    return ShopperState(user_id, Ring(keys, np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.uint8)))


class Fake:
    """A store that can be slow or broken."""

    def __init__(self, **states: ShopperState) -> None:
        self.states = states
        self.trouble: Exception | None = None
        self.wait = threading.Event()
        self.wait.set()
        self.closed = False

    def get(self, user_id: str) -> ShopperState:
        self.wait.wait(5)
        if self.trouble is not None:
            raise self.trouble
        return self.states.get(user_id, ShopperState())

    def close(self) -> None:
        self.closed = True


def _file(folder: Path) -> str:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"x")
    return f"lmdb:{folder}"


@pytest.fixture(params=["files", "remote"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Fake], Lookups]:
    url = _file(tmp_path / "states") if request.param == "files" else REMOTE
    return lambda fake: Lookups(url, 0.2, lambda _: fake)


async def test_known_unknown_and_nobody(made: Callable[[Fake], Lookups]) -> None:
    fake = Fake(ann=clicked("ann", 3, 4))
    lookups = made(fake)
    lookups.open()
    assert await lookups.of("ann", 1.0) == fake.states["ann"]
    assert await lookups.of("bob", 1.0) == ShopperState("bob")
    assert await lookups.of("", 1.0) == ShopperState()
    tally = lookups.tally
    assert (tally.asked, tally.known, tally.failed) == (2, 1, 0) and 0 < tally.took_s < 1
    lookups.close()
    assert fake.closed


@pytest.mark.parametrize("trouble", [ArtifactError("not a shopper's state"), OSError("gone"), RuntimeError()])
async def test_a_failing_store_is_counted_and_told_once(
    made: Callable[[Fake], Lookups], trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake(ann=clicked("ann", 3))
    lookups = made(fake)
    lookups.open()
    fake.trouble = trouble
    for _ in range(50):
        assert await lookups.of("ann", 1.0) == ShopperState("ann")
    assert (lookups.tally.asked, lookups.tally.failed, lookups.tally.known) == (50, 50, 0)
    assert len(caplog.records) == 1 and (str(trouble) or "RuntimeError") in caplog.text
    fake.trouble = None
    assert (await lookups.of("ann", 1.0)).known
    lookups.close()


async def test_a_slow_store_costs_no_more_than_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake(ann=clicked("ann", 3))
    lookups = Lookups(REMOTE, 0.05, lambda _: fake)
    lookups.open()
    assert (await lookups.of("ann", 1.0)).known
    fake.wait.clear()
    started = time.monotonic()
    # More at once than there are threads: those that find none free give up as well.
    states = await asyncio.gather(*(lookups.of("ann", 1.0) for _ in range(40)))
    assert not any(state.known for state in states) and time.monotonic() - started < 0.5
    assert lookups.tally.failed == 40 and "no answer in time" in caplog.text
    started = time.monotonic()
    await lookups.of("ann", 0.02)  # little is left of the search's own time
    assert time.monotonic() - started < 0.04
    fake.wait.set()
    await asyncio.sleep(0.05)
    assert (await lookups.of("ann", 1.0)).known
    lookups.close()


async def test_a_store_in_files_that_is_replaced_is_opened_again(tmp_path: Path) -> None:
    stores = [Fake(ann=clicked("ann", 1)), Fake(ann=clicked("ann", 2))]
    opened = iter(stores)
    url = _file(tmp_path / "states")
    lookups = Lookups(url, 0.05, lambda _: next(opened))
    lookups.open()
    assert await lookups.of("ann", 1.0) == stores[0].states["ann"]
    held = (tmp_path / "states" / "data.mdb").open()  # as a store does: its number is not given away
    shutil.rmtree(tmp_path / "states")
    assert await lookups.of("ann", 1.0) == ShopperState("ann") and lookups.tally.failed == 1
    _file(tmp_path / "states")
    assert await lookups.of("ann", 1.0) == stores[1].states["ann"] and stores[0].closed
    held.close()
    lookups.close()


async def test_states_in_lmdb(tmp_path: Path) -> None:
    """The real store: written by another process, broken in one entry, enlarged, deleted and made again."""
    url = f"lmdb:{tmp_path}/states"

    def elsewhere(code: str) -> None:
        told = "from onesearch.shoppers.opening import open_states\n" + code
        subprocess.run([sys.executable, "-c", told, url], check=True)

    with open_states(url, map_bytes=1 << 20) as writing:
        writing.put_many([clicked("ann", 1)])
        lookups = Lookups(url, 0.05)
        lookups.open()
    assert await lookups.of("ann", 1.0) == clicked("ann", 1)
    elsewhere(PUT.format(path=tmp_path / "states", user="bob", click=2))
    assert await lookups.of("bob", 1.0) == clicked("bob", 2)
    assert lookups.tally.failed == 0
    elsewhere(BREAK.format(path=tmp_path / "states", user="bob"))
    assert await lookups.of("bob", 1.0) == ShopperState("bob") and lookups.tally.failed == 1
    assert await lookups.of("ann", 1.0) == clicked("ann", 1) and lookups.tally.failed == 1
    elsewhere(ENLARGE.format(path=tmp_path / "states"))
    assert await lookups.of("carl9999", 1.0) == clicked("carl9999", 5) and lookups.tally.failed == 1
    shutil.rmtree(tmp_path / "states")
    assert await lookups.of("ann", 1.0) == ShopperState("ann") and lookups.tally.failed == 2
    elsewhere(PUT.format(path=tmp_path / "states", user="ann", click=7))
    assert await lookups.of("ann", 1.0) == clicked("ann", 7) and lookups.tally.failed == 2
    lookups.close()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
async def test_a_redis_that_hangs_or_dies_and_comes_back(tmp_path: Path) -> None:
    with reserve("127.0.0.1", 0) as port:
        pass
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]

    async def started() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            await asyncio.sleep(0.05)
        raise AssertionError

    server, url = await started(), f"redis://127.0.0.1:{port}/0"
    lookups = Lookups(url, 0.2)
    try:
        with open_states(url) as store:
            store.put_many([clicked("ann", 1)])
        lookups.open()
        assert await lookups.of("ann", 9.0) == clicked("ann", 1) and lookups.tally.failed == 0
        server.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        assert await lookups.of("ann", 9.0) == ShopperState("ann") and time.monotonic() - begun < 1
        server.kill()
        server.wait()
        assert await lookups.of("ann", 9.0) == ShopperState("ann") and lookups.tally.failed == 2
        server = await started()
        with open_states(url) as store:
            store.put_many([clicked("ann", 2)])
        until = time.monotonic() + 10
        while not (state := await lookups.of("ann", 9.0)).known and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert state == clicked("ann", 2)
    finally:
        lookups.close()
        server.kill()
        server.wait()


def test_a_store_in_files_must_be_there_at_the_start(tmp_path: Path) -> None:
    for url in (f"lmdb:{tmp_path}/nothing", f"lmdb://{tmp_path}/nothing", f"{tmp_path}/nothing"):
        with pytest.raises(UsageError, match=r"no shoppers' states at .*nothing"):
            Lookups(url, 0.05).open()
    url = _file(tmp_path / "states")
    with pytest.raises(ArtifactError, match="states: not a store"):
        Lookups(url, 0.05).open()


async def test_a_remote_store_may_come_up_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onesearch.serving.lookups._OPEN_AGAIN_S", 0.05)
    caplog.set_level(logging.WARNING)
    tries: list[str] = []

    def shy(url: str) -> Fake:
        tries.append(url)
        if len(tries) < 2:
            raise ServingError("refused")
        return Fake(ann=clicked("ann", 1))

    lookups = Lookups("redis://user:secret@somewhere:6379/0", 0.2, shy)
    lookups.open()
    assert "refused" in caplog.text and "secret" not in caplog.text
    for _ in range(5):
        assert not (await lookups.of("ann", 1.0)).known
    assert len(tries) == 1  # not once a search
    await asyncio.sleep(0.06)
    assert (await lookups.of("ann", 1.0)).known and len(tries) == 2
    lookups.close()


@pytest.mark.parametrize("url", ["ftp://x", "redis://", "redis://host/users"])
def test_a_wrong_url_is_a_usage_error_at_once(url: str) -> None:
    with pytest.raises(UsageError, match="redis://HOST:PORT/DATABASE"):
        Lookups(url, 0.05).open()


def test_passwords_are_not_shown() -> None:
    assert without_password("redis://u:secret@h:1/0") == "redis://u:…@h:1/0"
    assert without_password("redis://:secret@h:1/0") == "redis://:…@h:1/0"
    assert without_password("redis://h:1/0") == "redis://h:1/0"
    assert without_password("lmdb:/a b/c") == "lmdb:/a b/c"
