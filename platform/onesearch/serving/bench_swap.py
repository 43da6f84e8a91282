"""What a change of release costs: nothing fails, no answer mixes two releases, and memory stays flat."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polars as pl
from tritonclient.grpc import service_pb2, service_pb2_grpc

from onesearch.errors import ServingError, UsageError
from onesearch.index import CatalogueIndex
from onesearch.releases.manifest import MANIFEST, SEAL
from onesearch.releases.registry import Registry
from onesearch.releases.release import CONFIG, Release, write_release
from onesearch.serving import conversion, environment
from onesearch.serving.bench import descendants, memory_mb
from onesearch.serving.client import Client
from onesearch.serving.proto import onesearch_pb2_grpc as pb_grpc
from onesearch.serving.requests import SearchAnswer, SearchRequest
from onesearch.serving.triton import SHARED_MEMORY

_READY_S = 180
_SWAP_S = 180
_QUERIES = 40
_MEASURED_AFTER = 3
"""Memory after the last swap is compared with that after this one: the first ones load code and buffers."""
MARK = "~twin"
READY = "ready.json"

Key = tuple[str, str]
"""Release and query."""
Seen = tuple[int, tuple[tuple[str, tuple[int, ...]], ...]]
"""What tells answers apart: the generation, and items with their SIDs in order."""


def run(
    release: Path,
    other: Path | None = None,
    swaps: int = 20,
    clients: int = 4,
    per_second: float = 40.0,
    pause: float = 1.0,
    queries: Sequence[str] = (),
) -> dict[str, Any]:
    """Swap releases under a real gateway and Triton while clients search all the time.

    Before the load begins every query is asked of each release alone. During it an answer must be, item by
    item and SID by SID, what the release that it names had answered alone; anything else is ``mixed``.

    Args:
        release: a release's folder.
        other: another one, to swap with; none: its twin, with other item ids, popularity and generation, so
            that whatever is mixed is seen.
        swaps: how many.
        clients: that search at once. Their requests are not repeated when one fails.
        per_second: searches of all clients together.
        pause: seconds between two swaps.
        queries: what is searched; none: words of the catalogue's titles.

    Returns:
        ``swaps``, ``requests``, ``failed`` (no answer, or a degraded one), ``mixed``, ``memory_growth`` (of
        all serving processes: after the last swap to after the third, less one), ``memory_mb`` (after each),
        ``shared_memory_growth`` in bytes and ``handles_growth`` (of the gateway) likewise, ``p50_ms``,
        ``p99_ms``, ``slowest_ms``, ``swap_s`` (median time from the promotion to the first answer).
    """
    if swaps < 1:
        raise UsageError("bench swap: at least one swap")
    with tempfile.TemporaryDirectory(prefix="onesearch-swap-") as scratch:
        registry, names = _releases(Path(scratch) / "releases", release, other)
        asked = list(queries) or title_words(Release.open(registry.path(names[0]), verify=False))
        with served(registry, Path(scratch)) as ready:
            expected = _expected(ready["gateway"], registry, names, asked)
            load = Load(ready["gateway"], asked, clients, per_second)
            with load:
                took, marks = _swap(ready, registry, names, swaps, pause)
    return _summary(load, expected, took, marks)


@dataclass
class Load:
    """Searches at a steady rate from several threads, until the end of the block.

    Attributes:
        answers: query and answer. times: seconds of each. failures: what was said instead of an answer.
    """

    address: str
    queries: Sequence[str]
    clients: int
    per_second: float
    answers: list[tuple[str, SearchAnswer]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, first: int) -> None:
        step, at = self.clients / self.per_second, first
        due = time.perf_counter() + step * first / self.clients
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = pb_grpc.OneSearchStub(channel)
            while not self._over.wait(max(0.0, due - time.perf_counter())):
                query = self.queries[at % len(self.queries)]
                begun = time.perf_counter()
                try:
                    message = conversion.request_to(SearchRequest(query, user_id=f"shopper {at}"))
                    answer = conversion.answer_from(stub.Search(message, timeout=5))
                    self.answers.append((query, answer))
                    self.times.append(time.perf_counter() - begun)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                at += self.clients
                due = max(due + step, time.perf_counter() - 1.0)  # at most a second is caught up


def twin(release: Release, releases: Path, name: str) -> Release:
    """Write a release that answers otherwise: other item ids, popularity turned round, generation + 1."""
    index = CatalogueIndex.load(release.path / "index")
    source = releases / f".source-{name}"
    shutil.copytree(release.path, source, ignore=shutil.ignore_patterns(MANIFEST, SEAL, CONFIG))
    ids = pl.concat_str(pl.col("item_id"), pl.lit(MARK))
    try:
        replace(
            index,
            items=index.items.with_columns(item_id=ids),
            popularity=index.popularity[::-1].copy(),
            generation=index.generation + 1,
        ).save(source / "index")
        return write_release(releases, name, source, release.config, metrics=release.manifest.metrics)
    finally:
        shutil.rmtree(source)


def _releases(folder: Path, release: Path, other: Path | None) -> tuple[Registry, list[str]]:
    """A folder with the two releases, the first one its champion."""
    first = Release.open(release)
    folder.mkdir()
    copy_release(release, folder / first.name)
    if other is None:
        second = twin(first, folder, f"{first.name[:90]}-twin")
    else:
        second = Release.open(other)
        if second.name == first.name:
            raise UsageError(f"bench swap: both releases are called '{first.name}'")
        copy_release(other, folder / second.name)
    registry = Registry(folder)
    registry.promote(first.name)
    return registry, [first.name, second.name]


def copy_release(source: Path, target: Path) -> None:
    """Copy a release's folder, without using space where both are on one disk."""

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    shutil.copytree(source, target, copy_function=link)


def title_words(release: Release) -> list[str]:
    """Queries that a release finds something for."""
    titles = release.index.items["title"].to_list()
    if not titles:
        raise UsageError(f"bench swap: release '{release.name}' has no items, so there is nothing to search")
    chosen = np.random.default_rng(0).choice(len(titles), min(_QUERIES, len(titles)), replace=False)
    return list(dict.fromkeys(" ".join(titles[at].split()[:3])[:60] for at in chosen))


@contextmanager
def served(registry: Registry, scratch: Path) -> Iterator[dict[str, Any]]:
    """``onesearch serve --releases`` as a process of its own; yields what it says when it is ready.

    What it says later stands in ``scratch / READY``.
    """
    file, log = scratch / READY, scratch / "serve.log"
    command = [str(environment.find().python), "-m", "onesearch.cli.main", "serve", "--json"]
    with log.open("wb") as told:
        process = subprocess.Popen(
            [*command, f"--releases={registry.folder}", f"--ready-file={file}"],
            stdout=subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, "XDG_CACHE_HOME": str(scratch)},
        )
    try:
        until(file.exists, _READY_S, lambda: f"the service did not start: {_end_of(log)}", process)
        yield json.loads(file.read_text(encoding="utf-8"))
    finally:
        process.terminate()
        process.wait()


def _expected(
    gateway: str, registry: Registry, names: Sequence[str], queries: Sequence[str]
) -> dict[Key, Seen]:
    """What each release answers alone. Ends with the last release as champion."""
    found: dict[Key, Seen] = {}
    with Client(gateway, timeout_s=30) as client:
        for name in names:
            registry.promote(name)
            _await_champion(client, name)
            for query in queries:
                answer = client.search(query)
                if answer.degraded or answer.release != name:
                    raise ServingError(f"release '{name}' alone does not answer {query!r}")
                found[name, query] = _seen(answer)
    return found


def _seen(answer: SearchAnswer) -> Seen:
    return answer.generation, tuple((hit.item_id, hit.sid) for hit in answer.hits)


@dataclass(frozen=True)
class Mark:
    """What all serving processes hold, between two swaps."""

    memory_mb: float
    shared_memory: int
    handles: int


def _swap(
    ready: dict[str, Any], registry: Registry, names: Sequence[str], swaps: int, pause: float
) -> tuple[list[float], list[Mark]]:
    """Swap back and forth; seconds until the first answer, and what is held after each swap."""
    took, marks = [], []
    with Client(ready["gateway"], timeout_s=30) as client:
        for at in range(swaps):
            name = names[at % 2]
            begun = time.monotonic()
            registry.promote(name)
            _await_champion(client, name)
            took.append(time.monotonic() - begun)
            until(partial(_only, ready["triton"], name), _SWAP_S, lambda: "the old one is not unloaded")
            old = names[(at + 1) % 2]
            until(partial(_gone, ready["pid"], old), _SWAP_S, lambda: "processes of the old one are left")
            time.sleep(pause)
            marks.append(_mark(ready["pid"]))
    return took, marks


def _await_champion(client: Client, name: str) -> None:
    def answers() -> bool:
        status = client.status()
        if status.problem:
            raise ServingError(f"release '{name}' does not answer: {status.problem}")
        return status.release == name

    until(answers, _SWAP_S, lambda: f"release '{name}' does not answer in time")


def _loaded(triton: str) -> set[str]:
    """Releases of which Triton holds any model."""
    with grpc.insecure_channel(triton) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=10)
    return {model.name.partition("--")[0] for model in index.models}


def _only(triton: str, name: str) -> bool:
    return _loaded(triton) == {name}


def _gone(pid: int, name: str) -> bool:
    """Whether no process holds a model of a release any more: one takes a moment to end after its model."""
    for one in descendants(pid):
        with suppress(OSError):  # it ended while we looked
            if f"/{name}--".encode() in Path(f"/proc/{one}/cmdline").read_bytes():
                return False
    return True


def _mark(pid: int) -> Mark:
    regions = [region.stat().st_blocks * 512 for region in SHARED_MEMORY.glob(f"onesearch-serve-{pid}-*")]
    return Mark(memory_mb(pid), sum(regions), len(list(Path(f"/proc/{pid}/fd").iterdir())))


def _summary(load: Load, expected: dict[Key, Seen], took: list[float], marks: list[Mark]) -> dict[str, Any]:
    degraded = sum(answer.degraded for _, answer in load.answers)
    mixed = sum(
        not answer.degraded and _seen(answer) != expected[answer.release, query]
        for query, answer in load.answers
    )
    first, last = marks[min(_MEASURED_AFTER, len(marks)) - 1], marks[-1]
    answered: dict[str, int] = {}
    for _, answer in load.answers:
        answered[answer.release] = answered.get(answer.release, 0) + 1
    return {
        "swaps": len(took),
        "requests": len(load.answers) + len(load.failures),
        "failed": len(load.failures) + degraded,
        "degraded": degraded,
        "mixed": mixed,
        "memory_growth": round(last.memory_mb / first.memory_mb - 1, 4),
        "memory_mb": [round(mark.memory_mb, 1) for mark in marks],
        "shared_memory_growth": last.shared_memory - first.shared_memory,
        "handles_growth": last.handles - first.handles,
        "p50_ms": round(1000 * float(np.percentile(load.times, 50)), 2),
        "p99_ms": round(1000 * float(np.percentile(load.times, 99)), 2),
        "slowest_ms": round(1000 * max(load.times), 2),
        "swap_s": round(float(np.median(took)), 2),
        "answered": answered,
        "failures": load.failures[:5],
    }


def until(
    holds: Callable[[], bool],
    limit_s: float,
    otherwise: Callable[[], str],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Wait until something holds.

    Raises ServingError, saying ``otherwise``, where it does not in time, or where the process ends.
    """
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            raise ServingError(otherwise())
        time.sleep(0.1)


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
