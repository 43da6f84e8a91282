"""Real servers: ``onesearch serve`` as a process of its own, over a release of the toy parts."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from onesearch.errors import ServingError
from onesearch.releases.release import Release
from onesearch.serving import environment
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.packing import pack
from onesearch.shoppers.state import ShopperState

ROOT = Path(__file__).parents[2]
STARTING_S = 120


@dataclass
class Toy:
    """Releases of the toy parts, and an environment in which they can be served.

    ``fast`` knows shoppers and puts vectors before its prompts, ``slow`` has none to put there.
    """

    python: Path
    fast: Release
    slow: Release
    write: Callable[..., Release]
    variables: dict[str, str]
    states: str

    def run(self, *arguments: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
        """``onesearch …`` in the serving environment."""
        command = [self.python, "-m", "onesearch.cli.main", *arguments]
        return subprocess.run(command, env=self.variables, capture_output=True, text=True, timeout=limit_s)

    def put(self, state: ShopperState) -> None:
        """Write a shopper's state, as a consumer of events would: from another process."""
        code = (
            "import sys\n"
            "from onesearch.shoppers.opening import open_states\n"
            "from onesearch.shoppers.packing import unpack\n"
            "with open_states(sys.argv[1]) as store:\n"
            "    store.put_many([unpack(sys.stdin.buffer.read())])\n"
        )
        subprocess.run([sys.executable, "-c", code, self.states], input=pack(state), check=True, timeout=60)


@dataclass
class Served:
    """A running ``onesearch serve``."""

    process: subprocess.Popen[str]
    about: dict[str, Any]
    ready: Path

    def now(self) -> dict[str, Any]:
        """What its ready file says by now."""
        return dict(json.loads(self.ready.read_text()))

    @property
    def address(self) -> str:
        return str(self.about["gateway"])

    def leftovers(self) -> list[Path]:
        mark = f"onesearch-serve-{self.process.pid}-*"
        return [*Path("/dev/shm").glob(mark), *Path("/tmp").glob(mark)]

    def end(self, how: int = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def _toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toy_release", ROOT / "tests" / "toy" / "toy_release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    try:
        serving = environment.find().python
    except ServingError as error:
        pytest.skip(str(error))
    module, folder = _toy(), tmp_path_factory.mktemp("toy")
    with module.installed(folder / "site") as plugins:
        fast = module.write(folder / "releases", plugins, "fast", prefix=(2, 256))
        slow = module.write(
            folder / "rélêases 物",
            plugins,
            "slow",
            sleep_ms=1000,
            serving="beams = 16\nmax_in_flight = 2\ndeadline_ms = 20000",
        )
        python = module.environment(folder / "venv", serving, folder / "site")
        variables = {
            **os.environ,
            environment.PYTHON_VARIABLE: str(python),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        write = partial(module.write, plugins=plugins)
        toy = Toy(python, fast, slow, write, variables, f"lmdb:{folder / 'states'}")
        open_states(toy.states).close()
        yield toy


@pytest.fixture(scope="session")
def serve(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts servers, waits until they answer, and stops what a test left running."""
    running: list[subprocess.Popen[str]] = []

    def start(what: Release | Path, *options: str) -> Served:
        """A release, or whatever is the champion of a folder."""
        ready = tmp_path_factory.mktemp("ready") / "ready.json"
        named = f"--releases={what}" if isinstance(what, Path) else f"--release={what.path}"
        command = [toy.python, "-m", "onesearch.cli.main", "serve", named, "--json"]
        process = subprocess.Popen(
            [*command, f"--ready-file={ready}", *options],
            env=toy.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        until = time.monotonic() + STARTING_S
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until, "not ready in time"
            time.sleep(0.05)
        return Served(process, json.loads(ready.read_text()), ready)

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def served(serve: Callable[..., Served], toy: Toy) -> Served:
    """One server that the tests share; none of them ends it."""
    return serve(toy.fast, "--states", toy.states)
