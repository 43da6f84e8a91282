"""Where the SASL password comes from."""

from __future__ import annotations

import os

from onesearch.config import KafkaConfig
from onesearch.errors import ConfigError

PASSWORD_VARIABLE = "ONESEARCH_KAFKA_PASSWORD"
"""Holds the SASL password, which stands in no file and on no command line."""


def password(settings: KafkaConfig) -> str:
    """The SASL password. Raises ConfigError where there is none."""
    found = os.environ.get(PASSWORD_VARIABLE, "")
    if not found:
        raise ConfigError(
            f"[kafka] security = {settings.security!r} needs a password: set {PASSWORD_VARIABLE}"
        )
    return found
