from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.config import TrainingConfig
from onesearch.contracts import Candidates, ShopperState
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.progress import SilentProgress
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import item_keys
from onesearch.training.candidates import load_lists
from onesearch.training.drawing import DrawnSearches, draw_searches
from onesearch.training.lists import RankedLists
from onesearch.training.run import train
from onesearch.training.split import split_logs

DAY = datetime(2024, 3, 1, tzinfo=UTC)

# user, request, query, item, action, day, second: the last day is held out
LOG = [
    ("ann", "r1", "lamp", 0, "click", 0, 10),
    ("bob", "r2", "lamp", 1, "order", 0, 20),
    ("ann", "r3", "Lamp", 2, "impression", 1, 100),
    ("ann", "r3", "Lamp", 2, "click", 1, 105),
    ("ann", "r3", "Lamp", 3, "click", 1, 107),
    ("ann", "r3", "Lamp", 3, "order", 1, 200),
    ("cat", "r4", "lamp", 0, "click", 1, 150),
    ("ann", "r5", "lamp", 2, "click", 1, 900),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)]}).with_columns(
        title="item_id", category=pl.lit([], pl.List(pl.String)), in_stock=True
    )
    rows = [
        {
            "event_id": f"e{number}", "ts": DAY + timedelta(days=day, seconds=second), "user_id": user,
            "request_id": request, "scene": "search", "query": query, "item_id": f"i{item}", "action": action,
        }
        for number, (user, request, query, item, action, day, second) in enumerate(LOG)
    ]  # fmt: skip
    with StoreWriter(tmp_path / "S", "test") as writer:
        writer.write("items", items)
        writer.write("interactions", pl.DataFrame(rows))
    return Store.open(tmp_path / "S")


def drawn(store: Store, **settings: Any) -> DrawnSearches:
    split = split_logs(store, 0.2, 0.66, 14.0)
    return draw_searches(split, store, lambda: EventLog.of_store(store), TrainingConfig(**settings))


def test_lists_are_of_held_out_requests_with_what_was_known_then(store: Store) -> None:
    found = drawn(store)
    assert found.queries == ["lamp"] * 3 and found.rows.tolist() == [0, 1, 2]
    assert [state.user_id for state in found.states] == ["ann", "cat", "ann"]
    clicks = [state.clicks.items.tolist() for state in found.states]
    keys = item_keys([f"i{n}" for n in range(5)]).tolist()
    # Before her first request of the day ann had clicked item 0; before her second one, that request's, too.
    assert clicks == [[keys[0]], [], [keys[0], keys[2], keys[3]]]
    assert [items.tolist() for items in found.stand_ins] == [
        [1, 0],
        [1, 3, 2, 0],  # ann clicked 3 and 2 meanwhile; of 3, she has not ordered yet
        [3, 0, 1, 2],
    ]
    assert stand_ins_at(150) == [1, 3, 2, 0] and stand_ins_at(900) == [3, 0, 1, 2]


def stand_ins_at(second: int) -> list[int]:
    """Ranked by hand: worth, halved by 14 days of age; all that is older is a day older."""
    weights: dict[int, float] = {}
    for _, _, _, item, action, day, at in LOG:
        if action != "impression" and (day, at) < (1, second):
            age_days = 1 - day + (second - at) / 86_400
            worth = {"click": 1.0, "order": 2.0}[action] * 0.5 ** (age_days / 14)
            weights[item] = weights.get(item, 0.0) + worth
    return sorted(weights, key=lambda item: -weights[item])


def test_gains_are_what_the_shopper_chose_in_the_slice(store: Store) -> None:
    gains = {(row, item): gain for row, item, gain in drawn(store).gains.rows()}
    # Ann ordered 3 (its click is the order's) and clicked 2 in two requests: both weigh 2. Cat clicked only.
    ann = {(row, item): 1.0 for row in (0, 2) for item in (2, 3)}
    assert gains == {**ann, (1, 0): 1.0}


def test_no_more_are_drawn_than_asked_for(store: Store) -> None:
    one = drawn(store, reward_queries=1, seed=1)
    assert len(one.queries) == len(one.states) == len(one.stand_ins) == 1
    assert set(one.gains["row"]) == {0}


def test_by_query_nobody_is_known_and_nothing_stands_in(judged: Store) -> None:
    found = drawn(judged, reward_queries=30)
    assert len(found.rows) == 30 and found.states == [ShopperState()] * len(found.queries)
    assert not any(len(items) for items in found.stand_ins)


def test_lists_of_a_training_know_their_shoppers(logged: Store, toy, tmp_path: Path) -> None:
    told: list[RankedLists] = []
    from onesearch_toylearn.learners import RewardLearner

    plain = RewardLearner.fit

    def fit(self: Any, lists: RankedLists, *more: Any) -> dict[str, Any]:
        told.append(lists)
        return plain(self, lists, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardLearner, "fit", fit)
        trained = train(logged, tmp_path, "one", toy.config(), SilentProgress())
    lists = told[0]
    figures = {report.stage: report.figures for report in trained.stages}["lists"]
    assert figures["lists"] == len(lists.states) == len(lists.queries) == 200
    assert figures["known_shoppers"] == sum(state.known for state in lists.states) > 150
    cutoff = split_logs(logged, 0.1, 0.66, 14.0).cutoff
    assert cutoff is not None
    newest = {int(state.clicks.times[-1]) for state in lists.states if state.known}
    assert max(newest) > cutoff.timestamp() > min(newest), "what came since the cutoff is known, too"
    assert 0 < lists.gain[lists.gain > 0].min() < lists.gain.max() == 1.0, "a click beside an order is less"


def test_states_are_unknown_where_none_are_given() -> None:
    nothing: Any = None
    found = Candidates(np.zeros((2, 1), np.int32), np.zeros((2, 1), np.float32))
    lists = RankedLists(["a", "b"], nothing, found, nothing, nothing, nothing, nothing, nothing, {})
    assert list(lists.states) == [ShopperState(), ShopperState()]


def test_a_folder_without_lists_is_named(tmp_path: Path) -> None:
    from onesearch.errors import ArtifactError

    nothing: Any = None
    with pytest.raises(ArtifactError, match="not candidate lists"):
        load_lists(tmp_path, nothing, nothing, nothing, nothing, {})
