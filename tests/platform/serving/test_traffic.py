"""What a gateway tells Kafka: the checks, a spool without Kafka, and a real broker."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from onesearch.config import KafkaConfig, ServingConfig
from onesearch.errors import UsageError
from onesearch.events.messages import Interaction, now_us, read_interaction
from onesearch.events.publisher import Publisher
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Partition
from onesearch.kafka.opening import connect
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.client import AsyncClient, GatewayError
from onesearch.serving.deployment import Deployment, Lineup
from onesearch.serving.fallback import MostClicked
from onesearch.serving.gateway import Gateway
from onesearch.serving.pipeline import Pipeline
from onesearch.serving.requests import SearchRequest
from onesearch.serving.traffic import MAX_EVENTS, Traffic, check

NOBODY = "127.0.0.1:9"
CLICK = Interaction("e1", 1_700_000_000_000_000, "ann", "i3", "click", query="lamp", request_id="r1")


class Broken:
    """An engine that answers nothing: the gateway's answers are degraded."""

    release, beams = "toy", 32

    async def search(self, *_: Any) -> Any:
        from onesearch.serving.engine import EngineUnavailableError

        raise EngineUnavailableError("gone")

    async def ready(self, timeout_s: float = 0.5) -> bool:
        return False


def gateway_of(pipeline: Pipeline, traffic: Traffic | None) -> Gateway:
    table = ItemTable.of(pipeline.context.index)
    deployment = Deployment(Broken(), table, MostClicked(table))  # type: ignore[arg-type]
    return Gateway(Lineup(deployment), ServingConfig(), None, traffic)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"user_id": ""}, "event 1: user_id: empty"),
        ({"item_id": "x" * 300}, "event 1: item_id: longer than 256 bytes"),
        ({"query": "x" * 5000}, "event 1: query: longer than 4096 bytes"),
        ({"ts_us": -1}, "event 1: ts_us: -1 is not a time"),
        ({"ts_us": 4_000_000_000_000_000}, "event 1: ts_us: 4000000000000000 is not a time"),
        ({"propensity": 0.0}, r"event 1: propensity: 0.0 is not in \(0, 1\]"),
    ],
)
def test_what_a_log_would_refuse_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check([CLICK, CLICK._replace(**changes)])


def test_how_many_fit_into_a_report() -> None:
    check([CLICK] * MAX_EVENTS)
    for events in ([], [CLICK] * (MAX_EVENTS + 1)):
        with pytest.raises(UsageError, match="events: "):
            check(events)


async def test_without_kafka_reports_are_refused_and_searches_go_on(pipeline: Pipeline) -> None:
    gateway = gateway_of(pipeline, None)
    port = await gateway.start("127.0.0.1", 0)
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            assert (await client.search("lamp", user_id="ann")).hits
            with pytest.raises(GatewayError, match="--kafka") as refused:
                await client.report([CLICK])
            assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
            with pytest.raises(UsageError, match="asked_at_us"):
                await client.search("lamp", asked_at_us=10**18)
    finally:
        await gateway.stop(0)


async def test_while_kafka_is_away_events_wait_on_disk(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = KafkaConfig(servers=NOBODY, delivery_timeout_s=0.3)
    publisher = Publisher(connect(settings), Spool(tmp_path, 10**6), retry_s=0.2)
    traffic = Traffic(publisher, settings.interactions)
    gateway = gateway_of(pipeline, traffic)
    port = await gateway.start("127.0.0.1", 0)
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            began = time.monotonic()
            answer = await client.search("lamp", user_id="ann", k=3)
            assert time.monotonic() - began < 0.25
            assert await client.report([CLICK]) == "spooled"
            with pytest.raises(UsageError, match="event 0: item_id: empty"):
                await client.report([CLICK._replace(item_id="")])
            await client.search("lamp", k=3)  # of nobody: not logged
            status = await client.status()
            assert status.kafka_down and status.events_spooled == len(answer.hits) + 1
    finally:
        await gateway.stop(0)
        traffic.close()
    kept = [read_interaction(record.value) for record in Spool(tmp_path, 10**6).peek(100)]
    assert [event.action for event in kept] == ["impression"] * len(answer.hits) + ["click"]
    assert kept[-1] == CLICK
    shown = kept[:-1]
    assert [event.item_id for event in shown] == [hit.item_id for hit in answer.hits]
    assert {(event.request_id, event.release, event.query, event.user_id) for event in shown} == {
        (answer.request_id, "toy", "lamp", "ann")
    }
    assert [event.position for event in shown] == [0, 1, 2] and len({event.event_id for event in kept}) == 4
    assert abs(shown[0].ts_us - now_us()) < 60_000_000


@pytest.mark.e2e
async def test_a_real_broker_has_what_was_shown_and_reported(
    pipeline: Pipeline, kafka: KafkaConfig, tmp_path: Path
) -> None:
    settings = kafka.model_copy(update={"spool": str(tmp_path)})
    traffic = Traffic.open(settings, 0)
    gateway = gateway_of(pipeline, traffic)
    port = await gateway.start("127.0.0.1", 0)
    asked = SearchRequest("lamp", "ann", k=2, asked_at_us=1_700_000_000_000_000)
    try:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            answer = await client.search(asked)
            assert await client.report([CLICK], timeout_s=20) == "acknowledged"
            status = await client.status()
            assert (status.events_acknowledged, status.events_dropped, status.kafka_down) == (3, 0, False)
    finally:
        await gateway.stop(0)
        traffic.close()
    found: list[Interaction] = []
    with connect(kafka).consumer() as consumer:
        consumer.assign({Partition(kafka.interactions, at): 0 for at in (0, 1)})
        until = time.monotonic() + 20
        while len(found) < 3 and time.monotonic() < until:
            for fetched in consumer.poll(0.2, 100).values():
                found += [read_interaction(value) for value in fetched.values]
    assert [event.action for event in found] == ["impression", "impression", "click"]
    assert {event.ts_us for event in found[:2]} == {asked.asked_at_us}
    assert [event.item_id for event in found[:2]] == [hit.item_id for hit in answer.hits]
    assert replace(answer, hits=()).degraded
