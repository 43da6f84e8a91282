"""Triton's inference service over HTTP, as little as possible between it and the caller.

Of the ways to ask Triton from Python this one costs least processor time (docs/decisions.md).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import numpy as np

from onesearch.errors import ServingError, UsageError
from onesearch.serving.connection import Answer, Connection, GoneError
from onesearch.serving.triton import reason
from onesearch.serving.wire import read_response, read_text, write_request, write_text

_HEAD = "inference-header-content-length"


class EngineUnavailableError(ServingError):
    """The models do not answer: the server is down, starting, or out of memory."""


class EngineLateError(ServingError):
    """The models did not answer in time."""


@dataclass
class Inference:
    """Asks the models of one Triton. Any number of calls at once, in one event loop.

    Attributes:
        address: ``host:port`` of Triton's HTTP service.
    """

    address: str
    _idle: list[Connection] = field(default_factory=list)

    async def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str], timeout_s: float
    ) -> dict[str, np.ndarray]:
        """One inference. No outputs named asks for all of them.

        Raises:
            UsageError: the model refuses the request.
            EngineLateError, EngineUnavailableError: no answer in time; nobody there to answer.
            ServingError: the model failed.
        """
        return read_response(*await self._infer(model, write_request(inputs, outputs), timeout_s))

    async def infer_text(self, model: str, name: str, text: bytes, output: str, timeout_s: float) -> bytes:
        """One inference of a model that takes one text and gives one. Raises as :meth:`infer` does."""
        return read_text(*await self._infer(model, write_text(name, text, output), timeout_s))

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

    async def _infer(self, model: str, asked: tuple[int, bytes], timeout_s: float) -> tuple[int, bytes]:
        """How many bytes of the answer are its head, and the answer."""
        head, body = asked
        lines = f"Inference-Header-Content-Length: {head}\r\n"
        answer = await self._ask("POST", f"{_path(model)}/infer", lines, body, timeout_s)
        if answer.status != HTTPStatus.OK:
            raise _problem(answer)
        return int(answer.headers.get(_HEAD, len(answer.body))), answer.body

    async def _ask(self, method: str, path: str, lines: str, body: bytes, timeout_s: float) -> Answer:
        request = f"{method} {path} HTTP/1.1\r\nHost: triton\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        try:
            return await self._exchange(request.encode() + body, timeout_s)
        except TimeoutError as error:
            raise EngineLateError("the models did not answer in time") from error
        except OSError as error:
            raise EngineUnavailableError(f"the models do not answer: {error}") from error
        except (ValueError, KeyError) as error:
            raise ServingError(f"Triton answered what is no HTTP ({error})") from error

    async def _exchange(self, request: bytes, timeout_s: float) -> Answer:
        """Ask over a kept connection, or a new one. A kept one that was closed meanwhile is no answer."""
        while self._idle:
            with suppress(GoneError):
                return await self._over(self._idle.pop(), request, timeout_s)
        connection = await asyncio.wait_for(self._connected(), timeout_s)
        try:
            return await self._over(connection, request, timeout_s)
        except GoneError as error:
            raise ConnectionError("the connection was closed") from error

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop)
        host, _, port = self.address.rpartition(":")
        await loop.create_connection(lambda: connection, host.strip("[]"), int(port))
        return connection

    async def _over(self, connection: Connection, request: bytes, timeout_s: float) -> Answer:
        answer = await connection.ask(request, timeout_s)
        self._idle.append(connection)
        return answer


@cache
def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _problem(answer: Answer) -> Exception:
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
