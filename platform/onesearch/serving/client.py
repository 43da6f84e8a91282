"""Python clients of the gateway, typed, blocking and asynchronous.

.. code-block:: python

    with Client("127.0.0.1:50051") as client:
        for hit in client.search("oak desk", k=5).hits:
            print(hit.title, hit.price)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import grpc
import grpc.aio

from onesearch.errors import OneSearchError, ServingError, UsageError
from onesearch.events.messages import ANONYMOUS, Interaction, new_event_id, now_us, write_interaction
from onesearch.events.proto import events_pb2, reporting_pb2
from onesearch.events.proto.reporting_pb2_grpc import EventsStub
from onesearch.events.publisher import Fate, PublisherTally
from onesearch.serving import conversion
from onesearch.serving.catalogue import ItemRow
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.proto import onesearch_pb2_grpc as pb_grpc
from onesearch.serving.requests import Encoding, SearchAnswer, SearchRequest

_LOOK_EVERY_S = 0.1
# Every call only reads, or names its events by id, so that trying again does no harm.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "onesearch.v1.OneSearch"}, {"service": "onesearch.events.v1.Events"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


class GatewayError(ServingError):
    """The gateway did not answer as asked.

    Attributes:
        code: the gRPC status, for callers that act on it (RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED …).
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class GatewayStatus:
    """What a gateway says of itself; see ``StatusResponse`` in the protocol."""

    release: str
    generation: int
    items: int
    models_ready: bool
    in_flight: int
    answered: int
    degraded: int
    refused: int
    uptime_s: float
    default_beams: int
    max_k: int
    states_asked: int
    states_known: int
    states_failed: int
    states_took_s: float
    challenger: str
    challenger_share: float
    problem: str


class Client:
    """Blocking client; one channel, safe to share between threads."""

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._stub: Any = pb_grpc.OneSearchStub(self._channel)
        self._events: Any = EventsStub(self._channel)

    def search(
        self, query: str | SearchRequest, timeout_s: float | None = None, **fields: Any
    ) -> SearchAnswer:
        """One search: a :class:`SearchRequest`, or a query with its fields as keywords.

        Raises:
            UsageError: the request is out of bounds; the message names the field.
            GatewayError: anything else; ``code`` says what.
        """
        message = conversion.request_to(_request(query, fields))
        return conversion.answer_from(self._call(self._stub.Search, message, timeout_s))

    def batch_search(
        self, requests: Sequence[str | SearchRequest], timeout_s: float | None = None, **fields: Any
    ) -> list[SearchAnswer]:
        """Several searches at once, answered in their order; raises as :meth:`search` does."""
        message = _batch(requests, fields)
        responses = self._call(self._stub.BatchSearch, message, timeout_s).responses
        return [conversion.answer_from(response) for response in responses]

    def get_item(self, item_id: str, timeout_s: float | None = None) -> ItemRow | None:
        """One item of the catalogue; None when it has no such item."""
        try:
            message = pb.GetItemRequest(item_id=item_id)
            return conversion.item_from(self._call(self._stub.GetItem, message, timeout_s))
        except GatewayError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def encode(
        self, texts: Sequence[str], vectors: bool = False, timeout_s: float | None = None
    ) -> list[Encoding]:
        """Keywords and semantic IDs of texts; raises as :meth:`search` does."""
        message = pb.EncodeRequest(texts=texts, vectors=vectors)
        encodings = self._call(self._stub.Encode, message, timeout_s).encodings
        return [conversion.encoding_from(encoding) for encoding in encodings]

    def report(self, *reported: Interaction, timeout_s: float | None = None) -> Fate:
        """Tell what shoppers did; see :func:`interaction`. Events reported twice count once.

        Returns ``acknowledged`` where Kafka has all of it, ``spooled`` where the gateway keeps it on its disk
        until Kafka answers. Raises UsageError where a field does not fit, GatewayError where the events could
        not be kept (RESOURCE_EXHAUSTED) or the gateway takes none (UNIMPLEMENTED).
        """
        return _fate(self._call(self._events.Report, _report(reported), timeout_s))

    def events(self, timeout_s: float | None = None) -> PublisherTally:
        """What became of the gateway's events since it started."""
        return _tally(self._call(self._events.Tally, reporting_pb2.TallyRequest(), timeout_s))

    def status(self, timeout_s: float | None = None) -> GatewayStatus:
        """What the gateway serves, and how it goes."""
        return _status(self._call(self._stub.Status, pb.StatusRequest(), timeout_s))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, method: Any, message: Any, timeout_s: float | None) -> Any:
        try:
            return method(message, timeout=self.timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise _translated(error, self.address) from error


class AsyncClient:
    """Asynchronous client with the calls of :class:`Client`."""

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, _OPTIONS)
        self._stub: Any = pb_grpc.OneSearchStub(self._channel)
        self._events: Any = EventsStub(self._channel)

    async def search(
        self, query: str | SearchRequest, timeout_s: float | None = None, **fields: Any
    ) -> SearchAnswer:
        """One search; see :meth:`Client.search`."""
        message = conversion.request_to(_request(query, fields))
        return conversion.answer_from(await self._call(self._stub.Search, message, timeout_s))

    async def batch_search(
        self, requests: Sequence[str | SearchRequest], timeout_s: float | None = None, **fields: Any
    ) -> list[SearchAnswer]:
        """Several searches at once; see :meth:`Client.batch_search`."""
        message = _batch(requests, fields)
        responses = (await self._call(self._stub.BatchSearch, message, timeout_s)).responses
        return [conversion.answer_from(response) for response in responses]

    async def get_item(self, item_id: str, timeout_s: float | None = None) -> ItemRow | None:
        """One item of the catalogue; None when it has no such item."""
        try:
            message = pb.GetItemRequest(item_id=item_id)
            return conversion.item_from(await self._call(self._stub.GetItem, message, timeout_s))
        except GatewayError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def encode(
        self, texts: Sequence[str], vectors: bool = False, timeout_s: float | None = None
    ) -> list[Encoding]:
        """Keywords and semantic IDs of texts."""
        message = pb.EncodeRequest(texts=texts, vectors=vectors)
        encodings = (await self._call(self._stub.Encode, message, timeout_s)).encodings
        return [conversion.encoding_from(encoding) for encoding in encodings]

    async def report(self, *reported: Interaction, timeout_s: float | None = None) -> Fate:
        """Tell what shoppers did; see :meth:`Client.report`."""
        return _fate(await self._call(self._events.Report, _report(reported), timeout_s))

    async def events(self, timeout_s: float | None = None) -> PublisherTally:
        """What became of the gateway's events since it started."""
        return _tally(await self._call(self._events.Tally, reporting_pb2.TallyRequest(), timeout_s))

    async def status(self, timeout_s: float | None = None) -> GatewayStatus:
        """What the gateway serves, and how it goes."""
        return _status(await self._call(self._stub.Status, pb.StatusRequest(), timeout_s))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _call(self, method: Any, message: Any, timeout_s: float | None) -> Any:
        try:
            return await method(message, timeout=self.timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise _translated(error, self.address) from error


def await_release(gateways: Sequence[str], release: str, timeout_s: float) -> None:
    """Wait until every gateway answers with a release.

    Raises:
        ServingError: one does not in time, or says that it cannot; the message says which and why.
    """
    until = time.monotonic() + timeout_s
    for address in gateways:
        with Client(address) as client:
            while True:
                status = client.status()
                if status.release == release:
                    break
                if f"release {release}: " in status.problem:
                    raise ServingError(
                        f"the gateway at {address} goes on with {status.release}, and will try again:"
                        f" {status.problem}"
                    )
                if time.monotonic() > until:
                    raise ServingError(
                        f"the gateway at {address} answers with {status.release}, not with {release}, after"
                        f" {timeout_s:g} s"
                    )
                time.sleep(_LOOK_EVERY_S)


def interaction(
    action: str,
    item_id: str,
    user_id: str = "",
    query: str = "",
    request_id: str = "",
    position: int | None = None,
    scene: str = "search",
    **fields: Any,
) -> Interaction:
    """Something a shopper did just now, to be reported.

    Args:
        action: ``click``, ``order`` or ``impression``.
        item_id: of which item.
        user_id: who; where it is not known, ``request_id`` is needed.
        query: what was searched for.
        request_id, position: of the answer that showed the item; the first position is 0.
        scene: ``search`` or ``recommend``.
        fields: others of an :class:`~onesearch.events.messages.Interaction`.
    """
    given = {
        "event_id": new_event_id(), "ts_us": now_us(), "user_id": user_id or ANONYMOUS + request_id,
        "item_id": item_id, "action": action, "scene": scene, "query": query or None,
        "request_id": request_id or None, "position": position,
    }  # fmt: skip
    return Interaction(**{**given, **fields})


def _report(reported: Sequence[Interaction]) -> reporting_pb2.ReportRequest:
    messages = [events_pb2.Interaction.FromString(write_interaction(one)) for one in reported]
    return reporting_pb2.ReportRequest(interactions=messages)


def _fate(response: reporting_pb2.ReportResponse) -> Fate:
    return "spooled" if response.fate == reporting_pb2.SPOOLED else "acknowledged"


def _tally(response: reporting_pb2.TallyResponse) -> PublisherTally:
    names = PublisherTally.__dataclass_fields__
    return PublisherTally(**{name: getattr(response, name) for name in names})


def _request(query: str | SearchRequest, fields: dict[str, Any]) -> SearchRequest:
    return replace(query, **fields) if isinstance(query, SearchRequest) else SearchRequest(query, **fields)


def _batch(requests: Iterable[str | SearchRequest], fields: dict[str, Any]) -> pb.BatchSearchRequest:
    messages = [conversion.request_to(_request(request, fields)) for request in requests]
    return pb.BatchSearchRequest(requests=messages)


def _status(response: pb.StatusResponse) -> GatewayStatus:
    names = GatewayStatus.__dataclass_fields__
    return GatewayStatus(**{name: getattr(response, name) for name in names})


def _translated(error: Any, address: str) -> OneSearchError:
    code, details = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return UsageError(details)
        case grpc.StatusCode.UNAVAILABLE:
            return GatewayError(code, f"no gateway answers at {address} ({details})")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return GatewayError(code, f"the gateway at {address} did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED if "Events" in details or "Method not found" in details:
            return GatewayError(code, f"the gateway at {address} takes no events: serve it with --kafka")
        case _:
            return GatewayError(code, details)
