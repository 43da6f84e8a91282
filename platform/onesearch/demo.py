"""The demo: a simulated shop, a release trained on it, a search engine that answers and learns overnight.

Every step is a command that a user could have typed; it is printed before it runs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onesearch.data.demo.catalogue import DAYS
from onesearch.data.demo.words import ENGLISH
from onesearch.data.demo.world import World
from onesearch.data.simulation import SimulatedShoppers, day_of
from onesearch.data.store import Store
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

CONFIG = Path(__file__).with_name("demo.toml")
NIGHT = Path(__file__).with_name("demo-night.toml")
NAME = "demo"
# Seconds on two cores; docs/demo.md says what they are for. Later work joins these budgets.
BUDGET_S = {
    "import": 15,
    "train": 240,
    "shoppers": 10,
    "kafka": 20,
    "serve": 20,
    "search": 20,
    "visits": 30,
    "night": 90,
    "swap": 25,
    "evaluate": 40,
    "stop": 10,
}
EVALUATED = 250
MOST_ACTIVE = 40
TWO_ASK = "handbag"
# Searches of each of the days before the night, and of the day after it at most.
VISITS, AFTER = (300, 300), 5_000
_PATIENCE = 6
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
    days: list[dict[str, Any]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """The simulated shop."""
        return self.folder / "store"

    @property
    def states(self) -> Path:
        """What each shopper did, for the gateway (LMDB)."""
        return self.folder / "states"

    @property
    def log(self) -> Path:
        """What shoppers were shown and did (Delta Lake)."""
        return self.folder / "log"

    @property
    def releases(self) -> Path:
        """Holds the release :data:`NAME`, and what the nights make of it."""
        return self.folder / "releases"

    def run(self, nights: int = 1) -> None:
        """All steps, with so many nights. Raises OneSearchError where one fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._step("import", "A shop: catalogue in English and Chinese, a year of simulated logs"):
            self._onesearch("import", "demo", "--store", self.store, "--size", "small")
        with self._step("train", "Learning: semantic IDs, generator, preferences, reward"):
            self._onesearch(
                "train",
                *("--store", self.store, "--releases", self.releases, "--name", NAME, "--config", CONFIG),
            )
            self._onesearch("release", "promote", NAME, "--releases", self.releases)
        with self._step("shoppers", "Shoppers: what each of them did, where the gateway looks it up"):
            # Anew: what an earlier run's shoppers did live is forgotten with its days.
            self._onesearch("state", "build", "--store", self.store, "--states", self.states, "--replace")
        shoppers = SimulatedShoppers.open(Store.open(self.store))
        self._forget()
        with self._kafka() as servers, self._serving(servers) as gateway:
            with self._step("search", "Searching, through gateway and Triton"):
                self._search(gateway, shoppers.world)
            with self._ingesting(servers):
                self._live(gateway, nights)
        with self._step("evaluate", "How good it is: tomorrow's simulated searches, beside the baselines"):
            queries = self.folder / "tomorrow.parquet"
            shoppers.wanted(shoppers.requests(EVALUATED, seed=1)).write_parquet(queries)
            self._onesearch(
                "evaluate", "--release", self.releases / NAME, "--queries", queries, "--format", "parquet"
            )

    def _forget(self) -> None:
        """What an earlier run did live: its days would come twice. Store and release stay."""
        old = [self.log, self.folder / "kafka", self.folder / "spool", self.releases / "nights"]
        for path in (*old, *self.releases.glob("night-*")):
            shutil.rmtree(path, ignore_errors=True)

    def _search(self, gateway: str, world: World) -> None:
        for query, *options in SEARCHES:
            self._onesearch("search", query, *options, "--gateway", gateway)
        self.progress.say(f"\nTwo shoppers of opposite (simulated) tastes ask for the same: {TWO_ASK}:")
        for user in opposites(world):
            self._onesearch("search", TWO_ASK, "--k", "5", "--user", user, "--explain", "--gateway", gateway)

    def _live(self, gateway: str, nights: int) -> None:
        """Days on which simulated shoppers act, and the nights between."""
        with self._step("visits", "Two days: simulated shoppers search, click and order; events go to Kafka"):
            for day, searches in enumerate(VISITS):
                self._visit(gateway, day, searches)
            self._await_log(2)
        for night in range(1, nights + 1):
            with self._step("night", "Night: learning from the days before, judged on a day unseen"):
                made = self._night(night)
            with self._step("swap", "The day after: the release is changed while shoppers search"):
                self._day_after(gateway, night + 1, made if made["verdict"]["promote"] else None)
        self.progress.say("\nOrders a search (simulated shoppers; a few hundred searches a day say little):")
        for one in self.days:
            by = ", ".join(f"{name} {count}" for name, count in one["releases"].items())
            self.progress.say(
                f"  day {one['day']}: {one['orders_per_search']:.3f}"
                f"  (oracle {one['oracle']['orders_per_search']:.3f},"
                f" random {one['random']['orders_per_search']:.3f})  answered by {by};"
                f" failed {one['failed']}, degraded {one['degraded']}"
            )

    def _visit(
        self,
        gateway: str,
        day: int,
        searches: int,
        during: Callable[[], None] | None = None,
        until: str = "",
    ) -> None:
        """Simulated searches of a day, and something that is done meanwhile; ``until`` a release answers."""
        command = self._command(
            "simulate", "--store", self.store, "--gateway", gateway,
            "--searches", str(searches), "--day", str(day), "--json",
            *(("--until-release", until) if until else ()),
        )  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            if during is not None:
                during()
            told, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            raise OneSearchError(f"'onesearch simulate' ended with status {process.returncode}; see above")
        found = json.loads(told)
        self.days.append(found)
        self.progress.say(
            f"day {day} (simulated): {found['searches']} searches, {found['orders_per_search']:.3f} orders"
            f" each, {found['failed']} failed, p50 {found['p50_ms']:.0f} ms; reported {found['reported']}"
        )

    def _await_log(self, days: int) -> None:
        """Until the log has what the gateway was told in so many days."""
        wanted = sum(sum(day["reported"].values()) for day in self.days[-days:])
        limit = time.monotonic() + _PATIENCE * BUDGET_S["kafka"]
        while True:
            rows = logged(self.log, [str(day_of(int(day["day"]))) for day in self.days[-days:]])
            if rows >= wanted:
                self.progress.say(f"the log has {rows} clicks and orders of {wanted} reported")
                return
            if time.monotonic() > limit:
                raise OneSearchError(f"{self.log} has {rows} of {wanted} events that were reported")
            time.sleep(0.2)

    def _night(self, day: int) -> dict[str, Any]:
        command = self._command(
            "nightly", "--store", self.store, "--log", self.log, "--releases", self.releases,
            "--config", NIGHT, "--date", str(day_of(day)), "--json",
        )  # fmt: skip
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise OneSearchError(f"'onesearch nightly' ended with status {done.returncode}; see above")
        made: dict[str, Any] = json.loads(done.stdout)
        text = Path(made["report"]).with_suffix(".txt")
        self.progress.say(text.read_text(encoding="utf-8"))
        return made

    def _day_after(self, gateway: str, day: int, made: dict[str, Any] | None) -> None:
        if made is None:
            self.progress.say("refused, as told above: the champion goes on answering")
            self._visit(gateway, day, VISITS[0])
        else:
            name = str(made["challenger"]["name"])
            promote = ("release", "promote", name, "--releases", self.releases, "--wait", gateway)
            self._visit(gateway, day, AFTER, lambda: self._onesearch(*promote), name)
        self._await_log(1)

    @contextmanager
    def _step(self, name: str, title: str) -> Iterator[None]:
        self.progress.say(f"\n━━ {title} ━━")
        began = time.monotonic()
        yield
        self.took[name] = self.took.get(name, 0.0) + time.monotonic() - began

    @contextmanager
    def _kafka(self) -> Iterator[str]:
        """A broker until the end of the block; its address."""
        folder = self.folder / "kafka"
        with self._step("kafka", "Kafka: a real broker, for what is shown and done"):
            command = self._command("broker", "start", "--folder", folder, "--port", "0", "--json")
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise OneSearchError(f"'onesearch broker' ended with status {done.returncode}; see above")
        try:
            yield str(json.loads(done.stdout)["servers"])
        finally:
            with self._step("stop", "Stopping"):
                self._onesearch("broker", "stop", "--folder", folder)

    @contextmanager
    def _ingesting(self, servers: str) -> Iterator[None]:
        """A consumer that writes log and states, until the end of the block."""
        command = self._command(
            "ingest", "run", "--kafka", servers, "--log", self.log, "--states", self.states
        )
        consumer = subprocess.Popen(command)
        try:
            yield
        finally:
            self._stop(consumer)

    @contextmanager
    def _serving(self, servers: str) -> Iterator[str]:
        """The champion served until the end of the block; the address of its gateway."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with self._step("serve", "Serving: embedded Triton and the gRPC gateway"):
            command = self._command(
                "serve", "--releases", self.releases, "--states", self.states, "--kafka", servers,
                "--spool", self.folder / "spool",
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
        limit = time.monotonic() + _PATIENCE * BUDGET_S["serve"]
        while time.monotonic() < limit:
            if ready.exists():
                return str(json.loads(ready.read_text(encoding="utf-8"))["gateway"])
            if server.poll() is not None:
                raise OneSearchError(f"the server ended with status {server.returncode}; see above")
            time.sleep(0.1)
        raise OneSearchError(f"the server is not ready after {_PATIENCE * BUDGET_S['serve']} s")

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


def logged(log: Path, days: Sequence[str]) -> int:
    """Clicks and orders of some days in a Delta log; 0 where there is none yet."""
    if not (log / "_delta_log").is_dir():
        return 0
    rows = pl.scan_delta(str(log)).filter(
        pl.col("ts").dt.date().cast(pl.String).is_in(list(days)), pl.col("action") != "impression"
    )
    return int(rows.select(pl.len()).collect().item())


def over_budget(took: dict[str, float]) -> Sequence[str]:
    """Names of the steps that took longer than they should."""
    return [name for name, seconds in took.items() if seconds > BUDGET_S[name]]
