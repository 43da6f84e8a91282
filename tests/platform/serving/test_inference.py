"""What the HTTP client does about servers that refuse, go away or are late. Real Triton: tests/e2e."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from onesearch.errors import ServingError, UsageError
from onesearch.serving.inference import EngineLateError, EngineUnavailableError, Inference

NUMBERS = {"X": np.arange(3, dtype=np.float32)[None]}


def good() -> bytes:
    raw = NUMBERS["X"].tobytes()
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"outputs": [tensor]}).encode()
    return said("200 OK", head + raw, f"Inference-Header-Content-Length: {len(head)}\r\n")


def said(status: str, body: bytes, lines: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """Reads requests and plays what it is told to: bytes to say, None to hang up, a number to wait for."""

    def __init__(self, play: Callable[[int], list[bytes | float | None]]) -> None:
        self.play, self.asked, self.opened = play, 0, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with_body = b"content-length: "
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(with_body)]
            await reader.readexactly(int(length.removeprefix(with_body)))
            self.asked += 1
            for act in self.play(self.asked):
                if act is None:
                    writer.close()
                    return
                if isinstance(act, float):
                    await asyncio.sleep(act)
                else:
                    writer.write(act)


@asynccontextmanager
async def talking(
    play: Callable[[int], list[bytes | float | None]],
) -> AsyncIterator[tuple[Inference, Server]]:
    server = Server(play)
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    inference = Inference(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    try:
        yield inference, server
    finally:
        await inference.close()
        listening.close()


async def ask(inference: Inference, timeout_s: float = 5.0) -> np.ndarray:
    return (await inference.infer("m", NUMBERS, ["X"], timeout_s))["X"]


async def test_connections_are_kept_and_as_many_as_calls_at_once() -> None:
    async with talking(lambda _: [0.01, good()]) as (inference, server):
        for _ in range(3):
            np.testing.assert_array_equal(await ask(inference), NUMBERS["X"])
        assert server.opened == 1
        await asyncio.gather(*(ask(inference) for _ in range(4)))
        assert server.opened == 4 and server.asked == 7


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing() -> None:
    async with talking(lambda asked: [good(), None] if asked == 1 else [good()]) as (inference, server):
        await ask(inference)
        np.testing.assert_array_equal(await ask(inference), NUMBERS["X"])
        assert server.opened == 2


async def test_a_server_that_goes_away_while_it_answers_is_unavailable() -> None:
    for play in ([None], [good()[:40], None], [good()[:-3], None]):
        async with talking(lambda _, play=play: play) as (inference, server):  # type: ignore[misc]
            with pytest.raises(EngineUnavailableError, match="do not answer"):
                await ask(inference)
            assert server.asked == 1  # a request that may have been worked on is not sent twice


async def test_nobody_there_is_unavailable_and_not_ready() -> None:
    async with talking(lambda _: [good()]) as (inference, _):
        pass
    with pytest.raises(EngineUnavailableError, match="do not answer"):
        await ask(inference)
    assert not await inference.ready("m", 1.0)


async def test_a_late_answer_is_not_taken_for_the_next_ones() -> None:
    late = said("200 OK", b'{"outputs": [{"name": "late"}]}')
    async with talking(lambda asked: [0.2, late] if asked == 1 else [good()]) as (inference, server):
        with pytest.raises(EngineLateError, match="in time"):
            await ask(inference, 0.05)
        np.testing.assert_array_equal(await ask(inference), NUMBERS["X"])
        assert server.opened == 2


@pytest.mark.parametrize(
    ("status", "details", "kind", "told"),
    [
        ("400 Bad Request", "QUERY: too long", UsageError, "^QUERY: too long$"),
        ("400 Bad Request", "in ensemble 'a--search', beams: too many", UsageError, "^beams: too many$"),
        ("400 Bad Request", "unexpected byte size mismatch", ServingError, "byte size mismatch"),
        ("404 Not Found", "unknown model", EngineUnavailableError, "do not answer: unknown model"),
        ("503 Service Unavailable", "generation 3 is gone", EngineUnavailableError, "generation 3 is gone"),
        ("500 Internal Server Error", "the reward failed", ServingError, "^the reward failed$"),
    ],
)
async def test_refusals_keep_their_reason(
    status: str, details: str, kind: type[Exception], told: str
) -> None:
    async with talking(lambda _: [said(status, b'{"error": "%s"}' % details.encode())]) as (inference, _):
        with pytest.raises(kind, match=told) as caught:
            await ask(inference)
        assert caught.type is kind


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        said("200 OK", b"<html>"),
        b"x" * 100_000,
    ],
)
async def test_something_else_at_the_address_is_said(answer: bytes) -> None:
    async with talking(lambda _: [answer, 0.1, None]) as (inference, _):
        with pytest.raises(ServingError):
            await ask(inference)


async def test_metadata_names_the_outputs() -> None:
    about = said("200 OK", b'{"name": "m", "outputs": [{"name": "PACKED"}, {"name": "SPENT"}]}')
    async with talking(lambda _: [about]) as (inference, _):
        assert await inference.outputs("m", 5.0) == ("PACKED", "SPENT")
