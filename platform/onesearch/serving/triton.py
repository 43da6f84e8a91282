"""The embedded Triton server: one child process, with explicit control of the models it has loaded."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from onesearch.errors import ServingError, UsageError
from onesearch.serving.environment import ServingEnvironment

SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "onesearch-serve"
_OWNER = re.compile(rf"{_PREFIX}-(\d+)-")
_EXIT_S = 3  # where the kernel stops it because we are gone
_TROUBLES = ("E", "Signal (", "terminate called")
_CHANNEL = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
"""What a model says when it fails to load may be long."""


@dataclass(frozen=True)
class TritonSettings:
    """How the server runs.

    Attributes:
        host: the address to listen on.
        grpc_port, http_port, metrics_port: 0 is a free one.
        threads: that libraries inside a model may use.
        ready_timeout_s: time for starting and for loading models, each.
        log: where the server's log goes; None: a file that goes with the server.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    threads: int = 2
    ready_timeout_s: float = 60.0
    log: Path | None = None


class TritonServer:
    """Starts in :meth:`start`, stops in :meth:`stop`; also a context manager.

    The kernel stops the server when the thread that started it ends, even by a kill: start it from a thread
    that lives as long. Its folder holds ``repository/``, which the caller fills.
    """

    def __init__(self, environment: ServingEnvironment, settings: TritonSettings | None = None) -> None:
        self.environment = environment
        self.settings = settings or TritonSettings()
        sweep()
        self.prefix = f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(4)}-"
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.repository = self.folder / "repository"
        self.repository.mkdir()
        self.log = self.settings.log or self.folder / "triton.log"
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC service."""
        return f"{self.settings.host}:{self.ports['grpc']}"

    @property
    def http_address(self) -> str:
        """``host:port`` of its HTTP service."""
        return f"{self.settings.host}:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        """Where its Prometheus metrics are."""
        return f"http://{self.settings.host}:{self.ports['metrics']}/metrics"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Number of the server's process; None before the start."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start and wait until it answers. Raises ServingError saying why it does not."""
        if self.alive:
            raise ServingError("Triton runs already")
        # Of one that was killed models' processes may be left: waiting for its answer, they wait for ever.
        self.stop()
        try:
            self.ports = self.ports or self._choose_ports()
            backends = self._lay_out_backend()
            launcher = Path(__file__).with_name("_launch.py")
            command = [str(self.environment.python), str(launcher), str(os.getpid())]
            command += self._arguments(backends)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._variables(),
                    start_new_session=True,  # an interrupt at the terminal is ours to pass on
                )
            self._wait_ready()
        except OSError as error:
            self.stop()
            raise ServingError(f"Triton cannot be started: {error}") from error
        except BaseException:
            self.stop()
            raise

    def load(self, models: Sequence[str], at_once: bool = True) -> None:
        """Load models, then the last one, which is made of them.

        Args:
            models: their names.
            at_once: all but the last side by side; else one after the other, which leaves more of the machine
                to those that are answering.

        Raises:
            ServingError: with the model's own reason.
        """
        *parts, whole = models
        with self._channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with ThreadPoolExecutor(max(1, len(parts)) if at_once else 1) as pool:
                list(pool.map(lambda name: self._load(stub, name), parts))
            self._load(stub, whole)

    def unload(self, models: Sequence[str]) -> None:
        """Unload models, the last one first. What it was made of goes with it."""
        with self._channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for name in reversed(models):
                request = service_pb2.RepositoryModelUnloadRequest(model_name=name)
                request.parameters["unload_dependents"].bool_param = True
                try:
                    stub.RepositoryModelUnload(request, timeout=self.settings.ready_timeout_s)
                except grpc.RpcError as error:
                    raise ServingError(f"model '{name}' cannot be unloaded: {error.details()}") from error

    def stop(self) -> None:
        """End the server and its models' processes, and remove their shared memory. Safe to call twice."""
        process = self._process
        if process is not None:
            # It holds nothing that could be lost, and would take seconds to end by itself. The models'
            # processes are of the same group: none of them outlives the server.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._process = None  # its number may soon be somebody else's
        for region in SHARED_MEMORY.glob(f"{self.prefix}*"):
            region.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop, and remove the server's folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> TritonServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _choose_ports(self) -> dict[str, int]:
        """Free ports where none are given. Raises UsageError naming a given one that is taken."""
        settings = self.settings
        wanted = {
            "grpc": settings.grpc_port,
            "http": settings.http_port,
            "metrics": settings.metrics_port,
        }
        chosen = {}
        with ExitStack() as held:  # all at once, so that no two get the same
            for name, port in wanted.items():
                chosen[name] = held.enter_context(reserve(settings.host, port, f"Triton's {name} port"))
        return chosen

    def _lay_out_backend(self) -> Path:
        """A backends folder with the stub for our Python; the installed package stays as it is."""
        folder = self.folder / "backends"
        if not folder.exists():
            python = folder / "python"
            shutil.copytree(self.environment.triton / "backends" / "python", python)
            shutil.copy2(self.environment.stub, python / self.environment.stub.name)
        return folder

    def _arguments(self, backends: Path) -> list[str]:
        host, ports = self.settings.host, self.ports
        return [
            str(self.environment.binary),
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.prefix}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            f"--grpc-address={host}",
            f"--grpc-port={ports['grpc']}",
            f"--http-address={host}",
            f"--http-port={ports['http']}",
            f"--metrics-address={host}",
            f"--metrics-port={ports['metrics']}",
            f"--exit-timeout-secs={_EXIT_S}",
            "--allow-gpu-metrics=false",
            "--log-verbose=0",
        ]

    def _variables(self) -> dict[str, str]:
        environment, threads = self.environment, str(max(1, self.settings.threads))
        ours = os.environ
        return {
            **ours,
            # The stub takes the Python that it finds first, and that Python's packages with it.
            "PATH": f"{environment.python.parent}{os.pathsep}{ours.get('PATH', '')}",
            "LD_LIBRARY_PATH": f"{environment.libraries}{os.pathsep}{ours.get('LD_LIBRARY_PATH', '')}",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _wait_ready(self) -> None:
        until = time.monotonic() + self.settings.ready_timeout_s
        with self._channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while time.monotonic() < until:
                if not self.alive:
                    raise ServingError(f"Triton ended while it was starting: {self.complaint()}")
                with suppress(grpc.RpcError):
                    if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1).ready:
                        return
                time.sleep(0.05)
        raise ServingError(
            f"Triton was not ready within {self.settings.ready_timeout_s:g} s: {self.complaint()}"
        )

    def _load(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, name: str) -> None:
        request = service_pb2.RepositoryModelLoadRequest(model_name=name)
        try:
            stub.RepositoryModelLoad(request, timeout=self.settings.ready_timeout_s)
        except grpc.RpcError as error:
            why = error.details() if self.alive else f"Triton ended: {self.complaint()}"
            raise ServingError(f"model '{name}' cannot be loaded: {reason(why or '')}") from error

    def complaint(self) -> str:
        """The last errors in the server's log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            return f"its log cannot be read ({error})"
        # Its own errors start with E, those of the loader or the shell with anything; a crash is neither.
        errors = [line for line in lines if line.startswith(_TROUBLES) or "error" in line.lower()]
        return "\n".join(errors[-5:] or lines[-5:]) or "its log is empty"

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, _CHANNEL)


def reason(details: str) -> str:
    """What a model's Python said, without the way there."""
    details = details.split("\n\nAt:")[0].split(", failed to poll")[0].strip()
    return re.sub(
        r"^(load failed for model '[^']*': )?(version \d+ is at UNAVAILABLE state: )?"
        r"(Internal: )?(ServingError: )?",
        "",
        details,
    )


@contextmanager
def reserve(host: str, port: int, what: str = "port") -> Iterator[int]:
    """Hold a port, the given one or (0) a free one. Raises UsageError where it is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
            yield int(held.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{what} {port} of {host} is in use; name another, or 0 for a free one"
            ) from error
        raise UsageError(f"{what}: cannot listen on {host}:{port} ({error.strerror or error})") from error


def sweep() -> None:
    """Remove what servers left behind whose owner was killed: shared memory and folders."""
    for folder in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        for left in folder.glob(f"{_PREFIX}-*"):
            owner = _OWNER.match(left.name)
            if owner and not Path(f"/proc/{owner[1]}").exists():
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
