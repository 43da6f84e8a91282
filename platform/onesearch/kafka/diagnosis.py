"""Why a cluster cannot be reached, where the clients only say that it does not answer."""

from __future__ import annotations

import socket
import ssl

from onesearch.config import KafkaConfig

_PATIENCE_S = 2.0


def unreachable(settings: KafkaConfig, said: str) -> str:
    """What a client said, for people: with the reason, where asking at the door ourselves tells one."""
    doubt = _doubt(settings)
    return f"Kafka: {said}" + (f": {doubt}" if doubt else "")


def _doubt(settings: KafkaConfig) -> str:
    """What is wrong with how we come in; empty where nothing can be told."""
    address = settings.servers.split(",")[0].strip()
    host, _, port = address.rpartition(":")
    try:
        door = socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S)
    except ValueError:
        return f"{address!r} is no HOST:PORT"
    except OSError as error:
        return f"{address} is not there ({error.strerror or error})"
    with door:
        if "SSL" not in settings.security:
            if _speaks_tls(door, host):
                return f"{address} speaks TLS, and [kafka] security = {settings.security!r} does not"
        else:
            trouble = _untrusted(door, host, settings)
            if trouble:
                return f"{address}: {trouble}"
    if settings.security.startswith("SASL"):
        return (
            f"{address} answers, and lets nobody in: it may not know [kafka] sasl_username = "
            f"{settings.sasl_username!r} with the password of ONESEARCH_KAFKA_PASSWORD, or not by "
            f"sasl_mechanism = {settings.sasl_mechanism!r}"
        )
    return ""


def _speaks_tls(door: socket.socket, host: str) -> bool:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with anybody.wrap_socket(door, server_hostname=host):
            return True
    except OSError:
        return False


def _untrusted(door: socket.socket, host: str, settings: KafkaConfig) -> str:
    """Why TLS does not come about; empty where it does."""
    try:
        trusted = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.cert_file:
            trusted.load_cert_chain(settings.cert_file, settings.key_file or None)
    except OSError as error:
        return f"the certificates of [kafka] ca_file, cert_file or key_file cannot be read ({error})"
    try:
        with trusted.wrap_socket(door, server_hostname=host):
            return ""
    except ssl.SSLCertVerificationError as error:
        whom = settings.ca_file or "this machine's certificates"
        return f"its certificate is not to be trusted by [kafka] ca_file ({whom}): {error.verify_message}"
    except ssl.SSLError as error:
        return f"it does not speak TLS as [kafka] security = {settings.security!r} wants ({error.reason})"
    except OSError as error:
        return f"it does not speak TLS, and [kafka] security = {settings.security!r} does ({error})"
