"""Shoppers who act: through any search function, with the same luck for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.data.demo.world import SIZES, Size, World
from onesearch.data.schemas import schema
from onesearch.data.simulation import Requests, ShopRequest, SimulatedShoppers
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import ArtifactError, UsageError


@pytest.fixture(scope="module")
def shoppers() -> SimulatedShoppers:
    return SimulatedShoppers(World.make(Size(items=2_000, shoppers=200, searches=0, feeds=0, judged=0), 1))


@pytest.fixture(scope="module")
def requests(shoppers: SimulatedShoppers) -> Requests:
    return shoppers.requests(600, seed=3)


def words_search(shoppers: SimulatedShoppers, k: int = 10) -> object:
    """Items whose titles share most character pairs with the query: a search that knows no tastes."""
    items = shoppers.world.listings.items
    stock = items.filter(pl.col("in_stock"))
    ids = stock["item_id"].to_list()
    grams = [{text[at : at + 2] for at in range(len(text) - 1)} for text in stock["title"].str.to_lowercase()]

    def search(asked: list[ShopRequest]) -> list[list[str]]:
        answers = []
        for one in asked:
            own = {one.query[at : at + 2] for at in range(len(one.query) - 1)}
            score = np.array([len(own & gram) for gram in grams])
            answers.append([ids[at] for at in np.argsort(-score, kind="stable")[:k]])
        return answers

    return search


def test_requests_are_the_same_for_everybody(shoppers: SimulatedShoppers, requests: Requests) -> None:
    again = shoppers.requests(600, seed=3)
    assert again.requests == requests.requests
    assert shoppers.requests(600, seed=4).requests != requests.requests
    assert shoppers.requests(600, seed=3, day=1).requests != requests.requests
    first = requests.requests[0]
    assert first.user_id.startswith("S") and first.query
    assert str(first.ts)[:10] == "2025-07-01"


def test_arms_stand_between_random_and_oracle(shoppers: SimulatedShoppers) -> None:
    table = shoppers.compare({"words": words_search(shoppers)}, searches=400, seeds=[0, 1])  # type: ignore[dict-item]
    orders = dict(table.select("system", "orders_per_search").iter_rows())
    assert orders["random"] < 0.5 * orders["words"] < 0.5 * orders["oracle"]
    assert set(table.columns) == {
        "system",
        "orders_per_search",
        "ctr",
        "buyers",
        "relevance",
        "lift_percent",
        "low",
        "high",
    }
    rows = {row["system"]: row for row in table.to_dicts()}
    assert rows["words"]["lift_percent"] == rows["words"]["low"] == rows["words"]["high"] == 0.0
    assert rows["oracle"]["low"] > 0
    assert rows["random"]["high"] < 0
    assert rows["random"]["relevance"] < 0.1


def test_a_better_list_never_meets_other_luck(shoppers: SimulatedShoppers, requests: Requests) -> None:
    oracle = shoppers.oracle(requests, 10)
    first, again = (shoppers.act(requests, oracle, seed=5) for _ in range(2))
    assert first.events.equals(again.events)
    assert not shoppers.act(requests, oracle, seed=6).events.equals(first.events)
    # A list cut after an item changes nothing of what happened before the cut.
    cut = shoppers.act(requests, [row[:3] for row in oracle], seed=5)
    early = first.events.filter(pl.col("position") < 3).sort("event_id")
    assert cut.events.sort("event_id").equals(early)


def test_places_do_not_change_an_items_own_luck(shoppers: SimulatedShoppers, requests: Requests) -> None:
    oracle = shoppers.oracle(requests, 10)
    turned = [row[::-1] for row in oracle]
    straight, reverse = shoppers.act(requests, oracle), shoppers.act(requests, turned)
    assert straight.orders.sum() > reverse.orders.sum()  # the best come last


def test_events_fit_the_store(shoppers: SimulatedShoppers, requests: Requests, tmp_path: Path) -> None:
    outcome = shoppers.act(requests, shoppers.oracle(requests, 5), release="r1")
    with StoreWriter(tmp_path / "s", "test") as writer:
        writer.write("interactions", outcome.events)
    stored = Store.open(tmp_path / "s").interactions().collect()
    assert dict(stored.schema) == schema("interactions")
    assert stored["event_id"].is_unique().all()
    assert stored["release"].unique().to_list() == ["r1"]
    counts = dict(stored["action"].value_counts().iter_rows())
    assert counts["impression"] == outcome.impressions.sum() == 5 * len(requests)
    assert counts["click"] == outcome.clicks.sum()
    assert counts["order"] == outcome.orders.sum()


def test_empty_answers_are_answers(shoppers: SimulatedShoppers, requests: Requests) -> None:
    outcome = shoppers.act(requests, [[] for _ in requests.requests])
    assert outcome.figures() == {"orders_per_search": 0.0, "ctr": 0.0, "buyers": 0.0, "relevance": 0.0}
    assert outcome.events.is_empty()


def test_what_search_functions_get_wrong_is_told(shoppers: SimulatedShoppers, requests: Requests) -> None:
    rest: list[Sequence[str]] = [[] for _ in requests.requests[1:]]
    with pytest.raises(UsageError, match="list 0: the simulated shop has no item 'X'"):
        shoppers.act(requests, [["D000001", "X"], *rest])
    with pytest.raises(UsageError, match="list 0: an item stands in it twice"):
        shoppers.act(requests, [["D000001", "D000001"], *rest])
    with pytest.raises(UsageError, match="599 lists for 600 requests"):
        shoppers.act(requests, rest)
    with pytest.raises(UsageError, match="answered 0 of 256 requests"):
        shoppers.run(lambda asked: [], requests)
    with pytest.raises(UsageError, match="no arm to compare with"):
        shoppers.compare({}, 10, [0])


def test_the_shoppers_of_a_store_come_back(
    demo_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="made from another version of the simulated world"):
        SimulatedShoppers.open(demo_store)  # the fixture's shop is smaller than what "small" makes
    about = demo_store.extra("simulation")
    monkeypatch.setitem(SIZES, "small", Size(items=2_600, shoppers=150, searches=2_400, feeds=900, judged=60))
    shoppers = SimulatedShoppers.open(demo_store)
    assert shoppers.world.fingerprint() == about["fingerprint"]
    known = set(demo_store.shoppers().collect()["user_id"].to_list())
    assert {one.user_id for one in shoppers.requests(50, seed=0).requests} <= known
    with StoreWriter(tmp_path / "s", "mine") as writer:
        writer.write("items", pl.DataFrame({"item_id": ["1"], "title": ["x"]}))
    with pytest.raises(UsageError, match="holds mine, not a simulated shop"):
        SimulatedShoppers.open(Store.open(tmp_path / "s"))


def test_what_is_wanted_is_the_oracles_choice(shoppers: SimulatedShoppers, requests: Requests) -> None:
    wanted = shoppers.wanted(requests, k=5)
    first = requests.requests[0]
    own = wanted.filter((pl.col("user_id") == first.user_id) & (pl.col("query") == first.query))
    assert own["item_id"].to_list() == shoppers.oracle(requests, k=5)[0]
    assert own["grade"].to_list() == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert wanted.group_by("user_id", "query").len()["len"].max() == 5
