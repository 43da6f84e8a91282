"""Features by hand, and the same in training as in serving."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from onesearch.contracts.user_encoder import ShopperState
from onesearch.progress import SilentProgress
from onesearch.shoppers.state import NO_ITEM, Recent, Ring, item_keys
from onesearch.shoppers.tastes import NAMES as TASTES
from onesearch.shoppers.tastes import Tastes
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.counts import Counts
from onesearch_pars.features import MATCHING
from onesearch_pars.listwise import make_fields, make_maker
from onesearch_pars.samples import Rows, impression_rows, known_counts, list_rows
from onesearch_pars.space import SCALARS, VIEWS, FeatureSpace, stacked

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "category": [["home", "lamps"], ["home", "lamps", "red"], ["home", "rugs"], []],
        "price": [np.e - 1, np.e**2 - 1, None, np.e - 1],
    },
    schema_overrides={"category": pl.List(pl.String)},
)
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float16)
QUERY = np.array([1, 0], np.float32)


def ring(*items: str) -> Ring:
    count = len(items)
    return Ring(item_keys(list(items)), np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8))


def known() -> ShopperState:
    recent = tuple(Recent("q", int(key), 9) for key in (*item_keys(["b", "gone"]), NO_ITEM))
    return ShopperState("u", ring("a", "gone", "b"), ring("b"), recent, (9, 3, 1))


def scalars(
    space: FeatureSpace, state: ShopperState, similar: bool = True, **changes: np.ndarray
) -> dict[str, list]:
    items = np.arange(4)
    history = space.history(QUERY, state, similar)
    told = {
        "matching": np.ones((4, len(MATCHING)), np.float32),
        "tastes": np.full((4, len(TASTES)), 0.5, np.float32),
        "log_popularity": np.zeros(4, np.float32),
        "pair_counts": np.array([[90, 0, 0], [990, 90, 0], [0, 0, 0], [1, 1, 1]], np.float32),
        "item_counts": np.array([[100, 9, 0], [0, 0, 0], [0, 0, 0], [5, 5, 5]], np.float32),
        **changes,
    }
    made = space.scalars(history=history, items=items, vectors=space.vectors(items), **told)
    assert made.shape == (4, len(SCALARS)) and made.dtype == np.float32 and np.isfinite(made).all()
    return dict(zip(SCALARS, made.T.tolist(), strict=True))


def test_views_by_hand() -> None:
    views = FeatureSpace(ITEMS, VECTORS).history(QUERY, known(), True).views
    by_name = dict(zip(VIEWS, views, strict=True))
    half = np.sqrt(0.5)
    assert by_name["query"].tolist() == [1, 0]
    assert by_name["recent"].tolist() == [0, 1], "one recent item is gone, one pair has none"
    assert by_name["clicks"] == pytest.approx([half, half])
    assert by_name["orders"].tolist() == [0, 1]
    # Of a, b and the ordered b all are among the ten nearest to the query.
    assert by_name["relevant"] == pytest.approx(np.array([1, 2]) / np.sqrt(5))
    # exp(√1) for a, exp(√2) for b, which is newer.
    weights = np.array([np.e, np.exp(np.sqrt(2))])
    assert by_name["user_id"] == pytest.approx(weights / np.linalg.norm(weights), abs=1e-6)
    unknown = FeatureSpace(ITEMS, VECTORS).history(QUERY, ShopperState(), True).views
    assert unknown[0].tolist() == [1, 0] and not unknown[1:].any()


def test_scalars_by_hand() -> None:
    found = scalars(FeatureSpace(ITEMS, VECTORS), known())
    assert found["cosine"] == [1] * 4 and found["similar"] == [1] * 4 and found[TASTES[0]] == [0.5] * 4
    assert found["cosine_orders"] == pytest.approx([0, 1, 0.8, 0], abs=1e-3)
    assert found["has_price"] == [1, 1, 0, 1]
    # Log prices 1, 2, none and 1; a and b share a category (mean 1.5), d is alone: spread √(½/3).
    spread = np.sqrt(0.5 / 3)
    assert found["price_z"] == pytest.approx([-0.5 / spread, 0.5 / spread, 0, 0], rel=1e-4)
    # The shopper's mean of a, b and b is 5/3; log prices spread by √(2/9) = 0.471405.
    gap = [(1 - 5 / 3) / 0.471405, (2 - 5 / 3) / 0.471405, 0, (1 - 5 / 3) / 0.471405]
    assert found["price_gap"] == pytest.approx(gap, rel=1e-4)
    assert found["price_gap_squared"] == pytest.approx(np.square(gap), rel=1e-4)
    assert found["category_clicks"] == [1, 1, 0, 0] and found["category_orders"] == [1, 1, 0, 0]
    assert found["clicked_before"] == pytest.approx(np.log([2, 2, 1, 1]))
    assert found["ordered_before"] == pytest.approx(np.log([1, 2, 1, 1]))
    assert found["pair_impressions"] == pytest.approx(np.log([91, 991, 1, 2]), rel=1e-5)
    assert found["pair_ctr"][:3] == pytest.approx([1 / 4, 1 / 3, 1 / 3], rel=1e-5)
    assert found["pair_cvr"][:3] == pytest.approx([1, 1 / 2, 1], rel=1e-5)
    assert found["item_click_rate"] == pytest.approx(np.log([10 / 120, 1 / 20, 1 / 20, 6 / 25]), rel=1e-5)
    assert found["item_order_rate"] == pytest.approx(np.log([1 / 29, 1 / 20, 1 / 20, 6 / 25]), rel=1e-5)
    assert found["shopper_clicks"] == pytest.approx([np.log(3)] * 4)


def test_similarity_that_may_not_be_believed_is_left_out() -> None:
    space = FeatureSpace(ITEMS, VECTORS)
    assert not space.history(QUERY, known(), False).views[0].any()
    found = scalars(space, known(), similar=False)
    assert found["cosine"] == [0] * 4 and found["similar"] == [0] * 4
    assert found["title_bm25"] == [1] * 4 and found["cosine_orders"][1] == 1


def test_unknown_shoppers_and_bare_catalogues() -> None:
    found = scalars(FeatureSpace(ITEMS, VECTORS), ShopperState())
    for name in ("price_gap", "category_clicks", "clicked_before", "shopper_orders", "cosine_clicks"):
        assert found[name] == [0] * 4, name
    bare = ITEMS.with_columns(price=pl.lit(None, pl.Float64), category=pl.lit([], pl.List(pl.String)))
    assert scalars(FeatureSpace(bare, VECTORS), known())["price_z"] == [0] * 4
    nothing = FeatureSpace(ITEMS.clear(), VECTORS[:0])
    assert not nothing.history(QUERY, known(), True).views[1:].any()


def test_rows_of_different_lengths_are_stacked() -> None:
    made = stacked([np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32)], 4)
    assert made.shape == (2, 4, 3) and made.sum() == 6


def test_counts_look_up_and_round_trip() -> None:
    pairs = pl.DataFrame(
        {
            "query": ["b", "a", "a"],
            "item": [1, 3, 0],
            "impressions": [5, 6, 7],
            "clicks": [1, 2, 3],
            "orders": [0, 1, 2],
        }
    )
    made = Counts.build(pairs, np.ones((4, 3)))
    assert made.of("a", np.array([0, 1, 3])).tolist() == [[7, 3, 2], [0, 0, 0], [6, 2, 1]]
    assert not made.of("zebra", np.array([0])).any()
    again = Counts.of_arrays(made.arrays())
    assert again.of("b", np.array([1])).tolist() == [[5, 1, 0]]
    assert Counts.none(4).of("a", np.arange(4)).shape == (4, 3)
    Counts.of_arrays(Counts.none(4).arrays())


def test_what_was_acted_on_was_seen() -> None:
    pairs = pl.DataFrame({"query": ["a"], "item": [0], "impressions": [0], "clicks": [0], "orders": [2]})
    assert known_counts(pairs, 2).of("a", np.array([0])).tolist() == [[2, 2, 2]]
    assert known_counts(pairs.select("query"), 2).alone.shape == (2, 3)


def test_rows_of_requests() -> None:
    made = Rows(*(np.zeros(0),) * 7)
    made = Rows(np.zeros((3, 1, 1)), np.array([2, 0, 3]), np.arange(5), *(np.zeros(5),) * 4)
    assert made.of(np.array([2, 0])).tolist() == [2, 3, 4, 0, 1] and made.of(np.array([1])).tolist() == []
    assert len(made) == 5


def test_impressions_know_what_lists_of_that_moment_would(shop) -> None:
    """The same request gets the same features, from the log and as served."""
    impressions = shop.impressions()
    analyser, fields = make_fields(shop.lists, RelevanceConfig(), SilentProgress())
    tastes, space = Tastes.build(shop.items), FeatureSpace(shop.items, shop.vectors)
    maker = make_maker(shop.lists, analyser, fields, tastes)
    rows = impression_rows(impressions, maker, tastes, space, SilentProgress())
    assert rows.views.shape[0] == len(impressions.query) and len(rows) == len(impressions)
    request = int(np.flatnonzero(impressions.fresh)[7])
    at = rows.of(np.array([request]))
    state = impressions.states(request, request + 1)[0]
    assert state.known
    query = impressions.queries[impressions.query[request]]
    history = space.history(impressions.query_vecs[impressions.query[request]], state, True)
    assert rows.views[request] == pytest.approx(history.views, abs=2e-3)
    items = rows.item[at]
    again = space.scalars(
        maker.matching(query, history.views[0], items),
        tastes.features(state, history.views[0], items, shop.vectors),
        history,
        items,
        space.vectors(items),
        np.log(impressions.popularity[at]),
        impressions.pair_before[at],
        impressions.item_before[at],
    )
    np.testing.assert_allclose(rows.scalars[at], again, rtol=1e-5)
    column = SCALARS.index("similar")
    stale = rows.of(np.flatnonzero(~impressions.fresh))
    assert not rows.scalars[stale][:, [column, SCALARS.index("cosine")]].any()
    assert not rows.views[~impressions.fresh, 0].any()


def test_rows_of_lists_are_their_candidates(shop) -> None:
    chosen = np.array([3, 0])
    features = np.ones((2, len(shop.items), 14), np.float32)
    space = FeatureSpace(shop.items, shop.vectors)
    rows = list_rows(shop.lists, chosen, features, space, True, SilentProgress())
    assert rows.counts.tolist() == [len(shop.items)] * 2
    assert rows.item.tolist() == shop.lists.candidates.items[chosen].ravel().tolist()
    assert rows.clicked.tolist() == shop.lists.gain[chosen].ravel().tolist()
    assert (rows.place == -1).all() and not rows.ordered.any()
