"""Guard rails and propensities, against values worked out by hand and a log whose truth is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.errors import DataError, UsageError
from onesearch.evaluation.guard_rails import GuardRails, gini, reward_hacking
from onesearch.evaluation.propensity import FADE, Logged, fade, weighted
from onesearch.evaluation.query_files import read_searches
from onesearch.index import CatalogueIndex


@pytest.fixture(scope="module")
def rails() -> GuardRails:
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["desk"] * 4,
            "category": [["home"]] * 4,
            "brand": ["oak", "oak", "", "elm"],
            "price": [1.0] * 4,
            "in_stock": [True] * 4,
        }
    )
    sids = np.array([[0, 0], [0, 1], [0, 1], [1, 1]])
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float16)
    return GuardRails(CatalogueIndex.build(items, sids, vectors, np.array([1.0, 2, 2, 9]), (2, 2)))


def test_diversity_by_hand(rails: GuardRails) -> None:
    told = rails.figures(np.array([[0, 1, 2, -1]]))
    assert told["sids_1"] == pytest.approx(1 / 3, abs=1e-5)
    assert told["sids_2"] == pytest.approx(2 / 3, abs=1e-5)
    assert told["brands"] == 0.5  # two of oak, one without a brand
    assert told["distance"] == pytest.approx(2 / 3, abs=1e-5)  # of three pairs two are at right angles
    assert told["popularity"] == pytest.approx((0 + 0.5 + 0.5) / 3, abs=1e-5)
    assert told["coverage"] == 0.75
    assert told["gini"] == pytest.approx(gini(np.array([1, 1, 1, 0])), abs=1e-5)


def test_searches_of_one_ranking_count_each(rails: GuardRails) -> None:
    ranked = np.array([[0, 1], [3, -1]])
    twice = rails.figures(ranked, np.array([0, 0, 1]))
    assert twice["popularity"] == pytest.approx((0.25 + 0.25 + 1.0) / 3, abs=1e-5)
    # A page of one item has no two to compare.
    assert twice["distance"] == 0.0


def test_nothing_found_is_no_figure(rails: GuardRails) -> None:
    assert rails.figures(np.full((2, 3), -1)) == {"coverage": 0.0, "gini": 0.0}


def test_gini() -> None:
    assert gini(np.array([2, 2, 2])) == 0.0
    assert gini(np.array([0, 0, 0, 5])) == pytest.approx(0.75)
    assert gini(np.zeros(3)) == 0.0


def test_a_reward_that_is_pleased_at_the_cost_of_quality_is_called_so() -> None:
    worse, better = np.full(50, 0.2), np.full(50, 0.4)
    told = reward_hacking(better, worse, {"NDCG@10": worse}, {"NDCG@10": better})
    assert told["hacked"] and told["reward"] == 0.2 and told["quality"] == -0.2
    assert not reward_hacking(better, worse, {"NDCG@10": better}, {"NDCG@10": worse})["hacked"]


def log_of(liking: np.ndarray, searches: int, share: float, eta: float) -> list[Logged]:
    """An engine shows items 0, 1, 2 at three places and explores those below, as the gateway does."""
    rng = np.random.default_rng(5)
    made = []
    looks = (1.0 + np.arange(3)) ** -eta
    for _ in range(searches):
        explored = rng.random(3) < share
        items = np.where(explored, 3 + rng.permutation(len(liking) - 3)[:3], np.arange(3)).astype(np.int32)
        chance = np.where(explored, share / (len(liking) - 3), 1 - share)
        clicked = rng.random(3) < looks * liking[items]
        made.append(Logged(items, np.arange(3, dtype=np.int32), chance, clicked, clicked & False))
    return made


def test_weights_tell_the_clicks_of_another_ranking() -> None:
    liking = np.array([0.2, 0.3, 0.1, 0.8, 0.6, 0.4])
    searches = log_of(liking, 6_000, 0.3, 0.7)
    eta, clicks = fade(searches)
    assert clicks > 1_000 and eta == pytest.approx(0.7, abs=0.1)
    ranking = np.array([3, 0, 4])
    truth = float(((1.0 + np.arange(3)) ** -0.7 * liking[ranking]).sum())
    told = weighted(searches, np.tile(ranking, (len(searches), 1)), 0.7)
    assert told["clicks_low"] < truth < told["clicks_high"]
    assert told["clicks"] == pytest.approx(truth, rel=0.05)
    assert told["orders"] == 0.0 and told["clipped"] == 0.0
    assert 100 < told["effective"] < told["weighed"]
    # What it shows was clicked more than what the engine put first.
    own = weighted(searches, np.tile(np.arange(3), (len(searches), 1)), 0.7)
    assert told["click_rate"] > own["click_rate"]


def test_heavy_weights_are_cut_and_said_to_be() -> None:
    one = Logged(
        np.array([7, -1]), np.array([0, 1]), np.array([0.001, 0.9]), np.array([True, True]), np.zeros(2, bool)
    )
    told = weighted([one], np.array([[7, 8]]), 1.0, clip=5.0)
    assert told["clicks"] == 5.0 and told["clipped"] == 1.0 and told["weighed"] == 1
    assert fade([one]) == (FADE, 1)
    assert fade([]) == (FADE, 0)
    nothing = weighted([one], np.array([[1, 2]]), 1.0)
    assert nothing["clicks"] == nothing["click_rate"] == nothing["effective"] == 0.0


def rows(**changed: object) -> pl.DataFrame:
    start = datetime(2024, 5, 1, tzinfo=UTC)
    events = [
        ("r1", "impression", "a", 0, 0.9),
        ("r1", "impression", "gone", 1, 0.05),
        ("r1", "click", "gone", 1, 0.05),
        ("r2", "impression", "b", 0, 0.9),
        ("r2", "click", "b", 0, 0.9),
        ("r2", "order", "b", 0, 0.9),
        ("r3", "impression", "a", 0, 0.9),
    ]
    frame = pl.DataFrame(
        [
            {
                "ts": start + timedelta(seconds=at),
                "user_id": "u",
                "request_id": request,
                "scene": "search",
                "query": "Desk",
                "item_id": item,
                "action": action,
                "position": place,
                "propensity": chance,
            }
            for at, (request, action, item, place, chance) in enumerate(events)
        ]
    )
    return frame.with_columns(**changed)  # type: ignore[arg-type]


def test_a_log_is_searches_with_and_without_clicks(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    rows().write_parquet(path)
    found = read_searches(path, "log", ["a", "b"])
    assert found.queries == ["desk"] * 3 and found.user_ids == ["u"] * 3
    assert (len(found), found.skipped, found.missing) == (3, 1, 1)
    assert found.logged is not None
    by_request = {tuple(one.items.tolist()): one for one in found.logged}
    assert set(by_request) == {(0, -1), (1,), (0,)}
    assert by_request[(0, -1)].clicked.tolist() == [False, True]
    assert by_request[(1,)].ordered.tolist() == [True]
    grades = sorted(truth.grades.tolist() for truth in found.relevant)
    assert grades == [[], [0.5], [1.0]]


def test_a_log_without_propensities_is_searches_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    rows(propensity=pl.lit(None, pl.Float64)).write_parquet(path)
    assert read_searches(path, "log", ["a"]).logged is None
    rows().drop("position").write_parquet(path)
    with pytest.raises(DataError, match="column 'position' is missing"):
        read_searches(path, "log", ["a"])
    rows(scene=pl.lit("recommend")).write_parquet(path)
    with pytest.raises(UsageError, match="no search"):
        read_searches(path, "log", ["a"])
