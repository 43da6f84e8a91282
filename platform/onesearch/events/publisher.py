"""Tells Kafka without making anybody wait: a queue in memory, a thread that empties it, a spool behind it.

Messages keep their order: while anything is spooled, what comes later is spooled, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from onesearch.errors import OneSearchError, ServingError
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Client, Failure, Producer, Record

Fate = Literal["acknowledged", "spooled"]
_LOG = logging.getLogger("onesearch.events")
_PORTION = 1_000
_RETRY_S = 1.0
_TELL_EVERY_S = 30.0


@dataclass(frozen=True)
class PublisherTally:
    """What became of messages since the start.

    Attributes:
        queued: now waiting in memory.
        acknowledged: by all replicas in sync, spooled ones included once they were sent.
        spooled: written to the spool.
        dropped: neither; the queue or the spool was full, or Kafka will never take them.
        spool_bytes: now on disk.
        down: whether Kafka did not take what was sent last.
    """

    queued: int
    acknowledged: int
    spooled: int
    dropped: int
    spool_bytes: int
    down: bool


class Publisher:
    """Sends messages from any thread. A slow or absent Kafka slows nobody down.

    What :meth:`offer` took in is in memory until Kafka or the spool has it: a kill loses it. What
    :meth:`deliver` has answered for is kept by one of them.
    """

    def __init__(
        self, client: Client, spool: Spool | None, queue_limit: int = 50_000, retry_s: float = _RETRY_S
    ) -> None:
        """Start the thread.

        Args:
            client: where to send to; connected when there is something to send.
            spool: where messages go while Kafka does not answer; None: they are dropped then.
            queue_limit: messages in memory at most.
            retry_s: how often Kafka is tried while it does not answer.
        """
        self._timeout_s = client.settings.delivery_timeout_s
        self._client = client
        self._spool = spool
        self._limit = queue_limit
        self._retry_s = retry_s
        self._queue: deque[tuple[Record, _Waiter | None]] = deque()
        self._wake = threading.Event()
        self._guard = threading.Lock()
        self._closing = False
        self._acknowledged = self._spooled = self._dropped = 0
        self._down = False
        self._try_again = self._tell_again = 0.0
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def offer(self, records: Sequence[Record]) -> bool:
        """Take messages in, all or none; whether they were. Returns at once."""
        return self._take(records, None)

    def deliver(self, records: Sequence[Record]) -> Future[Fate]:
        """Take messages in. The future has what became of them; ServingError where they could not be kept."""
        waiter = _Waiter(len(records))
        if not records:
            waiter.future.set_result("acknowledged")
        elif not self._take(records, waiter):
            waiter.future.set_exception(ServingError("too many events are waiting to be sent"))
        return waiter.future

    @property
    def tally(self) -> PublisherTally:
        """What became of messages since the start."""
        spool_bytes = len(self._spool) if self._spool else 0
        return PublisherTally(
            len(self._queue), self._acknowledged, self._spooled, self._dropped, spool_bytes, self._down
        )

    def close(self, grace_s: float = 5.0) -> None:
        """Send or spool what is waiting, for so long at most, and stop; a second time does nothing."""
        self._closing = True
        self._wake.set()
        self._thread.join(grace_s + self._timeout_s)

    def _take(self, records: Sequence[Record], waiter: _Waiter | None) -> bool:
        with self._guard:
            if self._closing or len(self._queue) + len(records) > self._limit:
                self._dropped += len(records)
                return False
            self._queue.extend((record, waiter) for record in records)
        self._wake.set()
        return True

    def _work(self) -> None:
        producer = self._client.producer()
        try:
            while True:
                waiting = self._spool is not None and not self._spool.empty
                self._wake.wait(0 if waiting and not self._down else self._retry_s)
                self._wake.clear()
                if waiting and time.monotonic() >= self._try_again:
                    try:
                        self._drain(producer)
                    except OSError as error:
                        self._try_again = time.monotonic() + self._retry_s
                        self._complain("the spool cannot be read: %s", str(error))
                self._send(producer)
                if self._closing and not self._queue:
                    return
        finally:
            producer.close()
            if self._spool is not None:
                self._spool.close()

    def _send(self, producer: Producer) -> None:
        """Send what is in the queue, or spool it."""
        while self._queue:
            with self._guard:
                portion = [self._queue.popleft() for _ in range(min(_PORTION, len(self._queue)))]
            if (self._spool is not None and not self._spool.empty) or time.monotonic() < self._try_again:
                self._keep(portion)
                # Whoever sends faster than the spool is emptied must not keep it from being emptied.
                if not self._down and not self._closing:
                    return
                continue
            failed = self._try(producer, [record for record, _ in portion])
            left = []
            for (record, waiter), failure in zip(portion, failed, strict=True):
                if failure is None:
                    _settle(waiter, "acknowledged")
                elif failure.lasting:
                    self._drop([(record, waiter)], failure.reason)
                else:
                    left.append((record, waiter))
            if left:
                self._keep(left)

    def _drain(self, producer: Producer) -> None:
        """Send the oldest of what is spooled."""
        assert self._spool is not None
        records = self._spool.peek(_PORTION)
        if not records:
            return
        failed = self._try(producer, records)
        # Up to the first that must be sent again; those behind it that were sent are known by their ids.
        for record, failure in zip(records, failed, strict=True):
            if failure is not None and failure.lasting:
                self._drop([(record, None)], failure.reason)
        if not any(failure is not None and not failure.lasting for failure in failed):
            self._spool.done()

    def _try(self, producer: Producer, records: Sequence[Record]) -> list[Failure | None]:
        try:
            failed = producer.deliver(records, self._timeout_s)
        except (
            Exception
        ) as error:  # a client's own mistake must not end the thread: nobody would send any more
            producer.close()
            failed = [Failure(f"{type(error).__name__}: {error}")] * len(records)
        reasons = [failure.reason for failure in failed if failure is not None and not failure.lasting]
        self._acknowledged += sum(failure is None for failure in failed)
        if reasons:
            self._try_again = time.monotonic() + self._retry_s
            self._complain("Kafka does not take events: %s", reasons[0])
        elif self._down:
            _LOG.warning("Kafka takes events again")
        self._down = bool(reasons)
        return failed

    def _keep(self, portion: list[tuple[Record, _Waiter | None]]) -> None:
        """Write to the spool what fits there."""
        if self._spool is None:
            self._drop(portion, "Kafka does not answer, and there is no spool")
            return
        try:
            kept = self._spool.append([record for record, _ in portion])
            why = f"the spool is full ({self._spool.limit_bytes:,} bytes)"
        except OneSearchError as error:
            kept, why = 0, str(error)
        self._spooled += kept
        for _, waiter in portion[:kept]:
            _settle(waiter, "spooled")
        if kept < len(portion):
            self._drop(portion[kept:], why)

    def _drop(self, portion: Sequence[tuple[Record, _Waiter | None]], why: str) -> None:
        self._dropped += len(portion)
        self._complain("events are dropped: %s", why)
        for _, waiter in portion:
            if waiter is not None:
                waiter.fail(why)

    def _complain(self, what: str, why: str) -> None:
        if time.monotonic() >= self._tell_again:
            self._tell_again = time.monotonic() + _TELL_EVERY_S
            _LOG.error(what, why)


class _Waiter:
    """Waits for the fate of several messages: the worst of them."""

    def __init__(self, count: int) -> None:
        self.future: Future[Fate] = Future()
        self._left = count
        self._fate: Fate = "acknowledged"
        self._why: str | None = None

    def settle(self, fate: Fate) -> None:
        """One message has found its place."""
        if fate == "spooled":
            self._fate = fate
        self._count()

    def fail(self, why: str) -> None:
        """One message has found none."""
        self._why = why
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left or not self.future.set_running_or_notify_cancel():
            return
        if self._why is None:
            self.future.set_result(self._fate)
        else:
            self.future.set_exception(ServingError(f"events could not be kept: {self._why}"))


def _settle(waiter: _Waiter | None, fate: Fate) -> None:
    if waiter is not None:
        waiter.settle(fate)
