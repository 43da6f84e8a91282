"""What is shown and done goes through the real gateway and the real Kafka into log and states."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest
from onesearch.cli.main import main
from onesearch.config import KafkaConfig
from onesearch.errors import UsageError
from onesearch.kafka.broker import create_topics
from onesearch.kafka.opening import connect
from onesearch.serving.client import AsyncClient, Client, GatewayError, interaction
from onesearch.shoppers.opening import open_states

pytestmark = pytest.mark.e2e
FRESH_S = 5.0
"""Within which a new item is searchable."""


@pytest.fixture(scope="module")
def topics(broker: Any) -> KafkaConfig:
    """The topics of the configuration: a gateway knows them by name."""
    settings = KafkaConfig(servers=broker.servers)
    with connect(settings).admin() as admin:
        create_topics(admin, settings, partitions=2)
    return settings


@dataclass
class Shop:
    """A gateway that tells Kafka, and where the consumer of its events shall write."""

    served: Any
    folder: Path
    states: str

    @property
    def catalogue(self) -> Path:
        """The live catalogue that the gateway serves."""
        return self.folder / "live"


@pytest.fixture(scope="module")
def shop(serve: Any, toy: Any, topics: KafkaConfig, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    states = f"lmdb:{folder / 'states'}"
    open_states(states).close()
    options = ("--kafka", topics.servers, "--spool", str(folder / "spool"), "--states", states)
    return Shop(serve(toy.fast, *options, "--catalogue", str(folder / "live")), folder, states)


def until(true: Callable[[], bool], patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def _changed(client: Client, topics: KafkaConfig, folder: Path, title: str) -> float:
    """Seconds from sending a message of a new item until it is found; it is withdrawn afterwards."""
    item_id, file = f"new {title}", folder / "changes.jsonl"

    def found() -> bool:
        return item_id in [hit.item_id for hit in client.search(f"chartreuse {title}", k=50).hits]

    def send(change: dict[str, Any]) -> None:
        file.write_text(json.dumps({"item_id": item_id, **change}), encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["ingest", "send", str(file), "--kafka", topics.servers, "--json"])
        assert ended.value.code in (0, None)

    assert not found()
    started = time.monotonic()
    send({"title": f"chartreuse {title}", "category": ["home", "new"], "price": 9})
    until(found)
    took = time.monotonic() - started
    send({"action": "withdraw"})
    until(lambda: not found())
    return took


def test_an_event_is_seen_by_the_next_search_within_a_second(
    shop: Shop, topics: KafkaConfig, broker: Any
) -> None:
    folder, states, served = shop.folder, shop.states, shop.served
    consumer = subprocess.Popen(
        [
            sys.executable, "-m", "onesearch.cli.main", "ingest", "run", "--kafka", topics.servers,
            "--log", folder / "log", "--states", states, "--catalogue", shop.catalogue, "--json",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with Client(served.address) as client:

            def seen() -> list[str]:
                told = client.search("oak lamp", user_id="zoe", explain=True).explanation
                return (
                    []
                    if told is None or told.shopper is None
                    else [one.item_id for one in told.shopper.recent]
                )

            answer = client.search("desk", user_id="zoe", k=5)
            clicked = interaction("click", answer.hits[1].item_id, "zoe", "desk", answer.request_id, 1)
            assert client.report(clicked) == "acknowledged"
            until(lambda: clicked.item_id in seen(), 40)  # the consumer may still be starting
            took = []
            for hit in answer.hits[2:]:
                event = interaction("click", hit.item_id, "zoe", "desk", answer.request_id, hit.rank - 1)
                started = time.monotonic()
                assert client.report(event, event) == "acknowledged"
                until(lambda item_id=hit.item_id: item_id in seen())  # type: ignore[misc]
                took.append(time.monotonic() - started)
            assert min(took) < 1.0, took
            anonymous = client.search("lamp", k=3, asked_at_us=1_700_000_000_000_000)
            assert (
                client.report(interaction("order", "i1", request_id=anonymous.request_id)) == "acknowledged"
            )
            # A change of the catalogue goes by its topic: an item comes, and is gone again.
            took = [_changed(client, topics, folder, title) for title in ("velvet ottoman", "velvet mirror")]
            print(f"\na message of the catalogue's topic was searchable after {max(took):.2f} s")
            assert max(took) < FRESH_S, took
            # With Kafka away searches go on, and what they show waits on disk.
            broker.stop()
            started = time.monotonic()
            later = [client.search("oak lamp", user_id="zoe", k=4) for _ in range(5)]
            assert time.monotonic() - started < 5 and not any(one.degraded for one in later)
            assert client.report(interaction("order", "i3", "zoe"), timeout_s=15) == "spooled"
            assert client.events().down and client.events().spool_bytes > 0
            broker.start(port=0)
            until(lambda: client.events().spool_bytes == 0, 40)
            assert client.events().dropped == 0

        def logged() -> pl.DataFrame:
            try:
                return pl.scan_delta(str(folder / "log")).collect()
            except Exception:
                return pl.DataFrame({"item_id": []})

        until(lambda: "i3" in logged()["item_id"].to_list(), 40)
    finally:
        if broker.pid is None:
            broker.start(port=0)
        consumer.terminate()
        said, complaints = consumer.communicate(timeout=30)
    assert consumer.returncode == 0, said + complaints
    # Whether anything was asked of Kafka while it was away is a matter of moments.
    assert ("waiting: " in complaints) == ("going on" in complaints), complaints
    log = logged()
    shown = log.filter(pl.col("request_id") == answer.request_id, pl.col("action") == "impression").sort(
        "position"
    )
    assert shown["item_id"].to_list() == [hit.item_id for hit in answer.hits]
    assert shown["position"].to_list() == [0, 1, 2, 3, 4] and set(shown["release"]) == {answer.release}
    assert set(shown["propensity"]) == {1.0} and set(shown["query"]) == {"desk"}
    # Reported twice, logged once; an unknown shopper is joined by the request.
    assert len(log.filter(pl.col("user_id") == "zoe", pl.col("action") == "click")) == 4
    ordered = log.filter(pl.col("item_id") == "i1", pl.col("action") == "order")
    assert ordered["user_id"][0] == f"anonymous:{anonymous.request_id}"
    # A search of the past is logged in the past.
    old = log.filter(pl.col("request_id") == anonymous.request_id, pl.col("action") == "impression")
    assert len(old) == 3 and set(old["ts"].dt.epoch("us")) == {1_700_000_000_000_000}
    for one in later:
        assert len(log.filter(pl.col("request_id") == one.request_id)) == 4
    assert log["event_id"].n_unique() == len(log)


async def test_reports_that_do_not_fit_are_refused(shop: Shop) -> None:
    async with AsyncClient(shop.served.address) as client:
        assert await client.report(interaction("click", "i1", "u", ts_us=5)) == "acknowledged"
        for broken, field in (
            (interaction("click", "", "u"), "item_id"),
            (interaction("click", "i1"), "user_id"),
            (interaction("click", "i1", "u", position=-4), "position"),
            (interaction("click", "i1", "u", propensity=2.0), "propensity"),
            (interaction("click", "i1", "u", "x" * 10_001), "query"),
        ):
            broken = broken._replace(user_id="" if field == "user_id" else broken.user_id)
            with pytest.raises(UsageError, match=field):
                await client.report(broken)
        with pytest.raises(UsageError, match="interactions"):
            await client.report()
        assert (await client.events()).acknowledged >= 1


def test_a_gateway_without_kafka_says_so(served: Any) -> None:
    with Client(served.address) as client, pytest.raises(GatewayError, match="--kafka") as refused:
        client.report(interaction("click", "i1", "u"))
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED
