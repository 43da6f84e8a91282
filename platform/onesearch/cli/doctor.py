"""``onesearch doctor``: what this machine has, and what to install."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from onesearch._points import points
from onesearch.cli._output import out, print_json, table
from onesearch.errors import OneSearchError, ServingError
from onesearch.plugins import load_plugins
from onesearch.serving import environment

State = Literal["ok", "absent", "missing"]
_MARKS: dict[State, Text] = {
    "ok": Text("✓", style="green"),
    "absent": Text("–", style="yellow"),
    "missing": Text("✗", style="bold red"),
}
_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing looked for: ``missing`` where something needs it, ``absent`` where it is one's choice."""

    what: str
    state: State
    found: str
    advice: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """See what this machine has, and what to install. Exit status 1 where something needed is missing."""
    findings = [finding for look in _LOOKS for finding in look()]
    missing = [finding.what for finding in findings if finding.state == "missing"]
    if json:
        print_json({"ready": not missing, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [[_MARKS[finding.state], finding.what, finding.found, finding.advice] for finding in findings]
        out.print(table("This machine", ["", "what", "found", "what to do"], rows))
    if missing:
        raise OneSearchError(f"needed and missing: {', '.join(missing)}")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB
    yield Finding(
        "machine", "ok", f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GB"
    )
    for path, wanted, why in (
        (Path.cwd(), 5.0, "stores, training and releases"),
        (Path("/dev/shm"), 0.25, "Triton"),
    ):
        if path.is_dir():
            free = shutil.disk_usage(path).free / _GB
            advice = "" if free >= wanted else f"{why} want {wanted} GB"
            yield Finding(f"space in {path}", "missing" if advice else "ok", f"{free:.1f} GB free", advice)


def _installed() -> Iterator[Finding]:
    yield Finding("onesearch", "ok", f"{version('onesearch')}, Python {platform.python_version()}")
    plugins = load_plugins()
    for refusal in plugins.refused:
        yield Finding(
            f"plugin {refusal.name}", "missing", f"refused: {refusal.reason}", "onesearch plugins check"
        )
    if not plugins.refused:
        yield Finding("plugins", "ok", ", ".join(sorted({entry.plugin for entry in plugins.registered})))


def _told_by_plugins() -> Iterator[Finding]:
    """What plugins look for: functions of the entry points' group ``onesearch.doctor``, which return what
    they looked for, whether it is there, what was found, and what to do."""
    for point in points("onesearch.doctor").values():
        try:
            what, there, found, advice = point.load()()
        except Exception as error:  # a plugin's own fault must not hide what else was found
            what, there, found, advice = point.name, False, f"cannot tell ({error})", ""
        yield Finding(what, "ok" if there else "absent", found, advice)


def _learning() -> Iterator[Finding]:
    torch = _version("torch")
    advice = "to train: pip install 'onesearch[train]'"
    yield Finding("torch", "ok" if torch else "absent", torch or "not installed", "" if torch else advice)
    gpu_build = importlib.util.find_spec("faiss") is not None and _faiss_sees_gpus()
    faiss = _version("faiss-gpu-cu12") or _version("faiss-gpu") or _version("faiss-cpu")
    kind = "with GPU" if gpu_build else "CPU"
    yield Finding("faiss", "ok" if faiss else "missing", f"{faiss or 'not installed'}, {kind}")


def _gpu() -> Iterator[Finding]:
    names = _said(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    advice = "" if names else "none needed; with one: pip install 'onesearch[gpu]'"
    yield Finding("GPU", "ok" if names else "absent", names or "none seen", advice)
    tensorrt = _version("tensorrt-cu12") or _version("tensorrt")
    if names:
        advice = "" if tensorrt else "pip install 'onesearch[gpu]'"
        yield Finding("TensorRT", "ok" if tensorrt else "absent", tensorrt or "not installed", advice)


def _serving() -> Iterator[Finding]:
    try:
        found = environment.find()
    except ServingError as error:
        yield Finding("Triton", "missing", str(error), "make setup")
        return
    told = f"{found.python} (Python {found.version}, numpy {found.numpy})"
    yield Finding("Triton", "ok", f"{found.binary.name} in {told}")


def _streaming() -> Iterator[Finding]:
    # Java prints its version on standard error.
    java = _said(["java", "-version"])
    advice = "" if java else "only to run Kafka here: install a JRE, 17 or newer"
    yield Finding("Java", "ok" if java else "absent", java.splitlines()[0] if java else "none", advice)
    maven = shutil.which("mvn") or ""
    advice = "" if maven else "only to fetch Kafka for 'onesearch broker start': install maven"
    yield Finding("Maven", "ok" if maven else "absent", maven or "none", advice)
    broker = os.environ.get("ONESEARCH_KAFKA", "127.0.0.1:9092")
    up = _listens(broker)
    advice = (
        "" if up else "none needed to train and serve; onesearch broker start; ONESEARCH_KAFKA names another"
    )
    yield Finding(
        "Kafka", "ok" if up else "absent", f"{broker} {'answers' if up else 'does not answer'}", advice
    )


_LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _machine,
    _installed,
    _told_by_plugins,
    _learning,
    _gpu,
    _serving,
    _streaming,
)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _faiss_sees_gpus() -> bool:
    import faiss

    return bool(getattr(faiss, "get_num_gpus", lambda: 0)())


def _said(command: list[str]) -> str:
    """What a command printed; nothing where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout or done.stderr).strip()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
