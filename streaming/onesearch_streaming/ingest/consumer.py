"""The loop: poll, read, write, and only then tell Kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from onesearch.errors import OneSearchError
from onesearch.kafka.contract import Client, Fetched, KafkaError, Partition, TruncatedError
from onesearch.shoppers.store import StaleError

from onesearch_streaming.ingest.lanes import Lane, TopicLostError, open_lane
from onesearch_streaming.ingest.letters import Letter, Letterbox, TooManyLettersError
from onesearch_streaming.ingest.metrics import Metrics
from onesearch_streaming.ingest.reading import read_batch
from onesearch_streaming.ingest.settings import IngestSettings
from onesearch_streaming.ingest.sinks import CatalogueSink, LogSink, Sink, StateSink

_LOG = logging.getLogger("onesearch.ingest")
_POLL_S = 0.1
_LOOK_EVERY_S = 5.0
_SETTLING_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """What a consumer did since its start; ``seconds`` from the first messages to the last write."""

    read: int
    written: dict[str, int]
    refused: int
    repeated: int
    missed: int
    seconds: float


class Ingest:
    """Reads the topics of a cluster into sinks until it is told to stop. One thread runs it."""

    def __init__(
        self,
        client: Client,
        settings: IngestSettings,
        log: LogSink | None = None,
        states: StateSink | None = None,
        catalogue: CatalogueSink | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client, self._settings = client, settings
        self.metrics = metrics or Metrics()
        topics = client.settings
        self._log = log
        self._sinks: dict[str, Sequence[Sink]] = {}
        if events := [sink for sink in (states, log) if sink is not None]:
            self._sinks[topics.interactions] = events
        if catalogue is not None:
            self._sinks[topics.catalogue] = [catalogue]
        if not self._sinks:
            raise OneSearchError("nothing to write to: name a log, states or a catalogue")
        self._lanes: dict[Partition, Lane] = {}
        self._stopping = False
        self._read = self._refused = self._repeated = self._missed = 0
        self._look_again = self._began = self._ended = 0.0
        self._compacted = 0
        self._waiting_for: str | None = None
        self._too_many: TooManyLettersError | None = None

    def stop(self) -> None:
        """Ask :meth:`run` to write what it has, leave the group and end; from any thread or signal."""
        self._stopping = True

    @property
    def done(self) -> Done:
        """What was done since the start."""
        written = {sink.name: sink.written for sinks in self._sinks.values() for sink in sinks}
        seconds = max(self._ended - self._began, 0.0)
        return Done(self._read, written, self._refused, self._repeated, self._missed, seconds)

    def run(self, until_idle_s: float | None = None, watch: Callable[[int], None] | None = None) -> Done:
        """Read until :meth:`stop`.

        Args:
            until_idle_s: end, too, when everything there is has been read and nothing came for so long.
            watch: told how many messages were read, whenever some were.

        Raises TooManyLettersError past the limit of dead letters, OneSearchError where a topic has lost
        messages that were read. Everything else is waited for: it says so and tries again.
        """
        self._admin = self._await(self._client.admin)
        self._letters = self._await(lambda: Letterbox(self._client, self._settings.dead_letters))
        self._consumer = self._await(lambda: self._client.consumer(self._settings.group))
        if self._stopping:
            return self.done
        try:
            self._consumer.subscribe(list(self._sinks), self._assigned, self._revoked)
            last = time.monotonic()
            while not self._stopping:
                came = self._step()
                if came and watch is not None:
                    watch(self._read)
                if until_idle_s is None:
                    continue
                if came or not self._lanes or self._behind():
                    last = time.monotonic()
                elif time.monotonic() - last >= until_idle_s:
                    break
            self._write(everything=True)
        finally:
            self._consumer.close()
            self._letters.close()
            self._admin.close()
        return self.done

    def _step(self) -> int:
        """One round; returns how many messages came."""
        self.metrics.seen.set_to_current_time()
        try:
            fetched = self._consumer.poll(_POLL_S, self._settings.poll_events)
        except TruncatedError as error:
            _LOG.warning("%s: looking where to go on", error)
            self._reopen()
            return 0
        except KafkaError as error:
            self._wait(str(error))
            return 0
        if fetched:
            self._began = self._began or time.monotonic()
        try:
            if fetched and not self._same_topics(fetched):
                return 0
            for partition, messages in fetched.items():
                lane = self._lanes.get(partition)
                if lane is not None:
                    self._handle(lane, messages)
            self._write(everything=self._too_many is not None)
            if self._too_many is not None:
                raise self._too_many
            self._look()
        except StaleError as error:
            _LOG.warning("%s: what was not yet written is left to it", error)
            self._reopen()
        self._goes_on()
        return sum(map(len, fetched.values()))

    def _handle(self, lane: Lane, messages: Fetched) -> None:
        """Read the messages of a partition and pass them on to its sinks."""
        topic = lane.partition.topic
        batch = read_batch(
            lane, messages, topic == self._client.settings.interactions, self._settings.message_bytes
        )
        if batch.letters:
            self._refuse(topic, batch.letters)
        for sink in self._sinks[topic]:
            start = lane.wanted[sink.name]
            if batch.before > start:
                sink.take(lane.source, batch.before, batch.since(start), batch.now)
                lane.wanted[sink.name] = batch.before
        lane.next = batch.before
        self._read += len(messages)
        self._repeated += batch.repeated
        self.metrics.read.labels(topic).inc(len(messages))
        self.metrics.repeated.labels(topic).inc(batch.repeated)

    def _refuse(self, topic: str, letters: list[Letter]) -> None:
        """Write letters, before any sink passes their messages: one may come twice, but none is lost."""
        while True:
            try:
                self._letters.put(letters)
                break
            except TooManyLettersError as error:
                # They are written: what came is dealt with first, so that it is not refused again later.
                self._too_many = error
                break
            except KafkaError as error:
                if self._stopping:
                    raise
                self._wait(str(error))
        self._refused += len(letters)
        self.metrics.refused.labels(topic).inc(len(letters))

    def _write(self, everything: bool = False) -> None:
        """Write what is due, then tell the group how far all sinks are."""
        wrote = False
        for sinks in self._sinks.values():
            for sink in sinks:
                if not (everything or sink.due()):
                    continue
                before = sink.written
                while True:
                    try:
                        wrote = bool(sink.write()) or wrote
                        break
                    except StaleError:
                        raise
                    except OneSearchError as error:
                        if self._stopping:
                            raise
                        self._wait(str(error))
                self.metrics.written.labels(sink.name).inc(sink.written - before)
        if not wrote or not self._lanes:
            return
        self._ended = time.monotonic()
        self._keep_house()
        # Only when nothing waits for the log is what was read safe in all sinks.
        if self._log is not None and self._log.waiting:
            return
        with suppress(KafkaError):
            self._consumer.commit(
                {lane.partition: min(lane.wanted.values()) for lane in self._lanes.values()}
            )

    def _keep_house(self) -> None:
        log = self._log
        if log is None or log.commits - self._compacted < self._settings.compact_every:
            return
        self._compacted = log.commits
        try:
            log.log.compact(self._settings.file_mb)
            log.log.vacuum(self._settings.keep_hours)
        except OneSearchError as error:
            _LOG.error("%s", error)

    def _assigned(self, partitions: list[Partition]) -> None:
        """Open partitions that are ours from now on."""
        until = time.monotonic() + _SETTLING_S
        while True:
            try:
                topics = self._admin.topics(list(self._sinks))
                gone = {one.topic for one in partitions if one.topic not in topics}
                if gone:
                    raise KafkaError(f"topic {gone.pop()} is not there")
                bounds = self._consumer.bounds(partitions)
                lanes = [
                    open_lane(one, topics[one.topic][0], bounds[one], self._sinks[one.topic],
                              self._settings.window)
                    for one in partitions
                ]  # fmt: skip
                break
            except KafkaError as error:
                if self._stopping:
                    return
                self._wait(str(error), poll=False)
            except TopicLostError:
                # A broker that comes up may say too little for a moment.
                if time.monotonic() > until:
                    raise
                time.sleep(self._settings.retry_s)
        for lane in lanes:
            self._lanes[lane.partition] = lane
            self._consumer.seek(lane.partition, lane.start)
            if lane.missed > 0:
                self._missed += lane.missed
                self.metrics.missed.labels(lane.partition.topic).inc(lane.missed)
                _LOG.error(
                    "%s[%d]: Kafka has removed %d messages before they were read: keep them longer "
                    "(retention.ms), or read more often",
                    *lane.partition, lane.missed,
                )  # fmt: skip
        self.metrics.partitions.set(len(self._lanes))

    def _revoked(self, partitions: list[Partition]) -> None:
        """Let go of partitions: whoever has them now begins where the sinks are."""
        for sinks in self._sinks.values():
            for sink in sinks:
                sink.forget()
        gone = [self._lanes.pop(one) for one in partitions if one in self._lanes]
        for lane in gone:
            with suppress(KeyError):
                self.metrics.lag.remove(lane.partition.topic, str(lane.partition.number))
        self.metrics.partitions.set(len(self._lanes))
        # What was forgotten of partitions that stay is read again.
        if self._lanes:
            self._assigned(list(self._lanes))

    def _reopen(self) -> None:
        """Forget what was not written, and go on from where the sinks are."""
        for sinks in self._sinks.values():
            for sink in sinks:
                sink.forget()
        if self._lanes:
            self._assigned(list(self._lanes))

    def _same_topics(self, fetched: dict[Partition, Fetched]) -> bool:
        """Whether what came is of the topics that were opened, and not of new ones of the same names."""
        try:
            topics = self._admin.topics(sorted({partition.topic for partition in fetched}))
        except KafkaError as error:
            for partition, messages in fetched.items():
                self._consumer.seek(partition, messages.offsets[0])
            self._wait(str(error))
            return False
        return self._still(topics)

    def _still(self, topics: dict[str, tuple[str, int]]) -> bool:
        """Whether topics have the ids that they were opened with; if not, they are opened again.

        What came of one that is gone altogether came before it went.
        """
        for lane in self._lanes.values():
            found = topics.get(lane.partition.topic)
            if found is not None and found[0] != lane.topic_id:
                _LOG.warning("topic %s was made anew: it is read from its beginning", lane.partition.topic)
                self._write(everything=True)
                self._reopen()
                return False
        return True

    def _look(self) -> None:
        """Now and then: how far behind, and whether topics are the ones that were opened."""
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + _LOOK_EVERY_S
        try:
            topics = self._admin.topics(list(self._sinks))
            for name in self._sinks:
                if name not in topics:
                    self._wait(f"topic {name} is not there")
            if self._still(topics):
                self._behind()
        except KafkaError as error:
            self._wait(str(error))

    def _behind(self) -> int:
        """Messages that are not read yet; 0 where Kafka does not say."""
        if not self._lanes:
            return 0
        try:
            bounds = self._consumer.bounds(list(self._lanes))
        except KafkaError:
            return 0
        total = 0
        for partition, lane in self._lanes.items():
            lag = max(bounds[partition].end - lane.next, 0)
            self.metrics.lag.labels(partition.topic, str(partition.number)).set(lag)
            total += lag
        return total

    def _await(self, make: Callable[[], T]) -> T:
        """Something that needs Kafka, tried until it answers."""
        while True:
            try:
                return make()
            except KafkaError as error:
                if self._stopping:
                    raise
                self._wait(str(error), poll=False)

    def _wait(self, why: str, poll: bool = True) -> None:
        """Stand still for a moment, and say why; the membership in the group is kept meanwhile."""
        if why != self._waiting_for:
            _LOG.error("waiting: %s", why)
        self._waiting_for = why
        self.metrics.waiting.set(1)
        time.sleep(self._settings.retry_s)
        if poll and self._lanes:
            with suppress(KafkaError):
                self._consumer.pause(True)
                try:
                    # Partitions that became ours in there are not paused.
                    for partition, messages in self._consumer.poll(0, 1).items():
                        self._consumer.seek(partition, messages.offsets[0])
                finally:
                    self._consumer.pause(False)

    def _goes_on(self) -> None:
        if self._waiting_for is not None:
            _LOG.warning("going on")
            self._waiting_for = None
            self.metrics.waiting.set(0)
