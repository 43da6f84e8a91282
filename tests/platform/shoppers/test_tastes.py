"""What is liked of items beside what they are, by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from onesearch.contracts.user_encoder import ShopperState
from onesearch.data.schemas import ATTRIBUTES
from onesearch.shoppers import tastes
from onesearch.shoppers.state import Ring, item_keys
from onesearch.shoppers.tastes import Tastes

COLOURS, BRANDS = ("navy", "Navy", "red", "red"), ("oak", "elm", "oak", None)


@pytest.fixture
def items() -> pl.DataFrame:
    rows = [
        [{"type": "Color", "value": colour}, {"type": "Entity", "value": "desk"}]
        + ([{"type": "Brand", "value": brand}] if brand else [])
        for colour, brand in zip(COLOURS, BRANDS, strict=True)
    ]
    return pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "price": [np.e**2, np.e**4, None, 0.0],
            "category": [["home", "desk"]] * 4,
            "attributes": pl.Series(rows, dtype=ATTRIBUTES),
        }
    )


def state(clicks: str, orders: str = "") -> ShopperState:
    def ring(ids: str) -> Ring:
        return Ring(item_keys(list(ids)), np.arange(len(ids), dtype=np.uint32), np.zeros(len(ids), np.uint8))

    return ShopperState("u", ring(clicks), ring(orders))


VECTORS = np.eye(4, dtype=np.float16)


def of(items: pl.DataFrame, shopper: ShopperState, alpha: float = 2.0) -> np.ndarray:
    made = Tastes.of_arrays(Tastes.build(items).arrays())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tastes, "ALPHA", alpha)
        patch.setattr(tastes, "ALPHA_HERE", alpha)
        patch.setattr(tastes, "HERE", 1)
        query = np.array([0, 1, 0, 0], np.float32)
        return made.features(shopper, query, np.arange(4), VECTORS)


def test_affinity_is_the_log_odds_of_values(items: pl.DataFrame) -> None:
    # Navy: 2 of 4 items; oak: 2 of the 3 with a brand. Of a and b both are navy, one of two brands is oak.
    navy, red = np.log((2 + 2 * 0.5) / (2 + 2) / 0.5), np.log((0 + 2 * 0.5) / (2 + 2) / 0.5)
    oak, elm = np.log((1 + 2 * 2 / 3) / (2 + 2) / (2 / 3)), np.log((1 + 2 / 3) / (2 + 2) / (1 / 3))
    wanted = [navy + oak, navy + elm, red + oak, red]
    assert of(items, state("a", "b"))[:, 0] == pytest.approx(wanted, abs=1e-6)


def test_what_is_most_like_the_query_says_what_is_liked_here(items: pl.DataFrame) -> None:
    here = of(items, state("ab"))[:, 1]
    assert here == pytest.approx(of(items, state("b"))[:, 0], abs=1e-6)


def test_the_fit_of_a_price_is_how_near_its_level_is(items: pl.DataFrame) -> None:
    # Levels: log price less the category's mean: -1, 1; without a price 0.
    assert of(items, state("b"))[:, 2] == pytest.approx([-4, 0, -1, -1], abs=1e-5)


@pytest.mark.parametrize("shopper", [ShopperState(), state("xyz")])
def test_of_whom_nothing_is_known_nothing_is_said(items: pl.DataFrame, shopper: ShopperState) -> None:
    assert not of(items, shopper).any()


def test_catalogues_without_attributes(items: pl.DataFrame) -> None:
    bare = items.select("item_id")
    assert not of(bare, state("ab"))[:, :2].any()
    branded = items.select("item_id", brand=pl.Series(BRANDS))
    assert of(branded, state("a"))[:, 0] == pytest.approx(
        [
            np.log((1 + 4 / 3) / 3 / (2 / 3)),
            np.log((2 / 3) / 3 / (1 / 3)),
            np.log((1 + 4 / 3) / 3 / (2 / 3)),
            0,
        ],
        abs=1e-6,
    )
