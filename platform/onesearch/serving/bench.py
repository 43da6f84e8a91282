"""What serving costs: the same searches through gateway and Triton, and in one process."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.figures import new_figure, write_png
from onesearch.releases.release import Release
from onesearch.serving import environment, load
from onesearch.serving.client import Client
from onesearch.serving.load import at_once
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.serving.shares import Watch

_ROUNDS = 5
_QUERIES = 200
_WARM_UP = 20
_SETTLE_S = 0.2
"""Threads of the libraries that the bare pipeline calls look for more work for a while before they sleep."""
_READY_S = 120
_SAMPLES = 100
_SHOPPERS = 1_000

Asked = tuple[SearchRequest, ShopperState]
"""A search, and what is known of who asks."""


def run(
    release: Path,
    queries: Sequence[str] = (),
    seconds: float = 20.0,
    clients: Sequence[int] = (1, 2, 4, 8, 16),
    beams: int | None = None,
    states: str = "",
    overload: float = 10.0,
    plot: Path | None = None,
    processes: str = "one",
) -> dict[str, Any]:
    """Measure, in the serving environment whatever the caller's is.

    One client asks in turn with the bare pipeline, block by block, so that both see the same machine; then
    several ask at once; at last far more is asked than can be answered.

    Args:
        release: a release's folder.
        queries: what is searched, over and over; none: words of the catalogue's titles.
        seconds: for each part.
        clients: numbers of clients that ask at once, one after another.
        beams: None: the release's default.
        states: a store of shoppers' states, lmdb:PATH or redis://…; its shoppers take turns. None: nobody is
            known.
        overload: so many times the searches a second that were answered at best are sent for a while; 0:
            none.
        plot: where a picture of throughput against latency goes.
        processes: of the steps of a search: one, each.

    Returns:
        ``bare_p50_ms`` (the components called in one process), ``p50_ms``, ``p99_ms`` (one client, through
        gateway and Triton), ``ratio`` of the medians; ``rows``, what each number of clients got (see
        :class:`onesearch.serving.load.Level`), and of the one that got most ``queries_per_s`` and
        ``loaded_p99_ms``; ``overload`` (see :class:`onesearch.serving.load.Overload`), ``shares_ms`` (where
        a search's time goes: see :class:`onesearch.serving.shares.Watch`), ``memory_mb`` (proportional set
        size of all serving processes), ``ready_s``, ``degraded``, ``beams``, ``shoppers`` (how many took
        turns), ``states_failed``, ``processes``.
    """
    queries = queries or _title_words(Release.open(release))
    found = environment.find()
    if not environment.is_running(found):
        options = (seconds, list(clients), beams, states, overload, None, processes)
        answer = _elsewhere(found.python, release, queries, *options)
        if plot is not None:
            draw(answer["rows"], plot)
        return answer
    if plot is not None:
        raise UsageError("bench serve: pictures are drawn where learning is installed, not here")
    opened = Release.open(release)
    beams = beams or opened.config.serving.beams
    runtime = Runtime(threads=opened.config.serving.threads)
    shoppers = _shoppers(states) if states else [ShopperState()]
    # As many pairs as the longer list has entries; in turn, so that the same query meets other shoppers.
    requests = [
        (
            SearchRequest(queries[at % len(queries)], shoppers[at % len(shoppers)].user_id, beams=beams),
            shoppers[at % len(shoppers)],
        )
        for at in range(max(len(queries), len(shoppers)))
    ]
    with _served(found.python, release, beams, states, processes) as ready:
        pipeline = Pipeline.of_release(opened, runtime)
        with Client(ready["gateway"], timeout_s=30) as client:
            for at in range(_WARM_UP):
                pipeline.search(*requests[at % len(requests)])
                client.search(requests[at % len(requests)][0])
            bare, through = _in_turn(pipeline, client, requests, seconds)
            shares = _shares(ready, client, requests, seconds)
            searches = [request for request, _ in requests]
            levels = [at_once(client, searches, seconds / 2, number) for number in clients]
            best = max(levels, key=lambda level: level.queries_per_s)
            flood = None
            if overload:
                usual = _percentile(through, 50)
                rate = overload * best.queries_per_s
                flood = asyncio.run(load.overload(ready["gateway"], searches, rate, seconds / 4, usual))
            status = client.status()
        memory = memory_mb(ready["pid"])
    return {
        "bare_p50_ms": _percentile(bare, 50),
        "p50_ms": _percentile(through, 50),
        "p99_ms": _percentile(through, 99),
        "ratio": round(_percentile(through, 50) / _percentile(bare, 50), 3),
        "queries_per_s": best.queries_per_s,
        "loaded_p99_ms": best.p99_ms,
        "rows": [asdict(level) for level in levels],
        "overload": flood.as_dict() if flood else {},
        "shares_ms": shares,
        "memory_mb": round(memory, 1),
        "ready_s": ready["ready_s"],
        "degraded": status.degraded - (flood.degraded if flood else 0),
        "beams": beams,
        "processes": processes,
        "items": ready["items"],
        "shoppers": len(shoppers) if states else 0,
        "states_failed": status.states_failed,
    }


def _title_words(release: Release) -> list[str]:
    """Queries cut from titles spread over the catalogue: their first three words."""
    titles = release.index.items["title"].to_list()
    if not titles:
        raise UsageError(f"bench serve: release '{release.name}' has no items, so there is nothing to search")
    chosen = np.random.default_rng(0).choice(len(titles), min(_QUERIES, len(titles)), replace=False)
    return [" ".join(titles[at].split()[:3])[:60] for at in chosen]


def _shoppers(states: str) -> list[ShopperState]:
    """The first shoppers of a store, with what is known of them."""
    from onesearch.shoppers.opening import open_states

    with open_states(states, read_only=True) as store:
        found = store.get_many(list(islice(store.users(), _SHOPPERS)))
    if not found:
        raise UsageError(f"bench serve: {store.url} knows no shoppers")
    return found


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and all its descendants, in MB."""
    return sum(_pss(one) for one in (pid, *descendants(pid))) / 1e6


def _in_turn(
    pipeline: Pipeline, client: Client, requests: Sequence[Asked], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of each search, bare and served, taken in alternating blocks."""
    bare: list[float] = []
    served: list[float] = []
    for _ in range(_ROUNDS):
        until = time.perf_counter() + seconds / _ROUNDS / 2
        while time.perf_counter() < until:
            request, state = requests[len(bare) % len(requests)]
            started = time.perf_counter()
            pipeline.search(request, state)
            bare.append(time.perf_counter() - started)
        time.sleep(_SETTLE_S)
        until = time.perf_counter() + seconds / _ROUNDS / 2
        while time.perf_counter() < until:
            request, _ = requests[len(served) % len(requests)]
            started = time.perf_counter()
            client.search(request)
            served.append(time.perf_counter() - started)
    return bare, served


def _shares(
    ready: dict[str, Any], client: Client, requests: Sequence[Asked], seconds: float
) -> dict[str, dict[str, float]]:
    """Where the time of single searches goes."""
    watch = Watch(ready["triton_http"], ready["release"], lambda: client.status().states_took_s)
    until = time.perf_counter() + seconds / 2
    for request, state in requests[:_SAMPLES]:
        watch.measure(client.search, request, state)
        if time.perf_counter() > until:
            break
    watch.close()
    return watch.shares_ms()


@contextmanager
def _served(python: Path, release: Path, beams: int, states: str, processes: str) -> Iterator[dict[str, Any]]:
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
            f"--processes={processes}",
            *([f"--states={states}"] if states else []),
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
            if process.poll() is None:
                process.terminate()
                process.communicate()


def _elsewhere(
    python: Path, release: Path, queries: Sequence[str], *options: float | str | list[int] | None
) -> dict[str, Any]:
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


def descendants(pid: int) -> list[int]:
    """Numbers of all processes that a process has started, and that those have."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="utf-8").split()
        ]
    except OSError:
        return []
    return [one for child in children for one in (child, *descendants(child))]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG: searches a second against their time, one point a number of clients."""
    figure = new_figure(6.5, 4)
    axis = figure.subplots()
    for share, colour in (("p50_ms", "#0b6e4f"), ("p99_ms", "#8a8f98")):
        axis.plot(
            [row["queries_per_s"] for row in rows],
            [row[share] for row in rows],
            "o-",
            color=colour,
            label=share.removesuffix("_ms"),
        )
    for row in rows:
        axis.annotate(
            str(row["clients"]),
            (row["queries_per_s"], row["p50_ms"]),
            xytext=(4, -12),
            textcoords="offset points",
            fontsize=8,
        )
    axis.set(xlabel="searches a second (numbers: clients)", ylabel="ms a search")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", help="'-': the arguments of run() as a JSON list on standard input")
    parser.parse_args()
    release, *options = json.load(sys.stdin)
    try:
        print(json.dumps(run(Path(release), *options)))
    except Exception as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
