"""Simulated shoppers at a gateway; the real one stands in the demo. Here the oracle answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from onesearch.data.demo.world import Size, World
from onesearch.data.simulation import Requests, SimulatedShoppers
from onesearch.errors import ServingError
from onesearch.events.messages import Interaction
from onesearch.progress import SilentProgress
from onesearch.serving.requests import Hit, SearchAnswer, SearchRequest
from onesearch.visits import AFTERWARDS, PAGE, visit

LOST = 5


@pytest.fixture(scope="module")
def shoppers() -> SimulatedShoppers:
    return SimulatedShoppers(World.make(Size(items=2_000, shoppers=200, searches=0, feeds=0, judged=0), 1))


@pytest.fixture(scope="module")
def requests(shoppers: SimulatedShoppers) -> Requests:
    return shoppers.requests(300, seed=3)


class Oracle:
    """Answers as the oracle does, changes its release half way, and drops one search."""

    def __init__(self, shoppers: SimulatedShoppers, requests: Requests) -> None:
        lists = shoppers.oracle(requests, PAGE)
        self.lists = {
            (one.query, one.user_id, int(one.ts.timestamp() * 1e6)): items
            for one, items in zip(requests.requests, lists, strict=True)
        }
        self.lost = requests.requests[LOST]
        self.asked: list[SearchRequest] = []
        self.reported: list[Interaction] = []

    def search(self, request: SearchRequest) -> SearchAnswer:
        self.asked.append(request)
        number = len(self.asked)
        key = (request.query, request.user_id, request.asked_at_us or 0)
        if key == (self.lost.query, self.lost.user_id, int(self.lost.ts.timestamp() * 1e6)):
            raise ServingError("no answer")
        hits = tuple(
            Hit(at + 1, item, "", (), "", None, True, (), 0.0, 0.0, {})
            for at, item in enumerate(self.lists[key])
        )
        release = "old" if number <= 150 else "new"
        return SearchAnswer(hits, release, 0, degraded=number == 1, request_id=f"r{number}")

    def report(self, *events: Interaction) -> str:
        self.reported += events
        return "acknowledged"


def test_what_shoppers_do_is_counted_and_reported(shoppers: SimulatedShoppers, requests: Requests) -> None:
    oracle = Oracle(shoppers, requests)
    found = visit(oracle, shoppers, requests, SilentProgress(), seed=2, at_once=1)  # type: ignore[arg-type]
    lists: list[Sequence[str]] = list(shoppers.oracle(requests, PAGE))
    lists[LOST] = []
    expected = shoppers.act(requests, lists, 2)
    assert (found.searches, found.failed, found.degraded) == (300, {"no answer": 1}, 1)
    assert found.releases == {"old": 149, "new": 150}
    assert (found.orders, found.clicks) == (
        expected.orders.sum(),
        expected.clicks.sum(),
    ) and found.orders > 20
    figures = found.figures()
    assert figures["orders_per_search"] == pytest.approx(expected.figures()["orders_per_search"])
    assert figures["buyers"] == pytest.approx(expected.figures()["buyers"])
    # The gateway logs what it shows; clicks and orders are reported, of the answer that led to them.
    assert found.reported == {"acknowledged": found.clicks + found.orders}
    assert {event.action for event in oracle.reported} == {"click", "order"}
    assert len({event.event_id for event in oracle.reported}) == len(oracle.reported)
    for event in oracle.reported:
        asked = oracle.asked[int(str(event.request_id)[1:]) - 1]
        assert (event.user_id, event.query) == (asked.user_id, asked.query)
        assert asked.asked_at_us is not None and event.ts_us >= asked.asked_at_us
        assert event.release == ("old" if int(str(event.request_id)[1:]) <= 150 else "new")


def test_it_ends_once_a_release_has_answered(shoppers: SimulatedShoppers, requests: Requests) -> None:
    oracle = Oracle(shoppers, requests)
    found = visit(oracle, shoppers, requests, SilentProgress(), at_once=1, report=False, until="new")  # type: ignore[arg-type]
    assert AFTERWARDS <= found.releases["new"] < AFTERWARDS + 32 and found.searches < 300
    assert not oracle.reported and not found.reported
