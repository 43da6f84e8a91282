"""``onesearch bench kill``: consumer, broker, Triton and night killed at random.

Is every acknowledged event there once, every search answered, and the release the same?
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import polars as pl
from onesearch.errors import OneSearchError, ServingError
from onesearch.events.messages import Interaction, key_of, write_interaction
from onesearch.events.publisher import Fate, Publisher
from onesearch.events.spool import Spool
from onesearch.kafka.broker import Broker
from onesearch.kafka.contract import Client, Record
from onesearch.progress import Progress, SilentProgress
from onesearch.serving.bench_kill import kill_triton
from onesearch.shoppers.opening import open_states

from onesearch_streaming.ingest.traffic import own_topics, pages

_PAGES_AT_ONCE = 3
_EVERY_S = 0.05
_DRAIN_S = 600.0
_PATIENCE_S = 600.0


def run(
    kills: int = 50,
    client: Literal["kafka-python", "confluent"] = "kafka-python",
    broker_share: float = 0.2,
    triton_kills: int = 0,
    night_kills: int = 0,
    release: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Kill (SIGKILL) consumer, broker, Triton and night at random; count what is lost, twice or left behind.

    Simulated traffic goes through a publisher with its spool, as in the gateway, into a broker of our own,
    and a consumer in a process of its own writes log and states. Whatever is killed is started again at once.
    In the end every event that was acknowledged, by Kafka or by the spool, must be in the log once, and the
    shoppers' counts must be those of the log.

    Args:
        kills: how many meet consumer and broker; 0: no traffic is sent.
        client: the library for Kafka.
        broker_share: share of the kills that meet the broker; the others meet the consumer.
        triton_kills: how often Triton is killed while a gateway is searched; 0: nothing is served.
        night_kills: how often a night of a simulated shop is killed, which must end in the same release as
            one that never was; 0: no night is run, for that takes minutes and needs what learning does.
        release: what is served then; without one that of a small simulated shop is trained.
        seed: of traffic, moments and victims.
        progress: who is told.
    """
    progress = progress or SilentProgress()
    killed = {"consumer": 0, "broker": 0}
    found = _kill_readers(killed, kills, client, broker_share, seed, progress) if kills else {}
    others: dict[str, Any] = {}
    if triton_kills or night_kills:
        from onesearch_streaming.nightly.kill import bench_kills, first_release

        if triton_kills:
            with TemporaryDirectory(prefix="onesearch-kill-") as place:
                served = release or first_release(Path(place), seed, progress)
                others |= kill_triton(served, triton_kills, seed, progress)
        if night_kills:
            others |= bench_kills(night_kills, seed, progress)
    return {
        "simulated": True,
        **others,
        "kills": sum(killed.values()) + others.get("triton_kills", 0) + others.get("night_kills", 0),
        **{f"{name}_kills": count for name, count in killed.items()},
        **found,
    }


def _kill_readers(
    killed: dict[str, int], kills: int, library: str, broker_share: float, seed: int, progress: Progress
) -> dict[str, Any]:
    """Kill consumer and broker, counting them in ``killed``; what is lost and twice."""
    mark = secrets.token_hex(2)
    with (
        TemporaryDirectory(prefix="onesearch-kill-") as place,
        own_topics(None, library, mark, 3) as (sender, broker),
    ):
        assert broker is not None
        folder = Path(place)
        consumer = _Consumer(folder, sender, mark)
        traffic = _Traffic(sender, folder / "spool", seed, mark)
        rng = np.random.default_rng([seed, 0xDEAD])
        try:
            consumer.start()
            traffic.start()
            with progress.task("kills", kills) as task:
                for _ in range(kills):
                    time.sleep(float(rng.uniform(0.2, 4.0)))
                    victim = "broker" if rng.random() < broker_share else "consumer"
                    if victim == "broker":
                        broker.stop(signal.SIGKILL)
                        _start(broker)
                    else:
                        consumer.kill()
                        consumer.start()
                    killed[victim] += 1
                    task.advance()
            with progress.task("reading the rest"):
                kept = traffic.stop()
                consumer.end()
        finally:
            consumer.kill()
            traffic.close()
        return _counted(folder, kept)


def _start(broker: Broker) -> None:
    """Start a broker again. One that has a busy machine's thousandth part is slow, not broken."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            broker.start(port=0)
            return
        except OneSearchError:
            if broker.pid is None or time.monotonic() > until:
                raise


class _Consumer:
    """``onesearch ingest run`` as a process of its own."""

    def __init__(self, folder: Path, client: Client, mark: str) -> None:
        chosen = client.settings
        self._config = folder / "config.toml"
        self._log = (folder / "consumer.log").open("ab")
        self._config.write_text(
            f'[kafka]\nservers = "{chosen.servers}"\nclient = "{chosen.client}"\n'
            f'interactions = "{chosen.interactions}"\ncatalogue = "{chosen.catalogue}"\n'
            f'dead_letters = "{chosen.dead_letters}"\n'
            f'[ingest]\ngroup = "bench-{mark}"\nlog_every_s = 0.5\nretry_s = 0.2\nwindow = 20000\n'
            "compact_every = 20\n",
            encoding="utf-8",
        )
        self._command = [
            sys.executable, "-m", "onesearch.cli.main", "ingest", "run", "--config", str(self._config),
            "--log", str(folder / "log"), "--states", f"lmdb:{folder / 'states'}", "--json",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self._started()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def end(self) -> None:
        """Let it stop by itself, and another one read what is left."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(_DRAIN_S)
        self._process = self._started("--until-idle", "2")
        status = self._process.wait(_DRAIN_S)
        self._process = None
        if status:
            self._log.flush()
            said = Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()
            raise OneSearchError(f"the consumer ended with status {status}: {' / '.join(said[-5:])}")

    def _started(self, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._command, *options], stdout=self._log, stderr=self._log)


class _Traffic:
    """Sends pages without end, and remembers what was acknowledged."""

    def __init__(self, client: Client, spool: Path, seed: int, mark: str) -> None:
        settings = client.settings.model_copy(update={"delivery_timeout_s": 2.0})
        self._topic = settings.interactions
        self._publisher = Publisher(type(client)(settings), Spool(spool, 256 << 20), retry_s=0.2)
        self._pages = pages(seed, mark, shoppers=200)
        self._stopping = threading.Event()
        self._waiting: list[tuple[list[Interaction], Future[Fate]]] = []
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> set[str]:
        """Stop, wait until the spool is empty; the ids of what was acknowledged."""
        self._stopping.set()
        self._thread.join()
        kept: set[str] = set()
        for events, future in self._waiting:
            with suppress(ServingError):  # could not be kept, and whoever reported it was told
                future.result(_DRAIN_S)
                kept.update(event.event_id for event in events)
        until = time.monotonic() + _DRAIN_S
        while self._publisher.tally.spool_bytes or self._publisher.tally.queued:
            if time.monotonic() > until:
                raise OneSearchError(f"the spool is not empty after {_DRAIN_S:.0f} s")
            time.sleep(0.05)
        return kept

    def close(self) -> None:
        self._stopping.set()
        self._publisher.close()

    def _work(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            events = [event for _ in range(_PAGES_AT_ONCE) for event in next(self._pages)]
            records = [Record(self._topic, key_of(event), write_interaction(event)) for event in events]
            self._waiting.append((events, self._publisher.deliver(records)))


def _counted(folder: Path, kept: set[str]) -> dict[str, Any]:
    """What is lost and twice, in the log and in the shoppers' counts."""
    log = pl.scan_delta(str(folder / "log")).collect()
    logged = set(log["event_id"])
    # A click or order of one item in one second counts once, whoever sends it.
    done = log.with_columns(
        pl.when(pl.col("action") == "impression")
        .then(pl.col("event_id"))
        .otherwise(pl.format("{} {}", "item_id", pl.col("ts").dt.epoch("s")))
        .alias("what")
    ).unique(["user_id", "action", "what"])
    expected = {
        (user, action): count for user, action, count in done.group_by("user_id", "action").len().iter_rows()
    }
    lost, twice = len(kept - logged), len(log) - len(logged)
    with open_states(f"lmdb:{folder / 'states'}", read_only=True) as states:
        for user in log["user_id"].unique():
            counts = states.get(user).counts
            for action, count in zip(("impression", "click", "order"), counts, strict=True):
                difference = count - expected.get((user, action), 0)
                lost, twice = lost + max(-difference, 0), twice + max(difference, 0)
    return {"acknowledged": len(kept), "logged": len(log), "lost": lost, "duplicated": twice}
