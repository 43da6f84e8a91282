"""A broker for this machine: Apache Kafka in KRaft mode, one node, on the loopback interface only."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

from onesearch.config import KafkaConfig
from onesearch.errors import OneSearchError, UsageError
from onesearch.kafka.contract import Admin, KafkaError, NewTopic
from onesearch.kafka.opening import connect
from onesearch.kafka.securing import (
    CA_FILE,
    LISTENER,
    Secured,
    admit,
    certificate,
    properties,
    write_private,
)

LIBRARIES_VARIABLE = "ONESEARCH_KAFKA_LIBRARIES"
"""Names a folder with Kafka's jars, where Maven cannot get them."""
HOST = "127.0.0.1"
HEAP_MB = 384
STARTING_S = 60.0
STOPPING_S = 20.0
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class BrokerStatus:
    """How a broker is.

    Attributes:
        servers: what to give as ``--kafka``; empty where it was never started.
        pid: its process; None where it does not run.
        answers: whether it does.
        secured: where it asks for TLS and a password; empty: nowhere. ca_file: what clients trust then.
    """

    servers: str
    pid: int | None
    answers: bool
    secured: str = ""
    ca_file: str = ""


class Broker:
    """One broker, all of whose things are in one folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        self._pid_file = self.folder / "broker.pid"
        self._settings = self.folder / "server.properties"
        self._data = self.folder / "data"
        self._log = self.folder / "broker.log"
        self._tls = self.folder / "tls"

    @property
    def servers(self) -> str:
        """What to give as ``--kafka``; empty where the broker was never started."""
        return self._door("PLAINTEXT")

    @property
    def secured(self) -> str:
        """Where it asks for TLS and a password; empty: nowhere."""
        return self._door(LISTENER)

    @property
    def ca_file(self) -> Path:
        """What clients of the secured door trust."""
        return self._tls / CA_FILE

    def _door(self, name: str) -> str:
        try:
            text = self._settings.read_text(encoding="utf-8")
        except OSError:
            return ""
        found = re.search(rf"^advertised\.listeners=.*\b{name}://([^,\n]+)", text, re.MULTILINE)
        return found[1] if found else ""

    def start(self, port: int = 9092, secured: Secured | None = None) -> str:
        """Start it, with what it held before, and wait until it answers; one that runs is left alone.

        Args:
            port: where it listens; 0 takes a free one. The folder remembers.
            secured: a second door, with TLS and passwords. The folder remembers this as well.

        Returns what to give as ``--kafka``. Raises OneSearchError where it does not come up, UsageError where
        a broker that runs has no secured door and one is asked for.
        """
        if self.pid is not None:
            if secured is not None and not self.secured:
                raise UsageError(f"{self.folder}: the broker runs without a secured door; stop it first")
            self._await()
            return self.servers
        java = shutil.which("java")
        if java is None:
            raise OneSearchError("Kafka needs Java: install a JRE, 17 or newer (e.g. default-jre-headless)")
        libraries = get_libraries()
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = not (self._data / "meta.properties").exists()
        moved = port and not self.servers.endswith(f":{port}")
        if fresh or not self.servers or moved or secured is not None:
            self._configure(port, secured)
        classpath = f"{libraries}/*"
        if fresh:
            # A format that was interrupted leaves files that the next one stumbles over.
            shutil.rmtree(self._data, ignore_errors=True)
            identity = (
                base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
            )
            command = [java, "-cp", classpath, "kafka.tools.StorageTool", "format"]
            command += ["--cluster-id", identity, "--config", str(self._settings)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OneSearchError(
                    f"Kafka's folder cannot be made ready: {_last(done.stdout + done.stderr)}"
                )
        command = [java, f"-Xmx{HEAP_MB}m", f"-Xms{HEAP_MB // 4}m", "-XX:+UseSerialGC"]
        # Compiled once, lightly: it is up in half the time, and has few cores.
        command += [
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            classpath,
        ]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "kafka.Kafka", str(self._settings)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._pid_file.write_text(f"{process.pid} {_birth(process.pid)}", encoding="utf-8")
        self._await(process)
        if secured is not None:
            admit(self.servers, secured)
        return self.servers

    def stop(self, how: int = signal.SIGTERM) -> bool:
        """Stop it; whether there was anything to stop. What it holds stays."""
        pid = self.pid
        if pid is None:
            self._pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, how)
        until = time.monotonic() + STOPPING_S
        while self.pid is not None:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                until = time.monotonic() + STOPPING_S
            time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)
        return True

    @property
    def pid(self) -> int | None:
        """Its process; None where it does not run."""
        try:
            number, birth = self._pid_file.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return None
        # A child that was killed stays as a zombie until somebody asks for it.
        with suppress(ChildProcessError):
            os.waitpid(int(number), os.WNOHANG)
        return int(number) if _birth(int(number)) == birth else None

    def status(self) -> BrokerStatus:
        """How it is."""
        answers = bool(self.servers) and _listens(self.servers)
        return BrokerStatus(
            self.servers, self.pid, answers, self.secured, str(self.ca_file) if self.secured else ""
        )

    def _configure(self, port: int, secured: Secured | None) -> None:
        known = self.servers
        port = port or (int(known.rpartition(":")[2]) if known else _free_port())
        door = f",{LISTENER}://{HOST}:{secured.port or _free_port()}" if secured else ""
        text = Template((_template_folder() / "server.properties").read_text(encoding="utf-8")).substitute(
            host=HOST, port=port, controller_port=_free_port(), data=self._data, secured=door
        )
        if secured is not None:
            text += properties(secured, *certificate(self._tls, HOST))
        write_private(self._settings, text)

    def _await(self, process: subprocess.Popen[bytes] | None = None) -> None:
        until = time.monotonic() + STARTING_S
        while time.monotonic() < until:
            if process is not None and process.poll() is not None:
                raise OneSearchError(f"Kafka ended with status {process.returncode}: {self._complaint()}")
            if _listens(self.servers):
                try:
                    with connect(KafkaConfig(servers=self.servers)).admin() as admin:
                        admin.topics(["-"])
                    return
                except KafkaError:
                    pass
            time.sleep(0.1)
        raise OneSearchError(f"Kafka does not answer after {STARTING_S:.0f} s: {self._complaint()}")

    def _complaint(self) -> str:
        return _last(self._log.read_text(encoding="utf-8", errors="replace")) if self._log.exists() else ""


def create_topics(admin: Admin, settings: KafkaConfig, partitions: int = 4, replicas: int = 1) -> list[str]:
    """The three topics, those that are not there yet; returns their names."""
    # The broker's clock, which no sender has set wrong.
    week = {"retention.ms": str(7 * _DAY_MS), "message.timestamp.type": "LogAppendTime"}
    return admin.create(
        [
            NewTopic(settings.interactions, partitions, replicas, week),
            NewTopic(
                settings.catalogue,
                1,
                replicas,
                {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
            ),
            # A letter holds a whole message, and the topics that it comes from may allow large ones.
            NewTopic(
                settings.dead_letters,
                1,
                replicas,
                {"retention.ms": str(30 * _DAY_MS), "max.message.bytes": str(32 * 1024 * 1024)},
            ),
        ]
    )


def get_libraries() -> Path:
    """The folder with Kafka's jars; Maven fetches them the first time. Raises OneSearchError."""
    named = os.environ.get(LIBRARIES_VARIABLE)
    if named:
        if not any(Path(named).glob("kafka_*.jar")):
            raise UsageError(f"{LIBRARIES_VARIABLE} names {named}, where no kafka_*.jar is")
        return Path(named)
    project = _template_folder() / "pom.xml"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onesearch"
    folder = cache / f"kafka-{_version(project)}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise OneSearchError(
            f"Kafka is fetched by Maven, which is missing: install maven, or name a folder with Kafka's jars "
            f"in {LIBRARIES_VARIABLE}"
        )
    draft = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    command = [maven, "--batch-mode", "--quiet", "--file", str(project), "dependency:copy-dependencies"]
    try:
        done = subprocess.run(
            [*command, f"-DoutputDirectory={draft}"], capture_output=True, text=True, check=False
        )
        if done.returncode or not any(draft.glob("kafka_*.jar")):
            raise OneSearchError(f"Kafka cannot be fetched: {_last(done.stdout + done.stderr)}")
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was quicker
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _template_folder() -> Path:
    package = Path(__file__).parents[1]
    for folder in (package / "_deploy_kafka", package.parents[1] / "deploy" / "kafka"):
        if (folder / "pom.xml").is_file():
            return folder
    raise OneSearchError("the folder deploy/kafka is not installed with this OneSearch")


def _version(project: Path) -> str:
    text = project.read_text(encoding="utf-8")
    return text.partition("<kafka.version>")[2].partition("</kafka.version>")[0]


def _birth(pid: int) -> str:
    """When a process was born, in clock ticks: tells it from a later one of the same number."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return "gone"
    return "gone" if fields[0] == "Z" else fields[19]


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        return int(chosen.getsockname()[1])


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex((host, int(port))) == 0


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:600]
