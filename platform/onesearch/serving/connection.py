"""A kept connection that speaks the part of HTTP/1.1 that Triton does: every answer tells its length.

Bytes are taken as the loop brings them: a whole answer as a rule, which then wakes its caller once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

_END = b"\r\n\r\n"
_MOST_HEAD = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: by their names in small letters.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class GoneError(Exception):
    """The other side closed a kept connection before it said anything."""


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Not connected yet: the loop's ``create_connection`` does that."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._received = bytearray()
        self._head: tuple[int, int, dict[str, str]] | None = None  # where the answer ends, status, headers
        self._body_at = 0
        self._used = False

    async def ask(self, request: bytes, timeout_s: float) -> Answer:
        """Send a request and wait for its answer.

        Whoever stops waiting closes the connection, lest a late answer is taken for that to the next request.

        Raises:
            GoneError: closed since the last answer; nobody has seen the request.
            ConnectionError: closed while it was answered.
            TimeoutError: not answered in time.
            ValueError, KeyError: what came is no HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise GoneError
        self._received.clear()
        self._head = None
        self._waiting = self._loop.create_future()
        # Quicker than asyncio.timeout, which looks for its task, and as good where one future is waited for.
        late = self._loop.call_later(timeout_s, self._late)
        try:
            self._transport.write(request)
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            late.cancel()
            self._waiting, self._used = None, True

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            gone = self._used and not self._received
            self._waiting.set_exception(GoneError() if gone else ConnectionError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._waiting is None or self._waiting.done():
            self.close()  # nobody has asked for that
            return
        self._received += data
        try:
            answer = self._whole()
        except (ValueError, KeyError) as error:
            self._waiting.set_exception(error)
            return
        if answer is not None:
            self._waiting.set_result(answer)

    def _late(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(TimeoutError())

    def _whole(self) -> Answer | None:
        """The answer, once all of it is there."""
        if self._head is None:
            at = self._received.find(_END)
            if at < 0:
                if len(self._received) > _MOST_HEAD:
                    raise ValueError("no end of the head")
                return None
            status, headers = _read_head(self._received[:at])
            self._body_at = at + len(_END)
            self._head = self._body_at + int(headers["content-length"]), status, headers
        end, status, headers = self._head
        if len(self._received) < end:
            return None
        return Answer(status, headers, bytes(self._received[self._body_at : end]))


def _read_head(head: bytearray) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}
