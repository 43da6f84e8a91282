"""The demo: a simulated shop, a release trained on it, a search engine that answers, and how good it is.

Every step is a command that a user could have typed; it is printed before it runs.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onesearch.data.demo.catalogue import DAYS
from onesearch.data.demo.words import ENGLISH
from onesearch.data.demo.world import World
from onesearch.data.simulation import SimulatedShoppers
from onesearch.data.store import Store
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

CONFIG = Path(__file__).with_name("demo.toml")
NAME = "demo"
# Seconds on two cores; docs/demo.md says what they are for. Later work joins these budgets.
BUDGET_S = {
    "import": 15,
    "train": 300,
    "shoppers": 10,
    "serve": 20,
    "search": 20,
    "evaluate": 105,
    "stop": 10,
}
EVALUATED = 250
MOST_ACTIVE = 40
TWO_ASK = "handbag"
SEARCHES = (
    ("phone holder", "--k", "5"),
    ("猫砂", "--k", "5"),
    ("red evening gown", "--k", "3", "--explain"),
    ("mechanical keyboard", "--k", "5", "--filter", "price=..40", "--filter", "in_stock"),
)


@dataclass
class Demo:
    """Runs the demo's steps in a folder.

    Attributes:
        folder: everything goes here; a second run goes on from what it finds.
        progress: where titles and commands are printed.
        took: seconds by step.
    """

    folder: Path
    progress: Progress
    took: dict[str, float] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """The simulated shop."""
        return self.folder / "store"

    @property
    def states(self) -> Path:
        """What each shopper did, for the gateway (LMDB)."""
        return self.folder / "states"

    @property
    def releases(self) -> Path:
        """Holds the release :data:`NAME`."""
        return self.folder / "releases"

    def run(self) -> None:
        """All steps. Raises OneSearchError where one fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._step("import", "A shop: catalogue in English and Chinese, a year of simulated logs"):
            self._onesearch("import", "demo", "--store", self.store, "--size", "small")
        with self._step("train", "Learning: semantic IDs, generator, reward"):
            self._onesearch(
                "train",
                "--store",
                self.store,
                "--releases",
                self.releases,
                "--name",
                NAME,
                "--config",
                CONFIG,
            )
        with self._step("shoppers", "Shoppers: what each of them did, where the gateway looks it up"):
            self._onesearch("state", "build", "--store", self.store, "--states", self.states)
        shoppers = SimulatedShoppers.open(Store.open(self.store))
        with self._serving() as gateway, self._step("search", "Searching, through gateway and Triton"):
            for query, *options in SEARCHES:
                self._onesearch("search", query, *options, "--gateway", gateway)
            self.progress.say(f"\nTwo shoppers of opposite (simulated) tastes ask for the same: {TWO_ASK}:")
            for user in opposites(shoppers.world):
                self._onesearch(
                    "search", TWO_ASK, "--k", "5", "--user", user, "--explain", "--gateway", gateway
                )
        with self._step("evaluate", "How good it is: tomorrow's simulated searches, beside the baselines"):
            queries = self.folder / "tomorrow.parquet"
            shoppers.wanted(shoppers.requests(EVALUATED, seed=1)).write_parquet(queries)
            self._onesearch(
                "evaluate", "--release", self.releases / NAME, "--queries", queries, "--format", "parquet"
            )

    @contextmanager
    def _step(self, name: str, title: str) -> Iterator[None]:
        self.progress.say(f"\n━━ {title} ━━")
        began = time.monotonic()
        yield
        self.took[name] = time.monotonic() - began

    @contextmanager
    def _serving(self) -> Iterator[str]:
        """The release served until the end of the block; the address of its gateway."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with self._step("serve", "Serving: embedded Triton and the gRPC gateway"):
            command = self._command(
                "serve", "--release", self.releases / NAME, "--states", self.states,
                "--ready-file", ready, "--triton-log", self.folder / "triton.log",
            )  # fmt: skip
            server = subprocess.Popen(command)
            try:
                address = self._await(server, ready)
            except BaseException:
                self._stop(server)
                raise
        try:
            yield address
        finally:
            with self._step("stop", "Stopping"):
                self._stop(server)

    def _await(self, server: subprocess.Popen[bytes], ready: Path) -> str:
        limit = time.monotonic() + 6 * BUDGET_S["serve"]
        while time.monotonic() < limit:
            if ready.exists():
                return str(json.loads(ready.read_text(encoding="utf-8"))["gateway"])
            if server.poll() is not None:
                raise OneSearchError(f"the server ended with status {server.returncode}; see above")
            time.sleep(0.1)
        raise OneSearchError(f"the server is not ready after {6 * BUDGET_S['serve']} s")

    def _stop(self, server: subprocess.Popen[bytes]) -> None:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _onesearch(self, *arguments: str | Path) -> None:
        command = self._command(*arguments)
        status = subprocess.run(command, check=False).returncode
        if status:
            raise OneSearchError(f"'onesearch {arguments[0]}' ended with status {status}; see above")

    def _command(self, *arguments: str | Path) -> list[str]:
        words = [str(argument) for argument in arguments]
        self.progress.say(f"$ onesearch {shlex.join([_short(word) for word in words])}")
        return [sys.executable, "-m", "onesearch.cli.main", *words]


def _short(word: str) -> str:
    """A path as one would type it here."""
    here = f"{Path.cwd()}{os.sep}"
    return word.removeprefix(here)


def opposites(world: World) -> tuple[str, str]:
    """Among the most active shoppers who read English, the two of the least alike tastes."""
    people = world.people
    readers = np.flatnonzero((people.language == ENGLISH) & (people.gender == 0))
    busiest = readers[np.argsort(-people.activity[readers], kind="stable")[:MOST_ACTIVE]]
    tastes = people.taste_on(busiest, np.full(len(busiest), DAYS))
    first, second = np.unravel_index(int((tastes @ tastes.T).argmin()), (len(busiest), len(busiest)))
    return world.user_ids[int(busiest[first])], world.user_ids[int(busiest[second])]


def over_budget(took: dict[str, float]) -> Sequence[str]:
    """Names of the steps that took longer than they should."""
    return [name for name, seconds in took.items() if seconds > BUDGET_S[name]]
