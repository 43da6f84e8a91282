"""The contract kept by ``kafka-python``.

It wants the C extension ``crc32c``: without it sums are checked in Python, which takes three times as long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import kafka
import kafka.admin
from kafka import errors
from kafka.structs import OffsetAndMetadata, TopicPartition

from onesearch.config import KafkaConfig
from onesearch.kafka.contract import (
    Admin,
    Bounds,
    Client,
    Consumer,
    Failure,
    Fetched,
    KafkaError,
    NewTopic,
    Partition,
    Producer,
    Record,
    Told,
    TruncatedError,
)
from onesearch.kafka.diagnosis import unreachable
from onesearch.kafka.password import password

_BATCH_BYTES = 256 * 1024
_FETCH_BYTES = 4 * 1024 * 1024
_CONNECT_S = 5.0
_JOIN_S = 30.0


class KafkaPythonClient(Client):
    """Makes what ``kafka-python`` has."""

    def producer(self) -> Producer:
        """A new producer."""
        return _Producer(self.settings)

    def consumer(self, group: str | None = None) -> Consumer:
        """A new consumer."""
        return _Consumer(self.settings, group)

    def admin(self) -> Admin:
        """A new admin."""
        return _Admin(self.settings)


class _Producer(Producer):
    def __init__(self, settings: KafkaConfig) -> None:
        self._settings = settings
        self._producer: Any = None

    def deliver(self, records: Sequence[Record], timeout_s: float) -> list[Failure | None]:
        until = time.monotonic() + timeout_s
        try:
            producer = self._connected(timeout_s)
        except errors.KafkaError as error:
            return [Failure(unreachable(self._settings, _said(error)))] * len(records)
        futures = []
        for record in records:
            try:
                futures.append(
                    producer.send(
                        record.topic, record.value, key=record.key, headers=list(record.headers) or None
                    )
                )
            except (errors.KafkaError, AssertionError, ValueError) as error:
                futures.append(error)
        results = [_outcome(future, until) for future in futures]
        if any(results):
            # One that gave up on a message has a gap in its numbering and may refuse all later ones.
            self.close()
        if len(records) > 1:
            # The whole batch of one that is too large is refused; alone it shows which one that is.
            for row, failure in enumerate(results):
                if failure is not None and failure.lasting:
                    results[row] = self.deliver([records[row]], timeout_s)[0]
        return results

    def _connected(self, timeout_s: float) -> Any:
        if self._producer is None:
            patience_ms = max(int(1000 * timeout_s), 1_000)
            self._producer = _KafkaProducer(
                **_common(self._settings),
                acks="all",
                linger_ms=5,
                batch_size=_BATCH_BYTES,
                delivery_timeout_ms=patience_ms,
                request_timeout_ms=max(patience_ms - 100, 500),
                max_block_ms=patience_ms,
                bootstrap_timeout_ms=patience_ms,
                max_request_size=100 * 1024 * 1024,
                allow_auto_create_topics=False,
                reconnect_backoff_max_ms=1_000,
            )
        return self._producer

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(errors.KafkaError):
                producer.close(timeout=1)


class _KafkaProducer(kafka.KafkaProducer):
    """One that ends without a word where its making failed for want of a broker: the library's own prints a
    traceback of its ``__del__`` then."""

    def __del__(self) -> None:
        with suppress(Exception):
            super().__del__()


def _outcome(future: Any, until: float) -> Failure | None:
    if isinstance(future, Exception):
        return _failure(future)
    try:
        future.get(timeout=max(until - time.monotonic(), 0.001))
    except errors.KafkaError as error:
        return _failure(error)
    return None


def _failure(error: Exception) -> Failure:
    too_large = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
    return Failure(_said(error), isinstance(error, too_large))


class _Consumer(Consumer):
    def __init__(self, settings: KafkaConfig, group: str | None) -> None:
        self._changes: list[tuple[str, list[Partition]]] = []
        self._told: dict[str, Told] = {}
        with _reached(settings):
            self._consumer: Any = kafka.KafkaConsumer(
                **_common(settings),
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=_FETCH_BYTES,
                bootstrap_timeout_ms=int(1000 * _CONNECT_S),
                metadata_max_age_ms=10_000,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=1_000,
                reconnect_backoff_max_ms=1_000,
                allow_auto_create_topics=False,
                partition_assignment_strategy=(kafka.coordinator.assignors.range.RangePartitionAssignor,),
            )

        if group is not None:
            # A poll whose time is over while the group is being joined forgets, in version 3.0.12, what it is
            # assigned (rejoin_needed is unset before the assignment is looked at). So joining gets its time.
            coordinator = self._consumer._coordinator
            coordinator.poll = partial(_patient, coordinator.poll)

    def subscribe(self, topics: Sequence[str], assigned: Told, revoked: Told) -> None:
        self._told = {"assigned": assigned, "revoked": revoked}
        self._consumer.subscribe(list(topics), listener=_Listener(self._consumer, self._changes))

    def assign(self, partitions: Mapping[Partition, int]) -> None:
        self._consumer.assign([TopicPartition(*partition) for partition in partitions])
        for partition, offset in partitions.items():
            self.seek(partition, offset)

    def seek(self, partition: Partition, offset: int) -> None:
        # One that went to somebody else meanwhile: the next poll tells.
        with suppress(ValueError):
            self._consumer.seek(TopicPartition(*partition), offset)

    def poll(self, timeout_s: float, limit: int) -> dict[Partition, Fetched]:
        with _explained():
            found = self._consumer.poll(int(1000 * timeout_s), max_records=limit)
        gone = self._tell()
        return {
            Partition(partition.topic, partition.partition): Fetched(
                [record.offset for record in records],
                [record.key for record in records],
                [record.value or b"" for record in records],
                [record.headers for record in records],
                [record.timestamp for record in records],
            )
            for partition, records in found.items()
            if (partition.topic, partition.partition) not in gone
        }

    def _tell(self) -> set[Partition]:
        """Pass on what the listener has heard; returns the partitions whose messages are not ours."""
        gone: set[Partition] = set()
        while self._changes:
            what, partitions = self._changes.pop(0)
            if what == "revoked":
                gone.update(partitions)
            self._told[what](partitions)
            if what == "assigned":
                ours = self._consumer.assignment()
                self._consumer.resume(
                    *(one for one in ours if Partition(one.topic, one.partition) in partitions)
                )
        return gone

    def pause(self, wanted: bool) -> None:
        change = self._consumer.pause if wanted else self._consumer.resume
        change(*self._consumer.assignment())

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        with _explained():
            self._consumer.commit(
                {
                    TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)
                    for partition, offset in offsets.items()
                },
                timeout_ms=int(1000 * _CONNECT_S),
            )

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        timeout_ms = int(1000 * _CONNECT_S)
        with _explained():
            found = {
                partition: self._consumer.committed(TopicPartition(*partition), timeout_ms=timeout_ms)
                for partition in partitions
            }
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        asked = [TopicPartition(*partition) for partition in partitions]
        with _explained():
            firsts = self._consumer.beginning_offsets(asked, timeout_ms=int(1000 * _CONNECT_S))
            ends = self._consumer.end_offsets(asked, timeout_ms=int(1000 * _CONNECT_S))
        return {
            partition: Bounds(firsts[one], ends[one])
            for partition, one in zip(partitions, asked, strict=True)
        }

    def close(self) -> None:
        with suppress(errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=2_000)


def _patient(poll: Any, timeout_ms: float | None = None) -> Any:
    return poll(timeout_ms=max(timeout_ms or 0, 1000 * _JOIN_S))


class _Listener(kafka.ConsumerRebalanceListener):
    """Notes what happens. It runs on the client's own thread, where nothing may wait for the cluster, so new
    partitions stand still until somebody has said where to begin."""

    def __init__(self, consumer: Any, changes: list[tuple[str, list[Partition]]]) -> None:
        self._consumer, self._changes = consumer, changes

    def on_partitions_assigned(self, assigned: Any) -> None:
        for one in assigned:
            self._consumer.seek(one, 0)
        self._consumer.pause(*assigned)
        self._changes.append(("assigned", [Partition(one.topic, one.partition) for one in assigned]))

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._changes.append(("revoked", [Partition(one.topic, one.partition) for one in revoked]))


class _Admin(Admin):
    def __init__(self, settings: KafkaConfig) -> None:
        with _reached(settings):
            self._admin: Any = kafka.admin.KafkaAdminClient(
                **_common(settings),
                bootstrap_timeout_ms=int(1000 * _CONNECT_S),
                request_timeout_ms=int(1000 * _CONNECT_S),
                reconnect_backoff_max_ms=1_000,
            )

    def topics(self, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        with _explained():
            found = self._admin.describe_topics(list(names))
        return {
            one["name"]: (UUID(one["topic_id"]).hex, len(one["partitions"]))
            for one in found
            if one["error_code"] == 0
        }

    def create(self, topics: Sequence[NewTopic]) -> list[str]:
        made = []
        for topic in topics:
            wanted = kafka.admin.NewTopic(
                topic.name, topic.partitions, topic.replicas, topic_configs=dict(topic.settings)
            )
            with suppress(errors.TopicAlreadyExistsError), _explained(errors.TopicAlreadyExistsError):
                self._admin.create_topics([wanted])
                made.append(topic.name)
        return made

    def delete(self, names: Sequence[str]) -> None:
        with _explained():
            self._admin.delete_topics(list(names))

    def close(self) -> None:
        with suppress(errors.KafkaError):
            self._admin.close()


def _common(settings: KafkaConfig) -> dict[str, Any]:
    given: dict[str, Any] = {
        "bootstrap_servers": [one.strip() for one in settings.servers.split(",")],
        "security_protocol": settings.security,
        "client_id": "onesearch",
    }
    if "SSL" in settings.security:
        files = {"ssl_cafile": settings.ca_file, "ssl_certfile": settings.cert_file}
        files["ssl_keyfile"] = settings.key_file
        given |= {name: file for name, file in files.items() if file}
    if settings.security.startswith("SASL"):
        given |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": password(settings),
        }
    return given


@contextmanager
def _reached(settings: KafkaConfig) -> Iterator[None]:
    """Where a cluster is not reached, why."""
    try:
        yield
    except errors.KafkaError as error:
        raise KafkaError(unreachable(settings, _said(error))) from error


@contextmanager
def _explained(*passed: type[Exception]) -> Iterator[None]:
    """Errors become those of the contract, but for some."""
    try:
        yield
    except passed:
        raise
    except (
        errors.OffsetOutOfRangeError,
        errors.NoOffsetForPartitionError,
        errors.LogTruncationError,
    ) as error:
        raise TruncatedError(_said(error)) from error
    except errors.KafkaError as error:
        raise KafkaError(f"Kafka: {_said(error)}") from error


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    name = type(error).__name__
    return (text if name in text else f"{name}: {text}")[:300]
