"""What tests of several rooms share: a real Kafka broker, a stand-in for a GPU, patience on busy machines."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from onesearch.config import KafkaConfig
from onesearch.errors import OneSearchError
from onesearch.kafka.broker import Broker, create_topics, get_libraries
from onesearch.kafka.opening import connect
from onesearch.kafka.securing import Secured

# On a machine that others use, a test is slow for reasons that are not its own.
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")


@pytest.fixture
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What stands in for a GPU with TensorRT (tests/fake_gpu.py)."""
    spec = importlib.util.spec_from_file_location("fake_gpu", Path(__file__).with_name("fake_gpu.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.getbasetemp() / "fake-gpu"
    folder.mkdir(exist_ok=True)
    return module.FakeGpu(folder, [compiler])


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker on free ports. A test that stops it starts it again."""
    try:
        get_libraries()
    except OneSearchError as error:
        pytest.skip(str(error))
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start(port=0, secured=Secured(0, password="correct-horse-battery"))
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
def kafka(broker: Broker) -> KafkaConfig:
    """Settings with three new topics of this test alone."""
    return new_topics(broker)


@pytest.fixture(scope="session")
def more_topics(broker: Broker) -> Callable[[], KafkaConfig]:
    """Makes further sets of topics."""
    return lambda: new_topics(broker)


def new_topics(broker: Broker, partitions: int = 2) -> KafkaConfig:
    mark = uuid.uuid4().hex[:8]
    settings = KafkaConfig(
        servers=broker.servers,
        interactions=f"interactions-{mark}",
        catalogue=f"catalogue-{mark}",
        dead_letters=f"letters-{mark}",
        delivery_timeout_s=3.0,
    )
    with connect(settings).admin() as admin:
        create_topics(admin, settings, partitions=partitions)
    return settings
