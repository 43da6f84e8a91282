"""The gateway: what shops call. Checks, admits, asks the models, and answers without them if need be."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from dataclasses import replace
from typing import Any, NoReturn

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from onesearch.config import ServingConfig
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.events.proto.reporting_pb2_grpc import add_EventsServicer_to_server
from onesearch.live_tree import Candidates
from onesearch.serving import conversion, paging, steps
from onesearch.serving.deployment import Deployment, Lineup
from onesearch.serving.exploration import Exploration
from onesearch.serving.inference import EngineLateError, EngineUnavailableError
from onesearch.serving.lookups import Lookups, Tally
from onesearch.serving.pace import Pace
from onesearch.serving.paging import Page
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.proto import onesearch_pb2_grpc as pb_grpc
from onesearch.serving.reporting import Reporter
from onesearch.serving.requests import Hit, Limits, SearchAnswer, SearchRequest, check_query

SERVICE = pb.DESCRIPTOR.services_by_name["OneSearch"].full_name
MODELS = "onesearch.models"
"""Under this name the health service tells whether the models answer; the gateway does either way."""
REQUESTS = logging.getLogger("onesearch.requests")
_LOG = logging.getLogger("onesearch.gateway")

# Share of the time left that is kept back to answer without the models and to send it, within these bounds;
# with less than the last even that is too late.
_RESERVE, _RESERVE_MIN_S, _RESERVE_MAX_S = 0.15, 0.010, 0.200
_TOO_LATE_S = 0.002
# Of the searches that may be under way, so many are let in however little time they have: without the models
# there is an answer for each of them.
_ALWAYS = 1 / 16
_MAX_MESSAGE = 4 * 1024 * 1024
_MAX_REQUEST_ID = 128
_IDS = random.Random()  # seeded by the system, once; asking it for each id costs more than the rest of the id
_NOBODY = ShopperState()


class Gateway(pb_grpc.OneSearchServicer):
    """The service ``onesearch.v1.OneSearch`` over the models of the releases in a line-up.

    A request is answered wholly by the deployment that it began with. :attr:`lineup` may be replaced at any
    time: later requests go by the new one.
    """

    def __init__(
        self,
        lineup: Lineup,
        settings: ServingConfig,
        lookups: Lookups | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.lineup = lineup
        self.problem = ""  # what is wrong with a release that should answer and does not
        self.settings = settings
        self.lookups = lookups
        self.reporter = reporter
        self.exploration = Exploration(settings.explore, settings.explore_depth)
        self.limits = Limits(query_bytes=settings.max_query_bytes, k=settings.max_k)
        self.health = HealthServicer()
        self._started = time.monotonic()
        self._in_flight = self._answered = self._degraded = self._refused = 0
        self._pace = Pace()
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises ServingError where that is not possible."""
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # a second gateway on the same port is a mistake, not a feature
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ]
        )
        pb_grpc.add_OneSearchServicer_to_server(self, server)
        if self.reporter is not None:
            add_EventsServicer_to_server(self.reporter, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection(
            (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        try:
            bound = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ServingError(f"the gateway cannot listen on {host}:{port} ({error})") from error
        await server.start()
        self._server = server
        for name in ("", SERVICE):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return int(bound)

    async def tell_models(self, ready: bool) -> None:
        """Let the health service know whether the models answer."""
        kinds = health_pb2.HealthCheckResponse
        await self.health.set(MODELS, kinds.SERVING if ready else kinds.NOT_SERVING)

    async def stop(self, grace_s: float = 2.0) -> None:
        """Take no more requests, finish those under way, stop."""
        if self._server is not None:
            await self.health.enter_graceful_shutdown()
            await self._server.stop(grace_s)

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:  # noqa: N802
        """One search."""
        async with _Admission(self, context, 1):  # first: what is turned away should cost next to nothing
            asked = await self._checked(request, context, "")
            return await self._answer(asked, request.request_id, context)

    async def BatchSearch(  # noqa: N802
        self, request: pb.BatchSearchRequest, context: Any
    ) -> pb.BatchSearchResponse:
        """Several searches side by side."""
        count = len(request.requests)
        if not 1 <= count <= self.settings.max_batch:
            await _refuse(context, f"requests: {count}, where 1 to {self.settings.max_batch} are possible")
        asked = [
            await self._checked(one, context, f"request {at}: ") for at, one in enumerate(request.requests)
        ]
        async with _Admission(self, context, count):
            answers = await asyncio.gather(
                *(
                    self._answer(one, message.request_id, context)
                    for one, message in zip(asked, request.requests, strict=True)
                )
            )
        return pb.BatchSearchResponse(responses=answers)

    async def GetItem(self, request: pb.GetItemRequest, context: Any) -> pb.Item:  # noqa: N802
        """One item of the catalogue."""
        if not request.item_id:
            await _refuse(context, "item_id: empty")
        deployment = self.lineup.champion
        table = deployment.table
        number = table.number(request.item_id)
        if number is None:
            await _abort(context, grpc.StatusCode.NOT_FOUND, f"no item has the id {request.item_id[:80]!r}")
        row = table.rows([number])[0]
        return conversion.item_to(row, deployment.name, table.generation)

    async def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:  # noqa: N802
        """What the tokenizer makes of texts."""
        if not 1 <= len(request.texts) <= self.settings.max_batch:
            await _refuse(
                context, f"texts: {len(request.texts)}, where 1 to {self.settings.max_batch} are possible"
            )
        try:
            for text in request.texts:
                check_query(text, self.limits.query_bytes)
        except UsageError as error:
            await _refuse(context, str(error))
        async with _Admission(self, context, 1):
            left = await self._time_left(context)
            deployment = self.lineup.champion
            try:
                with deployment.working():
                    encodings = await deployment.engine.encode(list(request.texts), left - _reserve(left))
            except UsageError as error:
                await _refuse(context, str(error))
            except EngineLateError as error:
                await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
            except EngineUnavailableError as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
            except ServingError as error:
                await _abort(context, grpc.StatusCode.INTERNAL, str(error))
        return pb.EncodeResponse(
            encodings=[conversion.encoding_to(one, request.vectors) for one in encodings],
            release=deployment.name,
        )

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: N802
        """What is being served, and how it goes."""
        shoppers = self.lookups.tally if self.lookups else Tally()
        lineup = self.lineup
        champion, challenger = lineup.champion, lineup.challenger
        return pb.StatusResponse(
            release=champion.name,
            generation=champion.table.generation,
            items=champion.table.live_count,
            models_ready=await champion.engine.ready(),
            in_flight=self._in_flight,
            answered=self._answered,
            degraded=self._degraded,
            refused=self._refused,
            uptime_s=time.monotonic() - self._started,
            default_beams=champion.engine.beams,
            max_k=self.limits.k,
            states_asked=shoppers.asked,
            states_known=shoppers.known,
            states_failed=shoppers.failed,
            states_took_s=shoppers.took_s,
            challenger=challenger.name if challenger else "",
            challenger_share=lineup.share,
            problem=self.problem,
        )

    async def _checked(self, message: pb.SearchRequest, context: Any, where: str) -> SearchRequest:
        try:
            if len(message.request_id) > _MAX_REQUEST_ID:
                raise UsageError(f"request_id: longer than {_MAX_REQUEST_ID} characters")
            request = conversion.request_from(message)
            self.limits.check(request)
            return paging.turned(request, self.limits) if request.page_token else request
        except UsageError as error:
            await _refuse(context, f"{where}{error}")

    async def _time_left(self, context: Any) -> float:
        """Seconds until the client's deadline or ours; aborts when that is too little for anything."""
        left: float | None = context.time_remaining()
        left = self.settings.deadline_ms / 1000 if left is None else left
        if left < _TOO_LATE_S:
            await _too_late(context)
        return left

    async def _answer(self, request: SearchRequest, request_id: str, context: Any) -> pb.SearchResponse:
        """Ask one release's models; without them in time, answer with what is most clicked."""
        request_id = request_id or f"{_IDS.getrandbits(128):032x}"
        with self.lineup.pick(request.user_id, request_id).working() as deployment:
            return await self._answer_of(deployment, request, request_id, context)

    async def _answer_of(
        self, deployment: Deployment, request: SearchRequest, request_id: str, context: Any
    ) -> pb.SearchResponse:
        started = time.perf_counter()
        left = await self._time_left(context)
        why = ""
        request, moved = _placed(deployment, request)
        try:
            state = await self._state(request.user_id, left)
            left -= time.perf_counter() - started
            if left <= _RESERVE_MIN_S:
                raise EngineLateError("the deadline is too near to ask the models")
            until = time.perf_counter() + left - _reserve(left)
            try:
                answer = await self._ranked(deployment, request, request_id, state, left - _reserve(left))
            except EngineUnavailableError:
                left = until - time.perf_counter()
                if request.generation == deployment.generation or left <= _RESERVE_MIN_S:
                    raise
                # What the page began under has been let go of meanwhile.
                request, moved = replace(request, generation=deployment.generation), True
                answer = await self._ranked(deployment, request, request_id, state, left)
        except UsageError as error:
            await _refuse(context, str(error))
        except ServingError as error:
            why = str(error)
            if not isinstance(error, EngineLateError | EngineUnavailableError):
                _LOG.error("a search failed: %s", why)
            if isinstance(error, EngineLateError):
                self._pace.ended(started, answered=False)
            answer = conversion.answer_to(_most_clicked(deployment, request))
            self._degraded += 1
        self._answered += 1
        shown = [hit.item.item_id for hit in answer.hits]
        page = Page.after(request, answer.release, answer.generation, shown, self.limits)
        answer.request_id, answer.next_page, answer.moved = request_id, page.pack() if page else "", moved
        took_s = time.perf_counter() - started
        answer.took_ms = 1000 * took_s
        if not answer.degraded:
            self._pace.ended(started, answered=True)
        _log_request(request, answer, why)
        if self.reporter is not None:
            self.reporter.shown(request, answer)
        return answer

    async def _ranked(
        self,
        deployment: Deployment,
        request: SearchRequest,
        request_id: str,
        state: ShopperState,
        left_s: float,
    ) -> pb.SearchResponse:
        """What the models answer, with some places explored where that is set."""
        if not self.exploration.applies(request):
            return await deployment.engine.search(request, state, left_s)
        widened = await deployment.engine.search(self.exploration.widened(request), state, left_s)
        answer = conversion.answer_from(widened)
        hits = self.exploration.draw(answer.hits, request.k, request_id)
        return conversion.answer_to(replace(answer, hits=hits))

    async def _state(self, user_id: str, left_s: float) -> ShopperState:
        """What is known of who asks; without an answer in time, nothing."""
        if self.lookups is not None:
            return await self.lookups.of(user_id, left_s)
        return ShopperState(user_id) if user_id else _NOBODY


class _Admission:
    """Takes in ``count`` searches, or turns them away while too many are under way.

    Before that it turns away who will not wait until the models get to them: worked on for nothing, one that
    comes too late makes the next ones late.
    """

    def __init__(self, gateway: Gateway, context: Any, count: int) -> None:
        self._gateway, self._context, self._count = gateway, context, count

    async def __aenter__(self) -> None:
        gateway, most = self._gateway, self._gateway.settings.max_in_flight
        left: float | None = self._context.time_remaining()
        if left is not None and left < _TOO_LATE_S:
            await _too_late(self._context)
        if gateway._in_flight + self._count > most:
            await self._turn_away(f"{gateway._in_flight} searches are under way, of {most} at most")
        wait_s = gateway._pace.wait_s(gateway._in_flight + self._count)
        if left is not None and left - _reserve(left) < wait_s and gateway._in_flight >= _ALWAYS * most:
            await self._turn_away(
                f"{1000 * left:.0f} ms are left, and a search takes {1000 * wait_s:.0f} at present"
            )
        gateway._in_flight += self._count

    async def __aexit__(self, *exc: object) -> None:
        self._gateway._in_flight -= self._count

    async def _turn_away(self, why: str) -> NoReturn:
        self._gateway._refused += self._count
        await _abort(self._context, grpc.StatusCode.RESOURCE_EXHAUSTED, why)


def _most_clicked(deployment: Deployment, request: SearchRequest) -> SearchAnswer:
    table = deployment.table
    found = deployment.fallback.items(request.query, table.passing(request.filters))
    candidates = Candidates(found[None].astype(np.int32), np.zeros((1, len(found)), np.float32))
    hidden = steps.seen(table.items, candidates, 0, request.shown)
    if hidden is not None:
        found = found[~hidden]
    hits = tuple(
        Hit(request.before + at + 1, *row, score=0.0, log_prob=0.0, parts={})
        for at, row in enumerate(table.rows(found[request.offset : request.offset + request.k]))
    )
    return SearchAnswer(hits, deployment.name, table.generation, degraded=True)


def _placed(deployment: Deployment, request: SearchRequest) -> tuple[SearchRequest, bool]:
    """The request with the generation to answer it under, and whether its page began under another."""
    if not request.page_token:
        return replace(request, generation=deployment.generation), False
    page = Page.unpack(request.page_token)
    if page.release == deployment.name and page.generation in deployment.kept:
        return replace(request, generation=page.generation), False
    return replace(request, generation=deployment.generation), True


def _reserve(left_s: float) -> float:
    return min(max(_RESERVE * left_s, _RESERVE_MIN_S), _RESERVE_MAX_S)


async def _abort(context: Any, code: grpc.StatusCode, why: str) -> NoReturn:
    """End the call with a status. ``context.abort`` raises, which the type checker has to be told."""
    await context.abort(code, why)
    raise AssertionError


async def _too_late(context: Any) -> NoReturn:
    await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "too little time is left for any answer")


async def _refuse(context: Any, why: str) -> NoReturn:
    await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, why)


def _log_request(request: SearchRequest, answer: pb.SearchResponse, why: str) -> None:
    """One line of JSON a search."""
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {
        "ts": round(time.time(), 3),
        "request_id": answer.request_id,
        "query": request.query,
        "user_id": request.user_id,
        "k": request.k,
        "offset": request.offset,
        "hits": len(answer.hits),
        "release": answer.release,
        "generation": answer.generation,
        "degraded": answer.degraded,
        "took_ms": round(answer.took_ms, 2),
    }
    if why:
        line["why"] = why
    REQUESTS.info(json.dumps(line, ensure_ascii=False))
