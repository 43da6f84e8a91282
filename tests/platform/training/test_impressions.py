"""A reward's log: labels, and nothing of the future."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from onesearch.data.schemas import schema
from onesearch.shoppers.state import ShopperState
from onesearch.training.attribution import exposures
from onesearch.training.impressions import Impressions, impressions_of

START = datetime(2024, 5, 1, tzinfo=UTC)
ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"]})
JUDGED = pl.DataFrame(
    {"query": ["Red lamp", "rug"], "item_id": ["b", "gone"], "grade": [0.5, 1.0]}, schema=schema("relevance")
)


def log(*rows: tuple) -> pl.DataFrame:
    names = ("ts", "user_id", "request_id", "scene", "query", "item_id", "action", "position", "propensity")
    made = [
        {**dict.fromkeys(schema("interactions")), "event_id": f"e{at}", **dict(zip(names, row, strict=False))}
        for at, row in enumerate(rows)
    ]
    for row in made:
        row["ts"] = START + timedelta(hours=row["ts"])
    return pl.DataFrame(made, schema=schema("interactions"))


def embed(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), 1.0] for text in texts], np.float32).reshape(-1, 2)


def states_before(users: Sequence[str], times: np.ndarray) -> list[ShopperState]:
    return [ShopperState(f"{user}@{time}") for user, time in zip(users, times, strict=True)]


def gathered(events: pl.DataFrame, **options) -> Impressions:
    return impressions_of(exposures(events), ITEMS, JUDGED, embed, states_before, **options)


EVENTS = log(
    (30, "v", "r2", "search", "red  LAMP", "a", "impression", 1, 0.5),
    (30, "v", "r2", "search", "red  LAMP", "b", "impression", 0, 0.9),
    (0, "u", "r1", "search", "red lamp", "a", "impression", 0, None),
    (0, "u", "r1", "search", "red lamp", "gone", "impression", 1, None),
    (1, "u", "r1", "search", "red lamp", "a", "click"),
    (2, "u", "r1", "search", "red lamp", "a", "order"),
    (3, "w", None, "search", "red lamp", "b", "click"),  # never shown: counted, not learnt from
    (4, "w", "f1", "recommend", None, "b", "impression", 0, 0.1),
    (31, "v", "r2", "search", "red lamp", "b", "click"),
)


def test_searches_in_order_with_labels_and_what_was_known_before() -> None:
    found = gathered(EVENTS)
    assert found.queries == ["red lamp"] and found.query_vecs.tolist() == [[8.0, 1.0]]
    assert found.user_ids == ["u", "v"] and found.query.tolist() == [0, 0]
    begin = int(START.timestamp())
    assert found.times.tolist() == [begin, begin + 30 * 3600]
    assert found.states(1, 2)[0].user_id == f"v@{begin + 30 * 3600}"
    assert found.request.tolist() == [0, 1, 1] and found.item.tolist() == [0, 1, 0]
    assert found.position.tolist() == [0, 0, 1]
    assert np.isnan(found.propensity[0]) and found.propensity[1:].tolist() == [np.float32(0.9), 0.5]
    assert found.clicked.tolist() == [True, True, False] and found.ordered.tolist() == [True, False, False]
    # Before r2 item a was seen, clicked and ordered once for the query, and b was clicked, thus seen.
    assert found.pair_before.tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert found.item_before.tolist() == [[0, 0, 0], [2, 1, 0], [1, 1, 1]]
    assert found.popularity[0] == 1 and found.popularity[2] > found.popularity[1] > 1
    assert found.pair_counts.rows() == [("red lamp", 0, 2, 1, 1), ("red lamp", 1, 2, 2, 0)]
    assert found.item_counts.tolist() == [[2, 1, 1], [3, 2, 0], [0, 0, 0]]
    assert found.judged_query.tolist() == [0] and found.judged_item.tolist() == [1]
    assert found.grade.tolist() == [0.5]


def test_the_newest_searches_stay_whole() -> None:
    rows = [
        (at, "u", f"r{at}", "search", f"q{at % 3}", item, "impression", place)
        for at in range(10)
        for place, item in enumerate("abc")
    ]
    found = gathered(log(*rows), limit=10)
    assert len(found) == 9 and found.request.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(found.user_ids) == len(found.query) == 3
    assert [found.queries[row] for row in found.query] == ["q1", "q2", "q0"]
    assert found.pair_before[:, 0].tolist() == [2] * 6 + [3] * 3
    assert len(gathered(log(*rows), limit=30)) == 30 and len(gathered(log(*rows), limit=29)) == 27


def test_fresh_is_what_the_embeddings_know_nothing_of() -> None:
    assert gathered(EVENTS).fresh.tolist() == [False, False]
    assert gathered(EVENTS, learnt_until=START + timedelta(hours=30)).fresh.tolist() == [False, True]
    assert gathered(EVENTS, learnt_until=START).fresh.tolist() == [True, True]


def test_a_log_without_impressions_or_events_has_none() -> None:
    clicks = gathered(log((0, "u", None, "search", "lamp", "a", "click")))
    assert len(clicks) == 0 and clicks.pair_counts.rows() == [("lamp", 0, 1, 1, 0)]
    nothing = gathered(log())
    assert len(nothing) == 0 and nothing.item_counts.shape == (3, 3) and nothing.pair_before.shape == (0, 3)
