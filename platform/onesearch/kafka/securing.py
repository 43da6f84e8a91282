"""A door of the local broker with TLS and passwords, to try what a secured cluster asks for.

The certificate is made here, by the JRE's ``keytool``, for this machine alone; clients trust it by its file.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from onesearch.errors import OneSearchError, UsageError

LISTENER = "SECURED"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
CA_FILE = "ca.pem"
_KEYSTORE, _SECRET = "broker.p12", "broker.secret"
_DAYS = 3650
_PASSWORD = re.compile(r"[A-Za-z0-9._~+/=-]{8,128}")


@dataclass(frozen=True)
class Secured:
    """How the secured door is opened.

    Attributes:
        port: where it listens; 0: a free one.
        user, password: who may come in; the password has 8 characters or more of those that need no quoting.
    """

    port: int
    user: str = "onesearch"
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError where user or password do not fit."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.user):
            raise UsageError(f"user {self.user!r}: letters, digits, '.', '_' and '-', please")
        if not _PASSWORD.fullmatch(self.password):
            raise UsageError(
                "the broker's password has 8 to 128 letters, digits and characters of ._~+/=- and stands in "
                "ONESEARCH_KAFKA_PASSWORD"
            )


def certificate(folder: Path, host: str) -> tuple[Path, str]:
    """A key and a certificate for a host, made the first time; the file with both, and its password.

    ``ca.pem`` beside it is what clients trust. Raises OneSearchError where it cannot be made.
    """
    store, secret, trusted = folder / _KEYSTORE, folder / _SECRET, folder / CA_FILE
    if not trusted.exists():
        tool = shutil.which("keytool")
        if tool is None:
            raise OneSearchError("a certificate needs keytool, which comes with Java: install a JRE")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        store.unlink(missing_ok=True)
        secret.write_text(secrets.token_hex(16), encoding="utf-8")
        given = ["-keystore", str(store), "-storepass:file", str(secret), "-alias", "broker"]
        made = ["-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", "-validity", str(_DAYS)]
        made += [
            "-dname",
            "CN=OneSearch's local broker",
            "-ext",
            f"san=ip:{host},dns:localhost",
            "-ext",
            "bc:c",
        ]
        draft = trusted.with_suffix(".draft")
        for command in ([*made, *given], ["-exportcert", "-rfc", "-file", str(draft), *given]):
            done = subprocess.run([tool, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stdout + done.stderr).strip()[-300:]
                raise OneSearchError(f"{folder}: the broker's certificate cannot be made: {said}")
        draft.replace(trusted)
    return store, secret.read_text(encoding="utf-8")


def properties(secured: Secured, store: Path, store_password: str) -> str:
    """Lines of the broker's settings for this door."""
    own = f"listener.name.{LISTENER.lower()}"
    modules = "org.apache.kafka.common.security"
    return "\n".join(
        [
            "",
            "# The door with TLS and passwords.",
            f"{own}.sasl.enabled.mechanisms={','.join(MECHANISMS)}",
            f"{own}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required "
            f'user_{secured.user}="{secured.password}";',
            *(
                f"{own}.{name.lower()}.sasl.jaas.config={modules}.scram.ScramLoginModule required;"
                for name in MECHANISMS[1:]
            ),
            f"{own}.ssl.keystore.type=PKCS12",
            f"{own}.ssl.keystore.location={store}",
            f"{own}.ssl.keystore.password={store_password}",
            "",
        ]
    )


def admit(servers: str, secured: Secured) -> None:
    """Tell a broker that runs the user's password, for SCRAM; asked by the door without passwords.

    Raises OneSearchError where it refuses.
    """
    # Here, not above: "onesearch broker stop" does not wait for a client library to be loaded.
    import kafka.admin
    from kafka import errors

    admin = None
    try:
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=[servers], client_id="onesearch")
        for mechanism in MECHANISMS[1:]:  # a user's credentials cannot be told twice in one request
            told = kafka.admin.UserScramCredentialUpsertion(secured.user, mechanism, secured.password)
            [complaint] = admin.alter_user_scram_credentials([told]).values()
            if complaint:
                raise OneSearchError(f"Kafka does not take the user's password: {complaint}")
    except errors.KafkaError as error:
        raise OneSearchError(f"Kafka does not take the user's password: {error}") from error
    finally:
        if admin is not None:
            admin.close()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    draft.replace(path)
