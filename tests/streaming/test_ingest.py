"""The consumer against a real broker: everything once, whatever comes and whatever happens."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pytest
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.cli.main import main
from onesearch.config import KafkaConfig
from onesearch.errors import OneSearchError
from onesearch.events.messages import (
    ANONYMOUS,
    CatalogueEvent,
    Interaction,
    key_of,
    now_us,
    write_change,
    write_interaction,
)
from onesearch.events.proto import events_pb2 as pb
from onesearch.kafka.contract import Client, NewTopic, Record
from onesearch.kafka.opening import connect
from onesearch.shoppers.lmdb_store import LmdbStates
from onesearch.shoppers.opening import open_states
from onesearch_streaming.ingest.consumer import Done, Ingest
from onesearch_streaming.ingest.delta_log import DeltaLog
from onesearch_streaming.ingest.letters import LONGEST, TooManyLettersError, read_letters, waiting
from onesearch_streaming.ingest.settings import IngestSettings
from onesearch_streaming.ingest.sinks import CatalogueSink, LogSink, StateSink

pytestmark = pytest.mark.e2e


@dataclass
class World:
    """A cluster's topics, and where they are read to."""

    kafka: KafkaConfig
    folder: Path
    settings: IngestSettings

    @property
    def client(self) -> Client:
        return connect(self.kafka)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def url(self) -> str:
        return f"lmdb:{self.folder / 'states'}"

    def send(self, events: Sequence[Interaction]) -> None:
        self.send_raw([(key_of(event), write_interaction(event)) for event in events])

    def send_raw(self, messages: Sequence[tuple[bytes | None, bytes]], topic: str | None = None) -> None:
        records = [Record(topic or self.kafka.interactions, key, value) for key, value in messages]
        with self.client.producer() as producer:
            assert not any(producer.deliver(records, 20))

    @contextmanager
    def ingest(self, catalogue: bool = False, **changes: Any) -> Iterator[Ingest]:
        settings = self.settings.model_copy(update=changes)
        with open_states(self.url) as states:
            yield Ingest(
                self.client,
                settings,
                log=LogSink(DeltaLog(self.log), settings.log_events, settings.log_every_s),
                states=StateSink(states),
                catalogue=CatalogueSink(ChangeLog(self.folder / "catalogue")) if catalogue else None,
            )

    def run(self, catalogue: bool = False, **changes: Any) -> Done:
        with self.ingest(catalogue, **changes) as ingest:
            return ingest.run(until_idle_s=0.3)

    def logged(self) -> list[str]:
        return pl.scan_delta(str(self.log)).sort("source_offset").collect()["event_id"].to_list()

    def counts(self, user_id: str) -> tuple[int, int, int]:
        with open_states(self.url) as states:
            return states.get(user_id).counts


@pytest.fixture
def world(kafka: KafkaConfig, tmp_path: Path) -> World:
    settings = IngestSettings(group=f"group-{kafka.interactions}", window=50, log_every_s=0.2, retry_s=0.1)
    return World(kafka, tmp_path, settings)


def event(at: int, user: int = 0, action: str = "impression", **fields: Any) -> Interaction:
    fields = {"query": "red lamp", "position": at % 10, **fields}
    return Interaction(f"e{at}", now_us(), f"u{user}", f"i{at}", action, **fields)


def test_everything_is_there_once_however_often_it_is_read(world: World) -> None:
    events = [event(at, at % 7, ("impression", "click", "order")[at % 3]) for at in range(300)]
    world.send(events)
    done = world.run(log_events=40, poll_events=70)
    assert done.written == {"states": 300, "log": 300} and done.refused == done.repeated == 0
    assert sorted(world.logged()) == sorted(one.event_id for one in events)
    assert sum(sum(world.counts(f"u{user}")) for user in range(7)) == 300
    # A new group, as if Kafka had forgotten how far we were: the sinks know.
    again = world.run(group="other")
    assert again.written == {"states": 0, "log": 0}
    # A sender that did not hear of an acknowledgement sends again.
    world.send([*events[-20:], event(900, 1)])
    assert world.run().repeated == 20 and len(world.logged()) == 301
    row = pl.scan_delta(str(world.log)).filter(pl.col("event_id") == "e4").collect().to_dicts()[0]
    assert row["query"] == "red lamp" and row["position"] == 4 and row["action"] == "click"


def test_one_sink_behind_the_other_catches_up_alone(world: World) -> None:
    world.send([event(at, at % 3) for at in range(50)])
    with open_states(world.url) as states:
        Ingest(world.client, world.settings, states=StateSink(states)).run(until_idle_s=0.3)
    world.send([event(at, at % 3) for at in range(40, 80)])  # ten of them again
    done = world.run()
    assert done.written == {"states": 30, "log": 80}
    assert sum(world.counts(f"u{user}")[0] for user in range(3)) == 80


def test_bad_messages_go_to_the_letters_and_come_back(world: World, capsys: Any) -> None:
    newer = pb.Interaction.FromString(write_interaction(event(1)))
    newer.schema = 7
    skewed = event(2)._replace(ts_us=now_us() + 3 * 86_400_000_000)
    bad = [
        (b"k", b"\xff\xfe\x00garbage"),
        (None, b""),
        (b"k", newer.SerializeToString()),
        (b"k", write_interaction(skewed)),
        (b"k", write_interaction(event(3, position=-1))),
        (b"k", write_interaction(event(4, query="x" * 10_001))),
    ]
    world.send_raw([(b"k", write_interaction(event(at))) for at in (10, 11)])
    world.send_raw(bad)
    world.send([event(12)])
    done = world.run()
    assert done.refused == len(bad) and done.written == {"states": 3, "log": 3}
    letters = list(read_letters(world.client, 100))
    assert sorted(letter.value for letter in letters) == sorted(value for _, value in bad)
    assert all(
        letter.whole and letter.reason and letter.topic == world.kafka.interactions for letter in letters
    )
    assert waiting(world.client) == len(bad)
    options = ["--kafka", world.kafka.servers, "--config", str(config_file(world))]
    told = command(capsys, "ingest", "dlq", "show", "--json", *options)
    assert told["waiting"] == len(bad) and any("version" in one["reason"] for one in told["letters"])
    assert "garbage" in shown(capsys, "ingest", "dlq", "show", *options)
    # Nothing was mended, so they are refused once more.
    told = command(capsys, "ingest", "dlq", "replay", "--json", *options)
    assert told == {"replayed": len(bad), "left_out": 0, "waiting": 0}
    assert world.run().refused == len(bad) and len(world.logged()) == 3
    assert command(capsys, "ingest", "dlq", "drop", "--json", *options)["waiting"] == 0
    assert list(read_letters(world.client, 100)) == []


def test_past_the_limit_of_letters_it_stops_and_says_so(world: World, capsys: Any) -> None:
    world.send([event(1)])
    world.send_raw([(b"k", b"\xff%d" % at) for at in range(5)])
    with pytest.raises(TooManyLettersError, match="dlq"):
        world.run(dead_letters=3)
    with pytest.raises(TooManyLettersError):  # until somebody has looked
        world.run(dead_letters=3)
    command(capsys, "ingest", "dlq", "drop", "--json", "--config", str(config_file(world)))
    world.send([event(2)])
    world.run(dead_letters=3)
    assert sorted(world.logged()) == ["e1", "e2"]


def test_a_message_of_ten_megabytes(world: World) -> None:
    topic = f"{world.kafka.interactions}-large"
    large = {"max.message.bytes": str(40 << 20)}
    with world.client.admin() as admin:
        admin.create([NewTopic(topic, 1, settings=large)])
    world.kafka = world.kafka.model_copy(update={"interactions": topic})
    huge = write_interaction(event(1, query="x" * 10_000_000))
    world.send_raw([(b"k", huge), (b"k", b"\x00" * (LONGEST + 5))])
    world.send([event(2)])
    done = world.run()
    assert done.written == {"states": 1, "log": 1} and done.refused == 2
    first, second = read_letters(world.client, 10)
    assert first.value == huge and first.whole and "10,000" in first.reason
    assert not second.whole and second.length == LONGEST + 5 and len(second.value) == LONGEST


def test_order_does_not_matter_to_states(world: World, more_topics: Callable[[], KafkaConfig]) -> None:
    events = [event(at, 0, ("click", "impression", "order")[at % 3]) for at in range(60)]
    events = [one._replace(ts_us=one.ts_us - at * 2_000_000) for at, one in enumerate(events)]
    world.send(events)
    world.run()
    other = World(more_topics(), world.folder / "other", world.settings)
    other.send([*reversed(events[:30]), *events[30:]])
    other.run(group=f"group-{other.kafka.interactions}")
    with open_states(world.url) as one, open_states(other.url) as two:
        assert one.get("u0") == two.get("u0")


def test_anonymous_shoppers_are_logged_and_have_no_state(world: World) -> None:
    world.send([event(1)._replace(user_id=f"{ANONYMOUS}r1"), event(2)])
    assert world.run().written == {"states": 1, "log": 2}
    with open_states(world.url) as states:
        assert list(states.users()) == ["u0"]


def test_the_catalogue_follows_its_topic(world: World, capsys: Any) -> None:
    changes = [
        Change("i1", title="Lamp", price=5.0),
        Change("i1", "patch", price=4.0),
        Change("i2", title="Rug"),
        Change("i2", "withdraw"),
    ]
    events = [CatalogueEvent(f"c{at}", now_us(), change) for at, change in enumerate(changes)]
    messages = [(key_of(one), write_change(one)) for one in events]
    world.send_raw([*messages, (b"i3", b"junk"), messages[0]], world.kafka.catalogue)
    world.send([event(1)])
    done = world.run(catalogue=True)
    assert done.written == {"states": 1, "log": 1, "catalogue": 4} and done.refused == done.repeated == 1
    log = ChangeLog(world.folder / "catalogue")
    told, _ = log.since(0)
    assert told["i1"].price == 4.0 and told["i2"].action == "withdraw"
    assert world.run(catalogue=True).written == {"states": 0, "log": 0, "catalogue": 0}
    # A file of changes, by the command.
    file = world.folder / "changes.jsonl"
    file.write_text('{"item_id": "i5", "title": "Desk"}\n{"item_id": "i5", "action": "patch", "price": 3}\n')
    options = ("--json", "--config", str(config_file(world)))
    assert command(capsys, "ingest", "send", str(file), *options) == {"sent": 2}
    assert world.run(catalogue=True).written["catalogue"] == 2 and log.since(0)[0]["i5"].price == 3.0


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(world: World) -> None:
    world.send([event(at) for at in range(40)])
    with world.ingest() as ingest:
        thread, ended = running(ingest)
        until(lambda: ingest.done.written == {"states": 40, "log": 40})
        with world.client.admin() as admin:
            admin.delete([world.kafka.interactions])
            until(lambda: not admin.topics([world.kafka.interactions]))
            time.sleep(0.5)
            admin.create([NewTopic(world.kafka.interactions, 2)])
            until(lambda: bool(admin.topics([world.kafka.interactions])))
        # More than the old one held, so that the old offset is there, too, and some of it again.
        world.send([event(at) for at in range(30, 120)])
        until(lambda: ingest.done.written["log"] >= 120, 40)
        ingest.stop()
        thread.join(20)
    assert not ended
    # The window is that of the new topic: what stood in the old one is not known in it.
    assert sorted(set(world.logged())) == sorted(f"e{at}" for at in range(120))


def test_two_processes_share_while_events_flow_and_nothing_is_lost_or_written_twice(world: World) -> None:
    """One reads, another joins, the first one leaves: partitions go over twice, and events never pause."""
    sent: list[str] = []
    enough = threading.Event()

    def flow() -> None:
        with world.client.producer() as producer:
            while not enough.wait(0.02):
                events = [event(at, at % 20) for at in range(len(sent), len(sent) + 10)]
                records = [
                    Record(world.kafka.interactions, key_of(one), write_interaction(one)) for one in events
                ]
                assert not any(producer.deliver(records, 20))
                sent.extend(one.event_id for one in events)

    sender = threading.Thread(target=flow, daemon=True)
    with Reading(world) as one, Reading(world) as two:
        sender.start()
        one.start()
        until(lambda: one.partitions == 2, 40)
        two.start()
        until(lambda: one.partitions == two.partitions == 1, 40)
        mark = len(sent)
        until(lambda: len(sent) > mark + 200)
        first = one.end()
        until(lambda: two.partitions == 2, 40)
        mark = len(sent)
        until(lambda: len(sent) > mark + 200)
        enough.set()
        sender.join(20)
        until(lambda: len(world.logged()) >= len(sent), 40)
        second = two.end()
    assert first["written"]["log"] > 0 and second["written"]["log"] > 200
    assert sorted(world.logged()) == sorted(sent) and first["repeated"] == second["repeated"] == 0
    assert sum(world.counts(f"u{user}")[0] for user in range(20)) == len(sent)


class Reading:
    """``onesearch ingest run`` as a process of its own."""

    def __init__(self, world: World) -> None:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self._port = chosen.getsockname()[1]
        self._command = [
            sys.executable, "-m", "onesearch.cli.main", "ingest", "run", "--config", config_file(world),
            "--log", world.log, "--states", world.url, "--json", "--metrics-port", str(self._port),
        ]  # fmt: skip

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    @property
    def partitions(self) -> int:
        """How many it reads by now."""
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                told = answer.read().decode()
        except OSError:
            return 0
        found = re.search(r"^onesearch_ingest_partitions (\S+)", told, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def end(self) -> dict[str, Any]:
        """Have it stop by itself; what it did."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=30)
        assert self._process.returncode == 0
        return dict(json.loads(said))


def test_nothing_is_lost_while_there_is_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read waits, the membership is kept, and it is written when there is room."""
    world.send([event(at) for at in range(20)])
    with world.ingest() as ingest:
        thread, ended = running(ingest)
        until(lambda: ingest.done.written["log"] == 20)
        for sink, name in ((LmdbStates, "update"), (DeltaLog, "append")):
            with monkeypatch.context() as full:
                full.setattr(sink, name, refused_write)
                sent = sum(ingest.done.written.values()) // 2
                world.send([event(at) for at in range(sent, sent + 20)])
                until(lambda: waits(ingest))
            until(lambda sent=sent: ingest.done.written == {"states": sent + 20, "log": sent + 20})  # type: ignore[misc]
            until(lambda: not waits(ingest))
        ingest.stop()
        thread.join(20)
    assert not ended and len(world.logged()) == 60 and world.counts("u0") == (60, 0, 0)


def refused_write(*_: Any, **__: Any) -> None:
    raise OneSearchError("no space")


def waits(ingest: Ingest) -> bool:
    return ingest.metrics.registry.get_sample_value("onesearch_ingest_waiting") == 1.0


def running(ingest: Ingest) -> tuple[threading.Thread, list[BaseException]]:
    """Runs a consumer in a thread; what it ends with, if with anything."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            ingest.run()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def until(true: Callable[[], bool], patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def config_file(world: World) -> Path:
    kafka = world.kafka
    file = world.folder / "config.toml"
    file.write_text(
        f'[kafka]\nservers = "{kafka.servers}"\ninteractions = "{kafka.interactions}"\n'
        f'catalogue = "{kafka.catalogue}"\ndead_letters = "{kafka.dead_letters}"\n'
        f'[ingest]\ngroup = "{world.settings.group}"\nlog_every_s = 0.2\n'
    )
    return file


def shown(capsys: Any, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    assert ended.value.code in (0, None), said.err
    return str(said.out)


def command(capsys: Any, *arguments: str) -> dict[str, Any]:
    return dict(json.loads(shown(capsys, *arguments)))
