"""Both clients at a door with TLS and passwords, made by ``onesearch broker``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from onesearch.config import KafkaConfig
from onesearch.errors import ConfigError, UsageError
from onesearch.kafka import with_confluent, with_kafka_python
from onesearch.kafka.contract import KafkaError, Partition, Record
from onesearch.kafka.opening import connect
from onesearch.kafka.password import PASSWORD_VARIABLE
from onesearch.kafka.securing import Secured

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["kafka-python", "confluent"])
def secured(
    request: pytest.FixtureRequest, broker: Any, kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> KafkaConfig:
    """Settings for the secured door, that are right."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "correct-horse-battery")
    for module in (with_kafka_python, with_confluent):
        monkeypatch.setattr(module, "_CONNECT_S", 1.0)
    door = {"servers": broker.secured, "security": "SASL_SSL", "ca_file": str(broker.ca_file)}
    return kafka.model_copy(update={"client": request.param, "sasl_username": "onesearch", **door})


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_what_is_sent_through_the_door_is_read_through_it(secured: KafkaConfig, mechanism: str) -> None:
    client = connect(secured.model_copy(update={"sasl_mechanism": mechanism}))
    topic = client.settings.interactions
    with client.producer() as producer, client.consumer("group-secured") as consumer:
        assert producer.deliver([Record(topic, b"k", b"%d" % at) for at in range(20)], 10) == [None] * 20
        consumer.assign({Partition(topic, 0): 0, Partition(topic, 1): 0})
        found: list[bytes] = []
        until = time.monotonic() + 20
        while len(found) < 20 and time.monotonic() < until:
            found += [value for one in consumer.poll(0.2, 100).values() for value in one.values]
        assert sorted(map(int, found)) == list(range(20))


def test_who_is_not_let_in_is_told_why(secured: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KafkaError, match=r"ca_file .* certificate"):
        connect(secured.model_copy(update={"ca_file": ""})).admin()
    with pytest.raises(KafkaError, match="speaks TLS, and"):
        connect(secured.model_copy(update={"security": "PLAINTEXT"})).consumer()
    with pytest.raises(ConfigError, match=r"ca_file = '/nowhere\.pem': there is no such file"):
        connect(secured.model_copy(update={"ca_file": "/nowhere.pem"}))
    monkeypatch.setenv(PASSWORD_VARIABLE, "another-horse")
    with connect(secured).producer() as producer:
        (failure,) = producer.deliver([Record(secured.interactions, b"k", b"v")], 1.0)
    assert failure is not None and "ONESEARCH_KAFKA_PASSWORD" in failure.reason and not failure.lasting


def test_the_door_is_private(broker: Any, tmp_path: Path) -> None:
    assert (broker.folder / "server.properties").stat().st_mode & 0o077 == 0
    assert (broker.folder / "tls").stat().st_mode & 0o077 == 0
    assert broker.secured.startswith("127.0.0.1:") and broker.status().ca_file == str(broker.ca_file)
    for user, password in (("onesearch", ""), ("onesearch", 'quo"te-quote'), ("a b", "correct-horse")):
        with pytest.raises(UsageError):
            Secured(0, user, password)
