"""The contract kept by ``confluent-kafka`` (librdkafka): several times as fast, one more thing to install."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka as ck
from confluent_kafka import admin as ck_admin

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

_CONNECT_S = 5.0
_MAX_MESSAGE = 100 * 1024 * 1024
_AWAY = (
    ck.KafkaError._PARTITION_EOF,
    ck.KafkaError._TRANSPORT,
    ck.KafkaError._ALL_BROKERS_DOWN,
    ck.KafkaError._UNKNOWN_TOPIC,
    ck.KafkaError._UNKNOWN_PARTITION,
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
)
_TRUNCATED = (
    ck.KafkaError._AUTO_OFFSET_RESET,
    ck.KafkaError.OFFSET_OUT_OF_RANGE,
    ck.KafkaError._NO_OFFSET,
    ck.KafkaError._LOG_TRUNCATION,
)


class ConfluentClient(Client):
    """Makes what ``confluent-kafka`` has."""

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
        if self._producer is None:
            self._producer = ck.Producer(
                _common(self._settings)
                | {
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 5,
                    "delivery.timeout.ms": max(int(1000 * timeout_s), 1_000),
                    "message.max.bytes": _MAX_MESSAGE,
                    "allow.auto.create.topics": False,
                    "queue.buffering.max.messages": max(100_000, len(records)),
                    # A topic that is made a moment later shall be found.
                    "topic.metadata.propagation.max.ms": 1_000,
                }
            )
        producer = self._producer
        results: list[Failure | None] = [Failure("not acknowledged in time")] * len(records)

        def told(row: int) -> Any:
            def tell(error: Any, _: Any) -> None:
                results[row] = None if error is None else _failure(error)

            return tell

        for row, record in enumerate(records):
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    headers=list(record.headers) or None,
                    on_delivery=told(row),
                )
            except ck.KafkaException as error:
                results[row] = _failure(error.args[0])
        producer.flush(max(until - time.monotonic(), 0.001))
        if any(results):
            producer.purge()
            producer.flush(0.1)
            self._producer = None
        if records and all(one is not None and not one.lasting for one in results):
            reason = unreachable(self._settings, results[0].reason if results[0] else "")
            return [Failure(reason)] * len(records)
        return results

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(1)


class _Consumer(Consumer):
    def __init__(self, settings: KafkaConfig, group: str | None) -> None:
        self._consumer: Any = ck.Consumer(
            _common(settings)
            | {
                # It insists on a name; without subscribing nobody hears of it.
                "group.id": group or "onesearch-alone",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "max.partition.fetch.bytes": 4 * 1024 * 1024,
                "fetch.message.max.bytes": 4 * 1024 * 1024,
                "receive.message.max.bytes": _MAX_MESSAGE,
                "queued.max.messages.kbytes": 32 * 1024,
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 1_000,
                "topic.metadata.refresh.interval.ms": 10_000,
                "allow.auto.create.topics": False,
                "partition.assignment.strategy": "range",
            }
        )
        self._seeks: dict[Partition, int] | None = None
        try:
            self._consumer.list_topics(timeout=_CONNECT_S)
        except ck.KafkaException as error:
            self._consumer.close()
            raise KafkaError(unreachable(settings, _said(error))) from error

    def subscribe(self, topics: Sequence[str], assigned: Told, revoked: Told) -> None:
        def on_assign(consumer: Any, partitions: Any) -> None:
            # What is sought in there becomes where the assignment begins.
            self._seeks = {}
            try:
                assigned([_named(one) for one in partitions])
                consumer.assign([_placed(partition, offset) for partition, offset in self._seeks.items()])
            finally:
                self._seeks = None

        def on_revoke(consumer: Any, partitions: Any) -> None:
            revoked([_named(one) for one in partitions])

        self._consumer.subscribe(list(topics), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def assign(self, partitions: Mapping[Partition, int]) -> None:
        self._consumer.assign([_placed(partition, offset) for partition, offset in partitions.items()])

    def seek(self, partition: Partition, offset: int) -> None:
        if self._seeks is not None:
            self._seeks[partition] = offset
            return
        try:
            self._consumer.seek(_placed(partition, offset))
        except ck.KafkaException as error:
            # One that went to somebody else meanwhile: the next poll tells.
            if error.args[0].code() != ck.KafkaError._STATE:
                raise KafkaError(f"Kafka: {_said(error)}") from error

    def poll(self, timeout_s: float, limit: int) -> dict[Partition, Fetched]:
        until = time.monotonic() + timeout_s
        found: dict[Partition, Fetched] = {}
        # It waits for the whole number or the whole time; somebody is waiting for the first one.
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(limit - 1, min(0.01, max(until - time.monotonic(), 0.001)))
        for message in messages:
            error = message.error()
            if error is not None:
                _raise(error)
                continue
            partition = Partition(message.topic(), message.partition())
            into = found.get(partition)
            if into is None:
                into = found[partition] = Fetched([], [], [], [], [])
            into.offsets.append(message.offset())
            into.keys.append(message.key())
            into.values.append(message.value() or b"")
            into.headers.append(message.headers() or ())
            into.times.append(message.timestamp()[1])
        return found

    def pause(self, wanted: bool) -> None:
        change = self._consumer.pause if wanted else self._consumer.resume
        change(self._consumer.assignment())

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        try:
            self._consumer.commit(
                offsets=[_placed(partition, offset) for partition, offset in offsets.items()],
                asynchronous=False,
            )
        except ck.KafkaException as error:
            raise KafkaError(f"Kafka: {_said(error)}") from error

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        try:
            found = self._consumer.committed([ck.TopicPartition(*one) for one in partitions], _CONNECT_S)
        except ck.KafkaException as error:
            raise KafkaError(f"Kafka: {_said(error)}") from error
        return {_named(one): one.offset for one in found if one.offset >= 0}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        try:
            return {
                one: Bounds(*self._consumer.get_watermark_offsets(ck.TopicPartition(*one), _CONNECT_S))
                for one in partitions
            }
        except ck.KafkaException as error:
            raise KafkaError(f"Kafka: {_said(error)}") from error
        except TypeError:
            raise KafkaError("Kafka: no answer in time") from None

    def close(self) -> None:
        self._consumer.close()


class _Admin(Admin):
    def __init__(self, settings: KafkaConfig) -> None:
        self._admin: Any = ck_admin.AdminClient(_common(settings))
        try:
            self._admin.list_topics(timeout=_CONNECT_S)
        except ck.KafkaException as error:
            raise KafkaError(unreachable(settings, _said(error))) from error

    def topics(self, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        found = {}
        asked = self._admin.describe_topics(ck.TopicCollection(list(names)), request_timeout=_CONNECT_S)
        for name, future in asked.items():
            try:
                told = future.result()
            except ck.KafkaException as error:
                if error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                raise KafkaError(f"Kafka: {_said(error)}") from error
            bits = (
                told.topic_id.get_most_significant_bits() % 2**64,
                told.topic_id.get_least_significant_bits() % 2**64,
            )
            found[name] = f"{bits[0]:016x}{bits[1]:016x}", len(told.partitions)
        return found

    def create(self, topics: Sequence[NewTopic]) -> list[str]:
        wanted = [
            ck_admin.NewTopic(one.name, one.partitions, one.replicas, config=dict(one.settings))
            for one in topics
        ]
        made = []
        for name, future in self._admin.create_topics(wanted, operation_timeout=_CONNECT_S).items():
            try:
                future.result()
                made.append(name)
            except ck.KafkaException as error:
                if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise KafkaError(f"Kafka: {_said(error)}") from error
        return made

    def delete(self, names: Sequence[str]) -> None:
        for future in self._admin.delete_topics(list(names), operation_timeout=_CONNECT_S).values():
            try:
                future.result()
            except ck.KafkaException as error:
                raise KafkaError(f"Kafka: {_said(error)}") from error

    def close(self) -> None:
        self._admin = None


def _common(settings: KafkaConfig) -> dict[str, Any]:
    given: dict[str, Any] = {
        "bootstrap.servers": settings.servers,
        "security.protocol": settings.security,
        "client.id": "onesearch",
        "reconnect.backoff.max.ms": 1_000,
        # It would write to standard error by itself.
        "log_level": 2,
        "error_cb": lambda error: None,
    }
    if "SSL" in settings.security:
        files = {"ssl.ca.location": settings.ca_file, "ssl.certificate.location": settings.cert_file}
        files["ssl.key.location"] = settings.key_file
        given |= {name: file for name, file in files.items() if file}
    if settings.security.startswith("SASL"):
        given |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": password(settings),
        }
    return given


def _named(one: Any) -> Partition:
    return Partition(one.topic, one.partition)


def _placed(partition: Partition, offset: int) -> Any:
    return ck.TopicPartition(partition.topic, partition.number, offset)


def _raise(error: Any) -> None:
    """Raise for what a reader must know; what passes by itself is not."""
    if error.code() in _TRUNCATED:
        raise TruncatedError(f"Kafka: {error.str()}")
    if error.code() not in _AWAY and not error.retriable():
        raise KafkaError(f"Kafka: {error.str()}")


def _failure(error: Any) -> Failure:
    too_large = (ck.KafkaError.MSG_SIZE_TOO_LARGE, ck.KafkaError.INVALID_MSG_SIZE)
    return Failure(error.str()[:300], error.code() in too_large)


def _said(error: Exception) -> str:
    given = error.args[0] if error.args else error
    return str(given.str() if isinstance(given, ck.KafkaError) else given)[:300]
