"""Both clients against a real broker: the same tests."""

from __future__ import annotations

import time

import pytest
from onesearch.config import KafkaConfig
from onesearch.errors import UsageError
from onesearch.kafka.contract import (
    Bounds,
    Client,
    Consumer,
    KafkaError,
    NewTopic,
    Partition,
    Record,
    TruncatedError,
)
from onesearch.kafka.opening import connect

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["kafka-python", "confluent"])
def client(request: pytest.FixtureRequest, kafka: KafkaConfig) -> Client:
    return connect(kafka.model_copy(update={"client": request.param}))


@pytest.fixture
def topic(client: Client) -> str:
    return client.settings.interactions


def read(consumer: Consumer, count: int, patience_s: float = 20.0) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    until = time.monotonic() + patience_s
    while len(found) < count and time.monotonic() < until:
        for partition, fetched in consumer.poll(0.2, 1000).items():
            assert len(fetched) == len(fetched.values) == len(fetched.keys) == len(fetched.times)
            found += [
                (partition.number, offset, value)
                for offset, value in zip(fetched.offsets, fetched.values, strict=True)
            ]
    return found


def test_what_is_sent_is_read_in_order(client: Client, topic: str) -> None:
    records = [
        Record(topic, b"k%d" % (at % 5), b"%d" % at, [("h", b"x")] if at == 7 else ()) for at in range(200)
    ]
    partitions = [Partition(topic, 0), Partition(topic, 1)]
    with client.producer() as producer, client.consumer() as consumer:
        assert producer.deliver(records, 5) == [None] * 200
        assert producer.deliver([], 5) == []
        bounds = consumer.bounds(partitions)
        assert sum(one.end - one.first for one in bounds.values()) == 200
        consumer.assign(dict.fromkeys(partitions, 0))
        found = read(consumer, 200)
        assert sorted(int(value) for _, _, value in found) == list(range(200))
        for key in range(5):
            numbers = [int(value) for _, _, value in found if int(value) % 5 == key]
            assert numbers == sorted(numbers)
        consumer.seek(Partition(topic, 77), 5)  # not ours
        # Again from the middle of one of them.
        busy = max(partitions, key=lambda one: bounds[one].end)
        consumer.seek(busy, bounds[busy].end - 3)
        assert [offset for _, offset, _ in read(consumer, 3)] == [bounds[busy].end - at for at in (3, 2, 1)]
        consumer.pause(True)
        producer.deliver([Record(topic, b"k1", b"late")], 5)
        assert read(consumer, 1, 0.5) == []
        consumer.pause(False)
        assert [value for _, _, value in read(consumer, 1)] == [b"late"]


def test_headers_and_empty_keys_come_through(client: Client, topic: str) -> None:
    with client.producer() as producer, client.consumer() as consumer:
        producer.deliver([Record(topic, None, b"v", [("a", b"1"), ("b", b"\xff")])], 5)
        consumer.assign({Partition(topic, 0): 0, Partition(topic, 1): 0})
        until = time.monotonic() + 10
        while not (found := list(consumer.poll(0.2, 10).values())) and time.monotonic() < until:
            pass
        assert list(found[0].headers[0]) == [("a", b"1"), ("b", b"\xff")] and found[0].keys == [None]


def test_a_group_shares_partitions_and_remembers_what_was_committed(client: Client, topic: str) -> None:
    seen: dict[str, list[Partition]] = {"one": [], "two": []}

    def joined(name: str) -> Consumer:
        consumer = client.consumer(f"group-{topic}")

        def assigned(partitions: list[Partition]) -> None:
            known = consumer.committed(partitions)
            seen[name] += partitions
            for partition in partitions:
                consumer.seek(partition, known.get(partition, 0))

        def revoked(partitions: list[Partition]) -> None:
            seen[name] = [one for one in seen[name] if one not in partitions]

        consumer.subscribe([topic], assigned, revoked)
        return consumer

    with client.producer() as producer, joined("one") as one:
        producer.deliver([Record(topic, b"k%d" % at, b"%d" % at) for at in range(20)], 5)
        found = read(one, 20)
        assert len(found) == 20 and len(seen["one"]) == 2
        one.commit({Partition(topic, 0): 1})
        assert one.committed([Partition(topic, 0), Partition(topic, 1)]) == {Partition(topic, 0): 1}
        with joined("two") as two:
            until = time.monotonic() + 20
            while not (len(seen["one"]) == len(seen["two"]) == 1) and time.monotonic() < until:
                one.poll(0.1, 10)
                two.poll(0.1, 10)
            assert sorted(one.number for one in seen["one"] + seen["two"]) == [0, 1]


def test_an_offset_that_is_not_there_is_told(client: Client, topic: str) -> None:
    with client.producer() as producer, client.consumer() as consumer:
        producer.deliver([Record(topic, b"k", b"v")], 5)
        consumer.assign({Partition(topic, 0): 99, Partition(topic, 1): 99})
        with pytest.raises(TruncatedError):
            read(consumer, 1, 10)


def test_topics_are_made_told_and_made_anew(client: Client, topic: str) -> None:
    name = f"{topic}-anew"
    with client.admin() as admin:
        assert admin.topics([name]) == {}
        assert admin.create([NewTopic(name, 3, 1, {"retention.ms": "3600000"}), NewTopic(topic)]) == [name]
        first = _when_there(admin, name)
        assert first[1] == 3 and len(first[0]) == 32
        admin.delete([name])
        while name in admin.topics([name]):
            time.sleep(0.05)
        admin.create([NewTopic(name, 1)])
        second = _when_there(admin, name)
        assert second[1] == 1 and second[0] != first[0]
        with pytest.raises(KafkaError):
            admin.delete([f"{name}-nothing"])


def _when_there(admin: object, name: str) -> tuple[str, int]:
    until = time.monotonic() + 10
    while name not in (found := admin.topics([name])) and time.monotonic() < until:  # type: ignore[attr-defined]
        time.sleep(0.05)
    return found[name]  # type: ignore[no-any-return]


def test_what_is_too_large_lasts_and_what_has_no_topic_does_not(client: Client, topic: str) -> None:
    with client.producer() as producer, client.consumer() as consumer:
        large, fine = producer.deliver([Record(topic, b"k", b"x" * 3_000_000), Record(topic, b"k", b"v")], 2)
        assert large is not None and large.lasting and fine is None
        assert (
            sum(one.end for one in consumer.bounds([Partition(topic, 0), Partition(topic, 1)]).values()) == 1
        )
        (lost,) = producer.deliver([Record("no-such-topic", b"k", b"v")], 1.5)
        assert lost is not None and not lost.lasting and lost.reason
        assert producer.deliver([Record(topic, b"k", b"v")], 5) == [None]


def test_nobody_answers(client: Client) -> None:
    nowhere = connect(client.settings.model_copy(update={"servers": "127.0.0.1:9"}))
    with nowhere.producer() as producer:
        started = time.monotonic()
        failures = producer.deliver([Record("t", b"k", b"v")] * 3, 1.0)
        assert all(failure is not None and not failure.lasting for failure in failures)
        assert time.monotonic() - started < 4


def test_no_servers_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="ONESEARCH_KAFKA"):
        connect(KafkaConfig())
    assert Bounds(1, 3).end == 3
