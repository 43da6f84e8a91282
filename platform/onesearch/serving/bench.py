"""What serving costs: the same searches through gateway and Triton, and in one process."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.errors import ServingError, UsageError
from onesearch.releases.release import Release
from onesearch.serving import environment
from onesearch.serving.client import Client
from onesearch.serving.pipeline import Pipeline, SearchRequest

_ROUNDS = 5
_QUERIES = 200
_WARM_UP = 20
_READY_S = 120


def run(
    release: Path,
    queries: Sequence[str] = (),
    seconds: float = 20.0,
    clients: int = 4,
    beams: int | None = None,
) -> dict[str, Any]:
    """Measure, in the serving environment whatever the caller's is.

    One client asks in turn with the bare pipeline, block by block, so that both see the same machine; then
    ``clients`` ask at once for ``seconds``.

    Args:
        release: a release's folder.
        queries: what is searched, over and over; none: words of the catalogue's titles.
        seconds: for each of the two parts.
        clients: of the second part.
        beams: None: the release's default.

    Returns:
        ``bare_p50_ms`` (the components called in one process), ``p50_ms``, ``p99_ms`` (one client, through
        gateway and Triton), ``ratio`` of the medians, ``queries_per_s`` and ``loaded_p99_ms`` (``clients`` at
        once),
        ``memory_mb`` (proportional set size of all serving processes), ``ready_s``, ``degraded``, ``beams``.
    """
    queries = queries or _title_words(Release.open(release))
    found = environment.find()
    if not environment.is_running(found):
        return _elsewhere(found.python, release, queries, seconds, clients, beams)
    opened = Release.open(release)
    beams = beams or opened.config.serving.beams
    runtime = Runtime(threads=opened.config.serving.threads)
    requests = [SearchRequest(query, beams=beams) for query in queries]
    with _served(found.python, release, beams) as ready:
        pipeline = Pipeline.of_release(opened, runtime)
        with Client(ready["gateway"], timeout_s=30) as client:
            for at in range(_WARM_UP):
                pipeline.search(requests[at % len(requests)])
                client.search(requests[at % len(requests)])
            bare, through = _in_turn(pipeline, client, requests, seconds)
            loaded, lasted = _at_once(client, requests, seconds, clients)
            status = client.status()
        memory = memory_mb(ready["pid"])
    return {
        "bare_p50_ms": _percentile(bare, 50),
        "p50_ms": _percentile(through, 50),
        "p99_ms": _percentile(through, 99),
        "ratio": round(_percentile(through, 50) / _percentile(bare, 50), 3),
        "queries_per_s": round(len(loaded) / lasted, 1),
        "loaded_p99_ms": _percentile(loaded, 99),
        "memory_mb": round(memory, 1),
        "ready_s": ready["ready_s"],
        "degraded": status.degraded,
        "beams": beams,
        "clients": clients,
        "items": ready["items"],
    }


def _title_words(release: Release) -> list[str]:
    """Queries cut from titles spread over the catalogue: their first three words."""
    titles = release.index.items["title"].to_list()
    if not titles:
        raise UsageError(f"bench serve: release '{release.name}' has no items, so there is nothing to search")
    chosen = np.random.default_rng(0).choice(len(titles), min(_QUERIES, len(titles)), replace=False)
    return [" ".join(titles[at].split()[:3])[:60] for at in chosen]


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and all its descendants, in MB."""
    return sum(_pss(one) for one in (pid, *_descendants(pid))) / 1e6


def _in_turn(
    pipeline: Pipeline, client: Client, requests: Sequence[SearchRequest], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of each search, bare and served, taken in alternating blocks."""
    bare: list[float] = []
    served: list[float] = []
    for _ in range(_ROUNDS):
        for times, search in ((bare, pipeline.search), (served, client.search)):
            until = time.perf_counter() + seconds / _ROUNDS / 2
            while time.perf_counter() < until:
                started = time.perf_counter()
                search(requests[len(times) % len(requests)])
                times.append(time.perf_counter() - started)
    return bare, served


def _at_once(
    client: Client, requests: Sequence[SearchRequest], seconds: float, clients: int
) -> tuple[list[float], float]:
    """Seconds of each search with several clients, and how long it all lasted."""
    times: list[float] = []
    started = time.perf_counter()

    def ask(first: int) -> None:
        at = first
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            client.search(requests[at % len(requests)])
            times.append(time.perf_counter() - begun)
            at += clients

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - started


@contextmanager
def _served(python: Path, release: Path, beams: int) -> Iterator[dict[str, Any]]:
    """``onesearch serve`` as a process of its own; yields what it says when it is ready."""
    with tempfile.TemporaryDirectory(prefix="onesearch-bench-") as folder:
        file = Path(folder) / "ready.json"
        command = [
            str(python),
            "-m",
            "onesearch.cli.main",
            "serve",
            f"--release={release}",
            f"--beams={beams}",
        ]
        process = subprocess.Popen(
            [*command, f"--ready-file={file}", "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": folder},
        )
        try:
            until = time.monotonic() + _READY_S
            while not file.exists():
                if process.poll() is not None:
                    raise ServingError(f"the service did not start: {process.communicate()[1].strip()}")
                if time.monotonic() > until:
                    raise ServingError(f"the service was not ready within {_READY_S} s")
                time.sleep(0.05)
            yield json.loads(file.read_text(encoding="utf-8"))
        finally:
            process.terminate()
            process.communicate()


def _elsewhere(python: Path, release: Path, queries: Sequence[str], *options: float | None) -> dict[str, Any]:
    """The same in the serving environment."""
    asked = json.dumps([str(release), list(queries), *options])
    ended = subprocess.run(
        [python, "-m", "onesearch.serving.bench", "-"],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise ServingError(ended.stderr.strip().rpartition("\n")[2] or "the benchmark failed")
    return dict(json.loads(ended.stdout))


def _percentile(times: Sequence[float], share: float) -> float:
    return round(1000 * float(np.percentile(times, share)), 2)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:  # it ended while we looked
        pass
    return 0


def _descendants(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="utf-8").split()
        ]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "input", help="'-': [release, queries, seconds, clients, beams] as JSON on standard input"
    )
    parser.parse_args()
    release, queries, seconds, clients, beams = json.load(sys.stdin)
    try:
        print(json.dumps(run(Path(release), queries, seconds, clients, beams)))
    except Exception as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
