"""The client that the configuration names."""

from __future__ import annotations

import os
from pathlib import Path

from onesearch.config import KafkaConfig, load_config
from onesearch.errors import ConfigError, UsageError
from onesearch.kafka.contract import Client

SERVERS_VARIABLE = "ONESEARCH_KAFKA"
"""Names the bootstrap servers where neither option nor configuration does."""


def settings(servers: str | None = None, config: Path | None = None) -> KafkaConfig:
    """The table ``[kafka]`` of a configuration, with its servers replaced where others are named."""
    found = load_config(config).kafka
    servers = servers or found.servers or os.environ.get(SERVERS_VARIABLE, "")
    return found.model_copy(update={"servers": servers})


def connect(settings: KafkaConfig) -> Client:
    """The client for a cluster; connections are made when they are needed.

    Raises UsageError where no servers are named or the client is not installed, ConfigError where a
    certificate's file is not there.
    """
    if not settings.servers:
        raise UsageError(f"no Kafka is named: give --kafka HOST:PORT, [kafka] servers, or {SERVERS_VARIABLE}")
    for name in ("ca_file", "cert_file", "key_file"):
        file = getattr(settings, name)
        if file and not Path(file).is_file():
            raise ConfigError(f"[kafka] {name} = {file!r}: there is no such file")
    if settings.client == "confluent":
        try:
            from onesearch.kafka.with_confluent import ConfluentClient
        except ModuleNotFoundError as error:
            raise UsageError(
                f"[kafka] client = \"confluent\" needs {error.name}: pip install 'onesearch[confluent]'"
            ) from error
        return ConfluentClient(settings)
    from onesearch.kafka.with_kafka_python import KafkaPythonClient

    return KafkaPythonClient(settings)
