"""Against a real broker that is stopped and started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from onesearch.config import KafkaConfig
from onesearch.errors import ServingError
from onesearch.events.publisher import Publisher
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Partition, Record
from onesearch.kafka.opening import connect

pytestmark = pytest.mark.e2e


def records(topic: str, start: int, count: int) -> list[Record]:
    return [Record(topic, b"shopper", b"%d" % at) for at in range(start, start + count)]


def everything(settings: KafkaConfig, count: int) -> list[int]:
    """What is in the partition where the shopper's messages go."""
    with connect(settings).consumer() as consumer:
        consumer.assign({Partition(settings.interactions, at): 0 for at in (0, 1)})
        found: list[int] = []
        until = time.monotonic() + 20
        while len(found) < count and time.monotonic() < until:
            for fetched in consumer.poll(0.2, 10_000).values():
                found += [int(value) for value in fetched.values]
        return found


def until(true: Any, patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_nothing_acknowledged_or_spooled_is_lost_while_kafka_is_away(
    broker: Any, kafka: KafkaConfig, tmp_path: Path
) -> None:
    settings = kafka.model_copy(update={"delivery_timeout_s": 1.0})
    topic = settings.interactions
    publisher = Publisher(connect(settings), Spool(tmp_path / "spool", 10**6), retry_s=0.2)
    assert publisher.deliver(records(topic, 0, 50)).result(10) == "acknowledged"
    assert publisher.deliver([]).result(1) == "acknowledged"
    broker.stop()
    try:
        started = time.monotonic()
        future = publisher.deliver(records(topic, 50, 50))
        assert publisher.offer(records(topic, 100, 50))
        assert time.monotonic() - started < 0.1
        assert future.result(10) == "spooled"
        until(lambda: publisher.tally.spooled == 100)
        assert publisher.tally.down and publisher.tally.spool_bytes > 0
        # A gateway that ends meanwhile leaves the spool to the next one.
        publisher.close()
        publisher = Publisher(connect(settings), Spool(tmp_path / "spool", 10**6), retry_s=0.2)
        assert publisher.deliver(records(topic, 150, 50)).result(10) == "spooled"
    finally:
        broker.start(port=0)
    until(lambda: publisher.tally.spool_bytes == 0 and not publisher.tally.down)
    assert publisher.deliver(records(topic, 200, 50)).result(10) == "acknowledged"
    publisher.close()
    assert publisher.offer(records(topic, 0, 1)) is False
    # In order; what was given up on but had arrived after all may be there twice.
    found = everything(settings, 250)
    assert list(dict.fromkeys(found)) == list(range(250))


def test_what_fits_nowhere_is_counted_and_told(tmp_path: Path) -> None:
    nowhere = KafkaConfig(servers="127.0.0.1:9", delivery_timeout_s=0.3)
    publisher = Publisher(connect(nowhere), Spool(tmp_path / "spool", 1_500), queue_limit=100, retry_s=0.2)
    assert publisher.offer(records("t", 0, 101)) is False and publisher.tally.dropped == 101
    future = publisher.deliver(records("t", 0, 100))
    with pytest.raises(ServingError, match="spool is full"):
        future.result(10)
    tally = publisher.tally
    assert tally.spooled + tally.dropped == 201 and 0 < tally.spooled < 100
    publisher.close()
    without = Publisher(connect(nowhere), None, retry_s=0.2)
    with pytest.raises(ServingError, match="no spool"):
        without.deliver(records("t", 0, 1)).result(10)
    without.close()


def test_a_message_that_kafka_will_never_take_does_not_stop_the_others(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    publisher = Publisher(connect(kafka), Spool(tmp_path / "spool", 10**8), retry_s=0.2)
    large = publisher.deliver([Record(kafka.interactions, b"shopper", b"1" * 3_000_000)])
    fine = publisher.deliver(records(kafka.interactions, 0, 5))
    with pytest.raises(ServingError):
        large.result(20)
    assert fine.result(20) in ("acknowledged", "spooled")
    until(lambda: publisher.tally.spool_bytes == 0)
    assert publisher.tally.dropped == 1
    publisher.close()
    assert list(dict.fromkeys(everything(kafka, 5))) == list(range(5))
