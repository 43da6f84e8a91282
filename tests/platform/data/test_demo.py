"""The simulated shop: whole, noisy, biased, drifting, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from onesearch.data.demo.behaviour import luck
from onesearch.data.demo.needs import season_of
from onesearch.data.demo.words import TYPE, load_words
from onesearch.data.demo.world import SIZES, Size, World
from onesearch.data.importing import Report
from onesearch.data.schemas import ATTRIBUTE_TYPES
from onesearch.data.store import Store


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(Size(items=3_000, shoppers=300, searches=0, feeds=0, judged=0), 7)


@pytest.fixture(scope="module")
def log(demo_store: Store) -> pl.DataFrame:
    return demo_store.interactions().collect()


def test_the_default_shop_has_twenty_thousand_items() -> None:
    assert SIZES["full"].items >= 20_000
    assert 2_500 <= SIZES["small"].items <= 3_500


def test_the_store_says_that_it_is_simulated(demo: Report) -> None:
    assert demo.store.simulated
    assert demo.as_dict()["simulated"] is True
    assert set(demo.store.interactions().select("release").collect()["release"].unique()) == {
        "simulated-keyword-engine",
        "simulated-feed",
    }


def test_words_have_both_scripts() -> None:
    words = load_words()
    assert len(words.entities) > 100
    for kind, values in enumerate(words.surfaces):
        for english, chinese in values:
            assert all(text.isascii() for text in english), (ATTRIBUTE_TYPES[kind], english)
            assert chinese and all(chinese)


def test_all_eighteen_types_and_both_languages(demo_store: Store) -> None:
    items = demo_store.items()
    types = items.explode("attributes").unnest("attributes")["type"].drop_nulls().value_counts()
    assert set(types["type"].to_list()) == set(ATTRIBUTE_TYPES)
    chinese = items["title"].str.contains(r"\p{Han}").mean()
    assert isinstance(chinese, float) and 0.4 < chinese < 0.6
    assert items["category"].list.len().unique().to_list() == [3]
    assert items.null_count().select("title", "price", "category").row(0) == (0, 0, 0)
    assert 0.5 < items["detail_text"].is_not_null().mean() < 0.8  # type: ignore[operator]


def test_titles_are_stacked_noisy_and_sometimes_equal(world: World) -> None:
    titles = world.listings.items["title"]
    english = titles.filter(~titles.str.contains(r"\p{Han}"))
    assert english.str.split(" ").list.len().mean() > 6  # type: ignore[operator]
    shared = titles.is_duplicated().mean()
    assert isinstance(shared, float) and 0.005 < shared < 0.08
    # What an item is, its title or attributes often do not say.
    has = world.catalogue.values >= 0
    told = (world.listings.said & has).sum() / has.sum()
    assert 0.7 < told < 0.97


def test_one_seed_one_world() -> None:
    size = Size(items=800, shoppers=50, searches=0, feeds=0, judged=0)
    one, same, other = World.make(size, 3), World.make(size, 3), World.make(size, 4)
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.listings.items.equals(same.listings.items)


def test_the_log_has_both_scenes_and_every_action(log: pl.DataFrame) -> None:
    counts = {
        (scene, action): rows for scene, action, rows in log.group_by("scene", "action").len().iter_rows()
    }
    assert set(counts) == {(s, a) for s in ("search", "recommend") for a in ("impression", "click", "order")}
    assert counts["search", "impression"] > counts["search", "click"] > counts["search", "order"] > 50
    assert log.filter(pl.col("scene") == "recommend")["query"].null_count() == len(
        log.filter(pl.col("scene") == "recommend")
    )
    assert log["event_id"].is_unique().all()
    assert log["ts"].is_sorted()
    days = (log["ts"].max() - log["ts"].min()).days  # type: ignore[operator]
    assert 360 <= days <= 365


def test_clicks_were_shown_and_orders_were_clicked(log: pl.DataFrame) -> None:
    keys = ["request_id", "item_id", "position"]
    shown, clicked, ordered = (
        log.filter(pl.col("action") == action) for action in ("impression", "click", "order")
    )
    assert clicked.join(shown, on=keys, how="anti").is_empty()
    assert ordered.join(clicked, on=keys, how="anti").is_empty()
    pairs = ordered.join(clicked, on=keys)
    assert (pairs["ts"] > pairs["ts_right"]).all()
    assert ordered["request_id"].is_unique().all()  # who ordered has left
    assert shown.select("request_id", "item_id").is_unique().all()


def test_position_bias(log: pl.DataFrame) -> None:
    search = log.filter((pl.col("scene") == "search") & (pl.col("position") < 10))
    rate = search.group_by("position").agg(
        ctr=(pl.col("action") == "click").sum() / (pl.col("action") == "impression").sum()
    )
    ctr = dict(rate.iter_rows())
    assert ctr[0] > 1.5 * ctr[2] > 1.5 * ctr[8]


def test_propensities_are_those_of_the_exploring_engine(log: pl.DataFrame) -> None:
    shown = log.filter((pl.col("scene") == "search") & (pl.col("action") == "impression"))
    assert ((shown["propensity"] > 0) & (shown["propensity"] <= 1)).all()
    explored = shown.filter(pl.col("propensity") < 0.5)
    assert 0.02 < len(explored) / len(shown) < 0.12
    feed = log.filter((pl.col("scene") == "recommend") & (pl.col("action") == "impression"))
    assert ((feed["propensity"] > 0) & (feed["propensity"] <= 1)).all()


def test_queries_have_a_head_and_a_tail(log: pl.DataFrame) -> None:
    queries = log.filter(pl.col("scene") == "search").unique("request_id")["query"].value_counts(sort=True)
    assert queries["count"][0] > 10
    assert (queries["count"] == 1).mean() > 0.4  # type: ignore[operator]


def test_demand_follows_the_season(world: World) -> None:
    rng = np.random.default_rng(0)
    who = rng.integers(len(world.people), size=6_000)
    coats = next(at for at, kind in enumerate(world.words.entities) if kind.surface[0][0] == "down jacket")
    asked = [
        (world.demand.search(who, np.full(len(who), day), who.astype(np.uint64), rng).entity == coats).mean()
        for day in (15, 200)  # mid-July, mid-January
    ]
    assert asked[1] > 1.5 * asked[0]
    assert [int(season_of(day)) for day in (0, 100, 200, 300, 365)] == [1, 2, 3, 0, 1]


def test_tastes_drift_but_stay_unit_vectors(world: World) -> None:
    who = np.arange(len(world.people))
    first, last = (world.people.taste_on(who, np.full(len(who), day)) for day in (0, 364))
    assert np.allclose(np.linalg.norm(last, axis=1), 1.0, atol=1e-5)
    kept = (first * last).sum(axis=1)
    assert 0.6 < kept.mean() < 0.95
    assert kept.min() > 0.45


def test_relevance_of_a_need(world: World) -> None:
    needs = world.demand.search(
        np.arange(40), np.zeros(40, dtype=np.int64), np.arange(40).astype(np.uint64), np.random.default_rng(1)
    )
    row = int(np.argmax((needs.kinds >= 0).sum(axis=1) == 2))
    need, catalogue = needs.take(np.array([row])), world.catalogue
    language = world.people.language[need.who[0]]
    wishes = [(k, v) for k, v in zip(need.kinds[0].tolist(), need.values[0].tolist(), strict=True) if k >= 0]
    holds = np.array(
        [[catalogue.values[at, kind] == value for kind, value in wishes] for at in range(len(catalogue))]
    )
    same = catalogue.entity == need.entity[0]
    group = catalogue.group == catalogue.group[np.argmax(same)]
    kin = np.where(same, 1.0, np.where(group, 0.35, 0.0))
    expected = kin * (0.35 + 0.65 * holds.mean(axis=1)) * np.where(catalogue.language == language, 1.0, 0.2)
    found = world.behaviour.relevance(need, np.arange(len(catalogue))[None, :])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() == pytest.approx(1.0)


def test_chances_follow_the_formula_to_the_digit(world: World) -> None:
    needs = world.demand.browse(np.array([5]), np.array([0]), np.array([1], dtype=np.uint64))
    item, people, catalogue = 11, world.people, world.catalogue
    catalogue.launch[item], catalogue.retire[item] = 0, 10_000
    click, order = world.behaviour.chances(needs, np.array([[item, -1]]))
    assert click[0, 1] == order[0, 1] == 0
    taste = (
        catalogue.latent[item] @ people.taste[5]
        + 0.6 * people.audience[5, catalogue.values[item, TYPE["Audience"]]]
    )
    money = -0.5 * min((catalogue.price_level[item] - people.price_level[5]) ** 2, 6.0)
    season = {-1: 0.0, 0: 0.0, 1: 1.0, 2: 0.0, 3: -1.0, 4: 0.0}[int(catalogue.values[item, TYPE["Season"]])]
    rel = 0.55 * (1.0 if catalogue.language[item] == people.language[5] else 0.2)
    trend = catalogue.latent[item] @ world.behaviour._trend[0]
    liking = (
        -4.2
        + 3.2 * rel
        + 0.9 * taste
        + 0.5 * catalogue.quality[item]
        + 0.5 * money
        + 0.5 * season
        + 0.3 * trend
    )
    wanting = -4.2 + 1.2 * rel + 0.9 * taste + 0.6 * catalogue.quality[item] + 0.6 * money
    assert click[0, 0] == pytest.approx(1 / (1 + np.exp(-liking)), rel=1e-5)
    assert order[0, 0] == pytest.approx(1 / (1 + np.exp(-wanting)), rel=1e-5)


def test_nobody_buys_what_is_not_on_sale(world: World) -> None:
    gone = int(np.argmax(world.catalogue.retire < 400))
    needs = world.demand.browse(np.array([0]), np.array([500]), np.array([1], dtype=np.uint64))
    assert [float(chance[0, 0]) for chance in world.behaviour.chances(needs, np.array([[gone]]))] == [
        0.0,
        0.0,
    ]


def test_luck_is_uniform_and_a_function_of_its_arguments() -> None:
    key, about = np.arange(100, dtype=np.uint64)[:, None], np.arange(300)
    drawn = luck(1, 2, key, about)
    assert drawn.shape == (100, 300)
    assert abs(drawn.mean() - 0.5) < 0.01
    assert abs(drawn.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.3
    np.testing.assert_array_equal(drawn[3, 5], luck(1, 2, np.array([3], dtype=np.uint64), 5)[0])
    assert not (drawn == luck(2, 2, key, about)).any()
    assert luck(0, 0, np.array([0], dtype=np.uint64), 0)[0] == pytest.approx(
        luck(0, 0, np.array([0], dtype=np.uint64), 0)[0]
    )
