"""The gateway over real gRPC, with the pipeline in this process as its engine."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onesearch.config import ServingConfig
from onesearch.contracts import ShopperState
from onesearch.errors import ArtifactError, ServingError, UsageError
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.client import AsyncClient, GatewayError, await_release
from onesearch.serving.conversion import answer_to
from onesearch.serving.deployment import Deployment, Lineup
from onesearch.serving.fallback import MostClicked
from onesearch.serving.gateway import MODELS, SERVICE, Gateway
from onesearch.serving.inference import EngineLateError, EngineUnavailableError
from onesearch.serving.load import overload
from onesearch.serving.lookups import Lookups
from onesearch.serving.pipeline import Pipeline
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.proto import onesearch_pb2_grpc as pb_grpc
from onesearch.serving.proto.onesearch_pb2 import SearchResponse
from onesearch.serving.requests import Encoding, Filters, SearchRequest
from onesearch.shoppers.state import Recent, Ring, item_key


class InProcess:
    """An engine that is not behind a server, and can be slow or broken."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.release, self.beams = pipeline, "toy", 32
        self.sleep_s = 0.0
        self.broken: Exception | None = None
        self.states: list[ShopperState] = []

    async def search(self, request: SearchRequest, state: ShopperState, timeout_s: float) -> SearchResponse:
        await self._work(timeout_s)
        self.states.append(state)
        return answer_to(self.pipeline.search(request, state))

    async def encode(self, texts: Sequence[str], timeout_s: float) -> tuple[Encoding, ...]:
        await self._work(timeout_s)
        vectors = self.pipeline.tokenizer.embed(texts)
        sids = self.pipeline.tokenizer.quantise(vectors).tolist()
        return tuple(
            Encoding(text, (), tuple(sid), ("",) * len(sid), vector)
            for text, sid, vector in zip(texts, sids, vectors, strict=True)
        )

    async def ready(self, timeout_s: float = 0.5) -> bool:
        return self.broken is None

    async def _work(self, timeout_s: float) -> None:
        if self.broken is not None:
            raise self.broken
        try:
            await asyncio.wait_for(asyncio.sleep(self.sleep_s), timeout_s)
        except TimeoutError as error:
            raise EngineLateError("late") from error


@asynccontextmanager
async def _running(
    pipeline: Pipeline, lookups: Lookups | None = None, **settings: Any
) -> AsyncIterator[tuple[AsyncClient, InProcess]]:
    engine = InProcess(pipeline)
    table = ItemTable.of(pipeline.context.index)
    deployment = Deployment(engine, table, MostClicked(table))  # type: ignore[arg-type]
    gateway = Gateway(Lineup(deployment), ServingConfig(**settings), lookups)
    port = await gateway.start("127.0.0.1", 0)
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            yield client, engine
    finally:
        await gateway.stop(0)


async def test_ten_times_too_much_is_turned_away_and_then_all_is_as_before(pipeline: Pipeline) -> None:
    async with _running(pipeline, max_in_flight=4) as (client, engine):
        engine.sleep_s = 0.5  # 8 searches a second at best
        lamp = [SearchRequest("lamp")]
        became = await overload(client.address, lamp, 80, 1.0, usual_ms=5_000, deadline_s=30)
        assert became.offered == became.answered + became.degraded + became.refused + became.late
        assert became.failed == 0 and became.refused > became.answered > 0
        assert became.normal_after_s is not None and became.normal_after_s < 15


async def test_who_will_not_wait_is_turned_away_while_many_wait(pipeline: Pipeline) -> None:
    async with _running(pipeline, max_in_flight=4) as (client, engine):
        engine.sleep_s = 2.0
        await asyncio.gather(*(client.search("lamp", timeout_s=30) for _ in range(3)))
        waiting = [asyncio.create_task(client.search("lamp", timeout_s=30)) for _ in range(3)]
        await asyncio.sleep(0.2)
        with pytest.raises(GatewayError, match=r"ms are left, and a search takes \d+ at present") as refused:
            await client.search("lamp", timeout_s=0.25)
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not any(answer.degraded for answer in await asyncio.gather(*waiting))
        engine.sleep_s = 0.0
        assert not (await client.search("lamp", timeout_s=30)).degraded
        assert (await client.status()).refused == 1


async def test_answers_are_those_of_the_pipeline(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, engine):
        answer = await client.search("red lamp", k=4, explain=True, user_id="somebody new")
        expected = pipeline.search(SearchRequest("red lamp", k=4, explain=True))
        assert answer.hits == expected.hits and answer.explanation == expected.explanation
        assert (answer.release, answer.generation, answer.degraded) == ("toy", 7, False)
        assert answer.request_id and answer.took_ms > 0
        assert engine.states == [ShopperState("somebody new")]


class Shoppers:
    """A state store in memory."""

    def __init__(self) -> None:
        ring = Ring(np.array([item_key("i3")], np.uint64), np.ones(1, np.uint32), np.zeros(1, np.uint8))
        self.ann = ShopperState("ann", ring, recent=(Recent("oak desk", item_key("i3"), 1),))
        self.trouble: Exception | None = None
        self.sleep_s = 0.0

    def get(self, user_id: str) -> ShopperState:
        time.sleep(self.sleep_s)
        if self.trouble is not None:
            raise self.trouble
        return self.ann if user_id == "ann" else ShopperState()


async def test_the_shopper_is_looked_up(pipeline: Pipeline) -> None:
    shoppers = Shoppers()
    async with _running(pipeline, Lookups("redis://x", 0.5, lambda _: shoppers)) as (client, engine):
        answer = await client.search("lamp", explain=True, user_id="ann")
        expected = pipeline.search(SearchRequest("lamp", explain=True), shoppers.ann)
        assert answer.hits == expected.hits and answer.explanation == expected.explanation
        told = answer.explanation and answer.explanation.shopper
        assert told is not None and [(one.query, one.item_id) for one in told.recent] == [("oak desk", "i3")]
        assert told.recent[0].title == pipeline.context.index.items["title"][3]
        for user_id in ("bob", ""):
            await client.search("lamp", user_id=user_id)
        await client.batch_search([SearchRequest("lamp", "ann"), SearchRequest("rug", "eve")])
        users = [state.user_id for state in engine.states]
        assert users[:3] == ["ann", "bob", ""] and sorted(users[3:]) == ["ann", "eve"]
        assert [state.known for state in engine.states[:3]] == [True, False, False]
        status = await client.status()
        assert (status.states_asked, status.states_known, status.states_failed) == (4, 2, 0)
        assert 0 < status.states_took_s < 1


async def test_a_store_that_fails_or_hangs_fails_no_search(pipeline: Pipeline) -> None:
    shoppers = Shoppers()
    async with _running(pipeline, Lookups("redis://x", 0.05, lambda _: shoppers)) as (client, engine):
        plain = await client.search("lamp")
        shoppers.trouble = ArtifactError("not a shopper's state")
        answer = await client.search("lamp", user_id="ann")
        assert answer.hits == plain.hits and not answer.degraded
        shoppers.trouble, shoppers.sleep_s = None, 0.3
        answer = await client.search("lamp", user_id="ann")
        assert answer.hits == plain.hits and not answer.degraded and answer.took_ms < 250
        assert engine.states[1:] == [ShopperState("ann")] * 2
        status = await client.status()
        assert (status.states_asked, status.states_failed, status.degraded) == (2, 2, 0)


async def test_ten_items_where_k_is_not_given(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        response = await client._stub.Search(pb.SearchRequest(query="lamp", request_id="mine"))
        assert len(response.hits) == 10 and response.request_id == "mine"


BAD = [
    ({"query": ""}, "query: empty"),
    ({"query": "x" * 100_000}, "query: longer"),
    ({"query": "a\x00b"}, "control character"),
    ({"query": "q", "k": 0}, "k: 0"),
    ({"query": "q", "k": 10_000}, "k: 10000"),
    ({"query": "q", "offset": 10_000}, "offset"),
    ({"query": "q", "beams": 0}, "beams"),
    ({"query": "q", "filters": Filters(min_price=float("inf"))}, "min_price"),
]


@pytest.mark.parametrize(("fields", "said"), BAD)
async def test_bad_requests_are_invalid_arguments(
    pipeline: Pipeline, fields: dict[str, Any], said: str
) -> None:
    async with _running(pipeline) as (client, engine):
        with pytest.raises(UsageError, match=said):
            await client.search(**fields)
        with pytest.raises(UsageError, match=f"request 1: .*{said}"):
            await client.batch_search([SearchRequest("fine"), SearchRequest(**fields)])
        assert engine.states == []  # nothing of a bad batch is begun


async def test_what_a_component_refuses_is_an_invalid_argument(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        with pytest.raises(UsageError, match="bad luck"):
            await client.search("lamp", beams=13)


async def test_settings_bound_requests(pipeline: Pipeline) -> None:
    async with _running(pipeline, max_k=20, max_query_bytes=16, max_batch=2) as (client, _):
        with pytest.raises(UsageError, match="k: 21 is not between 1 and 20"):
            await client.search("lamp", k=21)
        with pytest.raises(UsageError, match="longer than 16"):
            await client.search("x" * 17)
        with pytest.raises(UsageError, match="requests: 3"):
            await client.batch_search(["a", "b", "c"])
        with pytest.raises(UsageError, match="requests: 0"):
            await client.batch_search([])


async def test_batches_are_answered_in_order(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        queries = ["red lamp", "wool rug", "oak desk"]
        answers = await client.batch_search(queries, k=3)
        for query, answer in zip(queries, answers, strict=True):
            assert answer.hits == pipeline.search(SearchRequest(query, k=3)).hits


async def test_items_are_looked_up(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        found = await client.get_item("i3")
        assert found == ItemTable.of(pipeline.context.index).rows([3])[0]
        assert await client.get_item("nothing") is None
        with pytest.raises(UsageError, match="item_id: empty"):
            await client.get_item("")


async def test_texts_are_encoded(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, engine):
        bare, whole = await client.encode(["oak"]), await client.encode(["oak", "灯"], vectors=True)
        assert bare[0].sid == whole[0].sid and bare[0].vector.shape == (0,) and whole[1].vector.shape == (16,)
        for texts in ([], ["ok", ""]):
            with pytest.raises(UsageError):
                await client.encode(texts)
        engine.broken = EngineUnavailableError("down")
        with pytest.raises(GatewayError) as caught:
            await client.encode(["oak"])
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        engine.broken, engine.sleep_s = None, 5
        with pytest.raises(GatewayError) as caught:
            await client.encode(["oak"], timeout_s=0.2)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("trouble", [EngineUnavailableError("down"), ServingError("reward X failed")])
async def test_without_models_the_most_clicked_items_answer(pipeline: Pipeline, trouble: Exception) -> None:
    async with _running(pipeline) as (client, engine):
        engine.broken = trouble
        answer = await client.search("oak desk", k=3, explain=True)
        assert answer.degraded and answer.explanation is None and answer.release == "toy"
        assert all("oak" in hit.title and "desk" in hit.title for hit in answer.hits[:1])
        rugs = await client.search("rug", k=50, filters=Filters(category=("rug",), max_price=60.0))
        assert rugs.degraded and rugs.hits
        assert all("rug" in hit.category and (hit.price or 99) <= 60 for hit in rugs.hits)
        page = await client.search("oak desk", k=2, offset=1)
        assert [hit.item_id for hit in page.hits] == [hit.item_id for hit in answer.hits[1:]]
        status = await client.status()
        assert (status.models_ready, status.answered, status.degraded) == (False, 3, 3)
        engine.broken = None
        assert not (await client.search("oak desk")).degraded


async def test_a_near_deadline_gets_a_degraded_answer_in_time(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, engine):
        await client.search("oak desk")
        engine.sleep_s = 30
        started = asyncio.get_running_loop().time()
        answer = await client.search("oak desk", timeout_s=1.0)
        assert answer.degraded and asyncio.get_running_loop().time() - started < 1.0


async def test_our_own_deadline_holds_where_the_client_has_none(pipeline: Pipeline) -> None:
    async with _running(pipeline, deadline_ms=100) as (client, engine):
        engine.sleep_s = 5
        response = await asyncio.wait_for(client._stub.Search(pb.SearchRequest(query="lamp")), 2)
        assert response.degraded


async def test_no_time_at_all_is_deadline_exceeded(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, engine):
        await client.search("lamp")
        with pytest.raises(GatewayError) as caught:
            await client.search("lamp", timeout_s=0.0005)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(engine.states) == 1


async def test_too_many_at_once_are_turned_away_and_the_others_answered(pipeline: Pipeline) -> None:
    async with _running(pipeline, max_in_flight=3) as (client, engine):
        engine.sleep_s = 0.2
        results = await asyncio.gather(*(client.search("lamp") for _ in range(8)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, GatewayError)]
        assert len(refused) == 5
        assert {error.code for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        with pytest.raises(GatewayError, match="of 3 at most"):
            await client.batch_search(["a", "b", "c", "d"])
        status = await client.status()
        assert (status.in_flight, status.answered, status.refused) == (0, 3, 9)
        assert not (await client.search("lamp")).degraded


async def test_health_and_reflection(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        health = health_pb2_grpc.HealthStub(client._channel)
        for name in ("", SERVICE):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service=MODELS))  # nobody has told yet
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        stub = reflection_pb2_grpc.ServerReflectionStub(client._channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        replies = [reply async for reply in stub.ServerReflectionInfo(iter(asked))]
        assert SERVICE in {one.name for one in replies[0].list_services_response.service}


async def test_every_search_leaves_a_line(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "onesearch.requests")
    async with _running(pipeline) as (client, engine):
        answer = await client.search("红色 台灯", k=2, user_id="u1")
        engine.broken = EngineUnavailableError("down")
        await client.search("lamp")
    first, second = (
        json.loads(record.message) for record in caplog.records if record.name == "onesearch.requests"
    )
    assert first["request_id"] == answer.request_id and first["query"] == "红色 台灯" and first["hits"] == 2
    assert (first["user_id"], first["release"], first["generation"], first["degraded"]) == (
        "u1",
        "toy",
        7,
        False,
    )
    assert second["degraded"] and second["why"] == "down"


async def test_waiting_for_a_release(pipeline: Pipeline) -> None:
    async with _running(pipeline) as (client, _):
        address = client.address
        await asyncio.to_thread(await_release, [address, address], "toy", 5.0)
        with pytest.raises(ServingError, match=r"answers with toy, not with other, after 0\.3 s"):
            await asyncio.to_thread(await_release, [address], "other", 0.3)


async def test_waiting_for_a_release_that_does_not_load(pipeline: Pipeline) -> None:
    table = ItemTable.of(pipeline.context.index)
    deployment = Deployment(InProcess(pipeline), table, MostClicked(table))  # type: ignore[arg-type]
    gateway = Gateway(Lineup(deployment), ServingConfig())
    gateway.problem = "release other: no weights"
    port = await gateway.start("127.0.0.1", 0)
    try:
        with pytest.raises(ServingError, match=r"goes on with toy, and will try again: .* no weights"):
            await asyncio.to_thread(await_release, [f"127.0.0.1:{port}"], "other", 60.0)
    finally:
        await gateway.stop(0)


async def test_a_gateway_that_is_not_there(pipeline: Pipeline) -> None:
    async with AsyncClient("127.0.0.1:9", timeout_s=2) as client:
        with pytest.raises(GatewayError, match=r"no gateway answers at 127\.0\.0\.1:9") as caught:
            await client.search("lamp")
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_the_client_tries_again_when_a_gateway_is_unavailable() -> None:
    class Shaky(pb_grpc.OneSearchServicer):
        calls = 0

        async def GetItem(self, request: pb.GetItemRequest, context: Any) -> pb.Item:  # noqa: N802
            self.calls += 1
            if self.calls < 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
            return pb.Item(item_id=request.item_id)

    server, shaky = grpc.aio.server(), Shaky()
    pb_grpc.add_OneSearchServicer_to_server(shaky, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            found = await client.get_item("i1")
            assert found is not None and found.item_id == "i1" and shaky.calls == 3
    finally:
        await server.stop(0)


async def test_explored_places_tell_their_propensity(pipeline: Pipeline) -> None:
    ranking = pipeline.search(SearchRequest("red lamp", k=24)).hits
    async with _running(pipeline, explore=0.5, explore_depth=20) as (client, _):
        places: set[bool] = set()
        for number in range(20):
            message = pb.SearchRequest(query="red lamp", k=4, request_id=f"r{number}")
            hits = (await client._stub.Search(message)).hits
            assert [hit.rank for hit in hits] == [1, 2, 3, 4]
            for hit, stood in zip(hits, ranking, strict=False):
                moved = hit.item.item_id != stood.item_id
                assert hit.propensity == pytest.approx(0.5 / 20 if moved else 0.5)
                places.add(moved)
            assert hits == (await client._stub.Search(message)).hits
        assert places == {True, False}
        plain = await client.search("red lamp", k=4, offset=4)
        assert [hit.item_id for hit in plain.hits] == [hit.item_id for hit in ranking[4:8]]
        assert {hit.propensity for hit in plain.hits} == {1.0}


async def test_a_challenger_answers_whom_the_hash_draws(pipeline: Pipeline) -> None:
    table = ItemTable.of(pipeline.context.index)
    champion, challenger = (
        Deployment(InProcess(pipeline), table, MostClicked(table))  # type: ignore[arg-type]
        for _ in range(2)
    )
    lineup = Lineup(champion, challenger, 0.25, "salt")
    users = [f"u{number}" for number in range(4_000)]
    drawn = [user for user in users if lineup.pick(user, "any") is challenger]
    assert abs(len(drawn) - 1_000) < 110  # four standard deviations
    assert all(lineup.pick(user, "other") is challenger for user in drawn)
    wider = Lineup(champion, challenger, 0.5, "salt")
    assert all(wider.pick(user, "") is challenger for user in drawn)
    other = Lineup(champion, challenger, 0.25, "another salt")
    both = sum(other.pick(user, "") is challenger for user in drawn)
    assert abs(both - 250) < 60  # of another comparison, drawn independently
    anonymous = [lineup.pick("", request) is challenger for request in users]
    assert abs(sum(anonymous) - 1_000) < 110
    assert all(lineup.only_champion().pick(user, "") is champion for user in drawn)
