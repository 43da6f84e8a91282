"""Sends searches at a steady rate, whatever becomes of those before, in a process that does nothing else.

Run as ``python -m onesearch.serving.flood``. What is sent was made before, and answers are read when all of
them are there, so that what is measured is the server. Standard input holds a line of JSON, a :class:`Task`;
standard output ``sent``, once nothing more is sent, and then a line with the :class:`Outcome`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from onesearch.serving.proto import onesearch_pb2 as pb

SENT = "sent"
_SEARCH = f"/{pb.DESCRIPTOR.services_by_name['OneSearch'].full_name}/Search"
_KINDS = {grpc.StatusCode.RESOURCE_EXHAUSTED: "refused", grpc.StatusCode.DEADLINE_EXCEEDED: "late"}
_PAUSE_S = 0.001
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Task:
    """What to send.

    Attributes:
        address: the gateway's.
        requests: serialised, in base64, taken in turn.
        per_s, seconds: how many a second, for how long.
        deadline_s: of each.
    """

    address: str
    requests: Sequence[str]
    per_s: float
    seconds: float
    deadline_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        sent: how many. lasted_s: from the first to the last.
        became: how many were answered, degraded, refused, late, failed.
        times_s: of those that the models answered.
    """

    sent: int
    lasted_s: float
    became: dict[str, int]
    times_s: list[float]


class _Sender:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._requests = [b64decode(request) for request in task.requests]
        self._ended: list[tuple[Any, float]] = []
        self._lock = threading.Condition()

    def send(self, search: Any) -> tuple[int, float]:
        """Send everything; how many it was, and how long it took."""
        sent, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < self._task.seconds:
            while sent < passed * self._task.per_s:
                begun = time.perf_counter()
                call = search.future(
                    self._requests[sent % len(self._requests)], timeout=self._task.deadline_s
                )
                call.add_done_callback(lambda call, begun=begun: self._end(call, begun))
                sent += 1
            time.sleep(_PAUSE_S)
        return sent, time.perf_counter() - started

    def outcome(self, sent: int, lasted_s: float) -> Outcome:
        """Wait until all have ended."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._ended) == sent, _PATIENCE_S)
        became: Counter[str] = Counter(failed=sent - len(self._ended))
        times = []
        for call, took_s in self._ended:
            code = call.code()
            if code is not grpc.StatusCode.OK:
                became[_KINDS.get(code, "failed")] += 1
            elif pb.SearchResponse.FromString(call.result()).degraded:
                became["degraded"] += 1
            else:
                became["answered"] += 1
                times.append(took_s)
        return Outcome(sent, lasted_s, dict(became), times)

    def _end(self, call: Any, begun: float) -> None:
        took_s = time.perf_counter() - begun
        with self._lock:
            self._ended.append((call, took_s))
            self._lock.notify()


def main() -> None:
    """Do what standard input says."""
    task = Task(**json.loads(sys.stdin.readline()))
    sender = _Sender(task)
    with grpc.insecure_channel(task.address) as channel:
        grpc.channel_ready_future(channel).result(task.seconds + _PATIENCE_S)
        sent, lasted_s = sender.send(channel.unary_unary(_SEARCH))
        print(SENT, flush=True)
        print(json.dumps(asdict(sender.outcome(sent, lasted_s))), flush=True)


if __name__ == "__main__":
    main()
