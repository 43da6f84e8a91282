"""``onesearch bench ingest``: reading Kafka into log and states, beside a loop that only reads."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl
from onesearch.errors import OneSearchError
from onesearch.events.messages import Interaction, key_of, write_interaction
from onesearch.kafka.contract import Client, Partition, Record
from onesearch.progress import Progress, SilentProgress
from onesearch.shoppers.lmdb_store import LmdbStates

from onesearch_streaming.ingest.consumer import Ingest
from onesearch_streaming.ingest.delta_log import DeltaLog
from onesearch_streaming.ingest.settings import IngestSettings
from onesearch_streaming.ingest.sinks import LogSink, StateSink
from onesearch_streaming.ingest.traffic import own_topics, pages, quickest

_PORTION = 20_000
_PARTITIONS = 4
_IDLE_S = 0.3


def run(
    events: int = 200_000,
    client: Literal["kafka-python", "confluent"] = "kafka-python",
    kafka: str | None = None,
    shoppers: int = 20_000,
    rounds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Events a second into the log, into log and states, and through a loop that only polls.

    Simulated traffic is sent to a topic first. Then each of the three reads all of it, in turn, several
    times; the middle one of its times counts.

    Args:
        events: how many are sent.
        client: the library for Kafka.
        kafka: bootstrap servers; none: a broker is started for it.
        shoppers: how many simulated shoppers there are.
        rounds: how often each is measured.
        seed: of the simulated traffic.
        progress: who is told.
    """
    progress = progress or SilentProgress()
    mark = secrets.token_hex(2)
    with own_topics(kafka, client, mark, _PARTITIONS) as (reader, _):
        with progress.task("sending", events) as task:
            sent = _fill(reader, seed, mark, shoppers, events, task)
        times: dict[str, list[float]] = {"poll loop": [], "log": [], "log and states": []}
        memory: list[tuple[float, float]] = []
        for number in range(rounds):
            with progress.task(f"round {number + 1} of {rounds}", 3) as task:
                times["poll loop"].append(_poll(reader, events))
                task.advance()
                with TemporaryDirectory(prefix="onesearch-log-") as folder:
                    seconds, lost, duplicated, _ = _ingest(
                        reader, sent, Path(folder), False, f"{mark}l{number}"
                    )
                times["log"].append(seconds)
                task.advance()
                with TemporaryDirectory(prefix="onesearch-log-") as folder:
                    both = _ingest(reader, sent, Path(folder), True, f"{mark}b{number}")
                times["log and states"].append(both[0])
                lost, duplicated = lost + both[1], duplicated + both[2]
                memory.append(both[3])
                task.advance()
    rate = {name: events / sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    poll = rate["poll loop"]
    return {
        "simulated": True,
        "client": client,
        "events": events,
        "events_per_s": rate["log"],
        "poll_loop_per_s": poll,
        "ratio": rate["log"] / poll,
        "log_and_states_per_s": rate["log and states"],
        "lost": lost,
        "duplicated": duplicated,
        "memory_mb": memory[-1][1],
        "memory_growth": memory[-1][1] / memory[-1][0] - 1,
        "rows": [
            {"what": name, "events_per_s": value, "of the poll loop": value / poll}
            for name, value in rate.items()
        ],
    }


def _fill(reader: Client, seed: int, mark: str, shoppers: int, events: int, task: Any) -> set[str]:
    """Send so many events; returns their ids."""
    topic = reader.settings.interactions
    traffic = islice(_flat(seed, mark, shoppers), events)
    sent: set[str] = set()
    with quickest(reader.settings).producer() as producer:
        while portion := list(islice(traffic, _PORTION)):
            records = [Record(topic, key_of(event), write_interaction(event)) for event in portion]
            failures = [failure for failure in producer.deliver(records, 60) if failure is not None]
            if failures:
                raise OneSearchError(f"{len(failures)} events could not be sent: {failures[0].reason}")
            sent.update(event.event_id for event in portion)
            task.advance(len(portion))
    return sent


def _flat(seed: int, mark: str, shoppers: int) -> Iterator[Interaction]:
    for page in pages(seed, mark, shoppers):
        yield from page


def _poll(reader: Client, events: int) -> float:
    """Seconds from the first messages to the last, looking at none."""
    with reader.consumer() as consumer:
        consumer.assign({Partition(reader.settings.interactions, at): 0 for at in range(_PARTITIONS)})
        count, began = 0, 0.0
        while count < events:
            fetched = consumer.poll(1.0, IngestSettings().poll_events)
            began = began or time.perf_counter()
            count += sum(map(len, fetched.values()))
        return time.perf_counter() - began


def _ingest(
    reader: Client, sent: set[str], folder: Path, states: bool, group: str
) -> tuple[float, int, int, tuple[float, float]]:
    """Seconds from the first messages to the last write, events lost and duplicated, and MB of memory after a
    quarter and at the end."""
    chosen = IngestSettings(group=f"bench-{group}")
    log = LogSink(DeltaLog(folder / "log"), chosen.log_events, chosen.log_every_s)
    store = LmdbStates(folder / "states") if states else None
    ingest = Ingest(reader, chosen, log, StateSink(store) if store else None)
    marks: list[float] = []

    def watch(read: int) -> None:
        if read >= len(sent) // 4 and not marks:
            marks.append(_memory_mb())

    done = ingest.run(_IDLE_S, watch)
    marks.append(_memory_mb())
    if store is not None:
        store.close()
    logged = pl.scan_delta(str(folder / "log")).select("event_id").collect()["event_id"]
    unique = set(logged)
    return done.seconds, len(sent - unique), len(logged) - len(unique), (marks[0], marks[-1])


def _memory_mb() -> float:
    resident = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE") / 1e6
