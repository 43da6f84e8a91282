"""Triton's inference service over HTTP, as little as possible between it and the caller.

Of the ways to ask Triton from Python this one costs least processor time (docs/decisions.md). It speaks the
part of HTTP/1.1 that Triton does: every answer tells its length, connections stay open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import numpy as np

from onesearch.errors import ServingError, UsageError
from onesearch.serving.triton import reason
from onesearch.serving.wire import read_response, write_request

_HEAD = "inference-header-content-length"
_END = b"\r\n\r\n"


class EngineUnavailableError(ServingError):
    """The models do not answer: the server is down, starting, or out of memory."""


class EngineLateError(ServingError):
    """The models did not answer in time."""


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False

    def close(self) -> None:
        with suppress(RuntimeError, OSError):  # the loop, or the other side, may be gone
            self.writer.close()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class _GoneError(Exception):
    """The other side closed a kept connection before it said anything."""


@dataclass
class Inference:
    """Asks the models of one Triton. Any number of calls at once, in one event loop.

    Attributes:
        address: ``host:port`` of Triton's HTTP service.
    """

    address: str
    _idle: list[_Connection] = field(default_factory=list)

    async def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str], timeout_s: float
    ) -> dict[str, np.ndarray]:
        """One inference. No outputs named asks for all of them.

        Raises:
            UsageError: the model refuses the request.
            EngineLateError, EngineUnavailableError: no answer in time; nobody there to answer.
            ServingError: the model failed.
        """
        head, body = write_request(inputs, outputs)
        lines = f"Inference-Header-Content-Length: {head}\r\n"
        answer = await self._ask("POST", f"{_path(model)}/infer", lines, body, timeout_s)
        if answer.status != HTTPStatus.OK:
            raise _problem(answer)
        return read_response(int(answer.headers.get(_HEAD, len(answer.body))), answer.body)

    async def ready(self, model: str, timeout_s: float) -> bool:
        """Whether a model is loaded."""
        try:
            answer = await self._ask("GET", f"{_path(model)}/ready", "", b"", timeout_s)
            return answer.status == HTTPStatus.OK
        except ServingError:
            return False

    async def outputs(self, model: str, timeout_s: float) -> tuple[str, ...]:
        """The names of a model's outputs. Raises as :meth:`infer` does."""
        told = await self.get(_path(model), timeout_s)
        return tuple(tensor["name"] for tensor in told["outputs"])

    async def get(self, path: str, timeout_s: float) -> dict[str, Any]:
        """What Triton says at a path, from JSON. Raises as :meth:`infer` does."""
        answer = await self._ask("GET", path, "", b"", timeout_s)
        if answer.status != HTTPStatus.OK:
            raise _problem(answer)
        return dict(json.loads(answer.body))

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, method: str, path: str, lines: str, body: bytes, timeout_s: float) -> _Answer:
        request = f"{method} {path} HTTP/1.1\r\nHost: triton\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request.encode() + body)
        except TimeoutError as error:
            raise EngineLateError("the models did not answer in time") from error
        except (OSError, EOFError) as error:
            raise EngineUnavailableError(f"the models do not answer: {error}") from error
        except (ValueError, KeyError, asyncio.LimitOverrunError) as error:
            raise ServingError(f"Triton answered what is no HTTP ({error})") from error

    async def _exchange(self, request: bytes) -> _Answer:
        """Ask over a kept connection, or a new one. A kept one that was closed meanwhile is no answer."""
        while self._idle:
            with suppress(_GoneError):
                return await self._over(self._idle.pop(), request)
        host, _, port = self.address.rpartition(":")
        opened = await asyncio.open_connection(host.strip("[]"), int(port))
        return await self._over(_Connection(*opened), request)

    async def _over(self, connection: _Connection, request: bytes) -> _Answer:
        reader = connection.reader
        try:
            connection.writer.write(request)
            try:
                head = await reader.readuntil(_END)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                if connection.used and not getattr(error, "partial", b""):
                    raise _GoneError from error
                raise ConnectionError("Triton closed the connection") from error
            status, headers = _read_head(head)
            answer = _Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
        except BaseException:  # a late answer must not be taken for that to the next request
            connection.close()
            raise
        connection.used = True
        self._idle.append(connection)
        return answer


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head[: -len(_END)].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _problem(answer: _Answer) -> Exception:
    """What a refusal says, as the error that callers tell it by."""
    try:
        details = reason(str(json.loads(answer.body)["error"]))
    except (ValueError, KeyError, TypeError):
        details = f"status {answer.status}"
    match answer.status:
        case HTTPStatus.BAD_REQUEST if "byte size mismatch" not in details:
            return UsageError(_without_step(details))
        case HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.NOT_FOUND:
            return EngineUnavailableError(f"the models do not answer: {details}")
        case _:
            return ServingError(_without_step(details))


def _without_step(details: str) -> str:
    """An ensemble puts the failing step in front of what the step said."""
    head, found, said = details.partition(", ")
    return said if found and head.startswith("in ensemble") else details
