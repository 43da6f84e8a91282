"""Short runs of the benchmarks: what they count must hold."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from onesearch_streaming.ingest import bench, kill
from onesearch_streaming.ingest.traffic import PAGE, pages


def test_traffic_is_the_same_for_the_same_seed() -> None:
    def told(seed: int) -> list[Any]:
        return [one._replace(ts_us=0) for page in islice(pages(seed, "m", 50), 40) for one in page]

    assert told(1) == told(1) and told(1) != told(2)
    one = told(1)
    assert len({event.event_id for event in one}) == len(one)
    assert {event.action for event in one} == {"impression", "click", "order"}
    assert [event.position for event in one[:PAGE]] == list(range(PAGE))


@pytest.mark.e2e
@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_reading_is_measured_and_nothing_is_lost(client: Any, broker: Any) -> None:
    found = bench.run(events=4_000, client=client, kafka=broker.servers, shoppers=50, rounds=1)
    assert found["lost"] == found["duplicated"] == 0 and found["events"] == 4_000
    assert 0 < found["ratio"] < 2 and found["ratio"] == found["events_per_s"] / found["poll_loop_per_s"]
    assert [row["what"] for row in found["rows"]] == ["poll loop", "log", "log and states"]


@pytest.mark.e2e
def test_consumer_and_broker_killed() -> None:
    found = kill.run(kills=3, broker_share=0.4, seed=4)
    assert found["kills"] == 3 and found["broker_kills"] and found["consumer_kills"]
    assert found["lost"] == found["duplicated"] == 0
    assert found["logged"] >= found["acknowledged"] > 100
