"""Load on a gateway: clients that ask one search after another, and far more searches than it can answer."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onesearch.errors import ServingError
from onesearch.serving import flood
from onesearch.serving.client import AsyncClient, Client, GatewayError
from onesearch.serving.conversion import request_to
from onesearch.serving.flood import SENT, Outcome, Task
from onesearch.serving.requests import SearchRequest

_LOOK_EVERY_S = 0.05
_LONGEST_RECOVERY_S = 30.0
_LONGEST_LINE = 64 * 1024 * 1024
_AS_BEFORE = 2.0
"""A search that takes at most so many times the usual is one of normal service."""


@dataclass(frozen=True)
class Level:
    """What so many clients got who ask one search after another.

    Attributes:
        clients: how many. queries_per_s: of all of them. p50_ms, p99_ms: of a search.
        degraded: answers without the models.
    """

    clients: int
    queries_per_s: float
    p50_ms: float
    p99_ms: float
    degraded: int


@dataclass(frozen=True)
class Overload:
    """What became of far too many searches.

    Attributes:
        offered_per_s: searches sent a second, whatever becomes of those before. offered: in all.
        answered: by the models. degraded: by the gateway alone, and marked so. refused: turned away at once
            (RESOURCE_EXHAUSTED). late: past their deadline. failed: anything else.
        p99_ms: of the answered ones.
        normal_after_s: from the last search sent until one is answered by the models about as fast as usual;
            None: not within half a minute.
    """

    offered_per_s: float
    offered: int
    answered: int
    degraded: int
    refused: int
    late: int
    failed: int
    p99_ms: float
    normal_after_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def at_once(client: Client, requests: Sequence[SearchRequest], seconds: float, clients: int) -> Level:
    """So many clients at once for ``seconds``."""
    times: list[float] = []
    degraded = [0]
    started = time.perf_counter()

    def ask(first: int) -> None:
        at = first
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            answer = client.search(requests[at % len(requests)])
            times.append(time.perf_counter() - begun)
            degraded[0] += answer.degraded
            at += clients

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.perf_counter() - started
    return Level(clients, round(len(times) / lasted, 1), _ms(times, 50), _ms(times, 99), degraded[0])


async def overload(
    address: str,
    requests: Sequence[SearchRequest],
    per_s: float,
    seconds: float,
    usual_ms: float,
    deadline_s: float = 1.0,
) -> Overload:
    """Send ``per_s`` searches a second for ``seconds``, from a process of its own; see when all is as before.

    Args:
        address: the gateway's.
        requests: taken in turn.
        usual_ms: what a search takes when nothing else is asked.
        deadline_s: of each search.
    """
    made = [b64encode(request_to(request).SerializeToString()).decode() for request in requests]
    task = Task(address, made, per_s, seconds, deadline_s)
    sender = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        flood.__name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert sender.stdin is not None and sender.stdout is not None
    try:
        sender.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        if (await sender.stdout.readline()).strip() != SENT.encode():
            raise ServingError("the process that sends too many searches has failed")
        normal_after = await _normal_after(address, requests[0], usual_ms, deadline_s)
        outcome = Outcome(**json.loads(await sender.stdout.readline()))
    finally:
        if sender.returncode is None:
            with suppress(ProcessLookupError):
                sender.kill()
            await sender.wait()
    became = Counter(outcome.became)
    return Overload(
        offered_per_s=round(outcome.sent / outcome.lasted_s, 1),
        offered=outcome.sent,
        answered=became["answered"],
        degraded=became["degraded"],
        refused=became["refused"],
        late=became["late"],
        failed=became["failed"],
        p99_ms=_ms(outcome.times_s, 99),
        normal_after_s=normal_after,
    )


async def _normal_after(
    address: str, request: SearchRequest, usual_ms: float, deadline_s: float
) -> float | None:
    """Seconds from now until a search is answered by the models about as fast as usual."""
    began = time.perf_counter()
    async with AsyncClient(address) as client:
        while time.perf_counter() - began < _LONGEST_RECOVERY_S:
            begun = time.perf_counter()
            try:
                answer = await client.search(request, timeout_s=deadline_s)
            except GatewayError:
                answer = None
            took = 1000 * (time.perf_counter() - begun)
            if answer is not None and not answer.degraded and took <= _AS_BEFORE * usual_ms:
                return round(time.perf_counter() - began, 2)
            await asyncio.sleep(_LOOK_EVERY_S)
    return None


def _ms(times: Sequence[float], share: float) -> float:
    return round(1000 * float(np.percentile(times, share)), 2) if times else 0.0
