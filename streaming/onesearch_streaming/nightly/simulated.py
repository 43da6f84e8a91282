"""The simulated shop as a night's other side: its shoppers search, see what a release shows, and act.

Everything that comes out of it is simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from onesearch.data.demo.behaviour import PAGE, SEARCH_FADE
from onesearch.data.demo.catalogue import DAYS
from onesearch.data.demo.logs import keyword_engine
from onesearch.data.simulation import Requests, SimulatedShoppers
from onesearch.evaluation.metrics import Estimate
from onesearch.progress import Progress
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog

LISTED = 2 * PAGE
BATCH = 32
SECOND_PAGE = 0.3
"""Share of the simulated shoppers who read on to the second page."""


@dataclass
class ServedDay:
    """What a release showed on a day, and what came of it.

    Attributes:
        events: rows of the table ``interactions``. figures: orders a search, click rate, buyers, relevance.
    """

    events: pl.DataFrame
    figures: dict[str, float]


def answers(
    pipeline: Pipeline, requests: Requests, states: EventLog, progress: Progress, wide: int = LISTED
) -> list[list[str]]:
    """Lists of ``wide`` item ids at most, knowing each shopper as just before the search."""
    asked = requests.requests
    users = [one.user_id for one in asked]
    moments = np.array([int(one.ts.timestamp()) for one in asked], np.int64)
    ids = pipeline.context.index.items["item_id"].to_list()
    made: list[list[str]] = []
    with progress.task(f"{pipeline.release}: simulated searches", total=len(asked)) as task:
        for start in range(0, len(asked), BATCH):
            at = slice(start, start + BATCH)
            queries = [one.query for one in asked[at]]
            known = states.states_before(users[at], moments[at])
            found = pipeline.candidates(queries, known)
            best = pipeline.ranked(queries, known, found)
            made += [[ids[item] for item in row[:wide].tolist()] for row in best]
            task.advance(len(queries))
    return made


def serve_day(
    shoppers: SimulatedShoppers,
    pipeline: Pipeline,
    requests: Requests,
    states: EventLog,
    seed: int,
    explore: float,
    progress: Progress,
) -> ServedDay:
    """A day of searches that a release answers."""
    depth = 50
    wide = answers(pipeline, requests, states, progress, LISTED + depth)
    lists, chances = explored(wide, explore, LISTED, np.random.default_rng([seed, 0xE7]))
    outcome = shoppers.act(requests, lists, seed, pipeline.release)
    names = [one.request_id for one in requests.requests]
    shown = pl.DataFrame(
        {
            "request_id": [name for name, row in zip(names, lists, strict=True) for _ in row],
            "position": [place for row in lists for place in range(len(row))],
            "chance": [chance for row in chances for chance in row],
        },
        schema={"request_id": pl.String, "position": pl.Int32, "chance": pl.Float32},
    )
    events = outcome.events.join(shown, on=["request_id", "position"], how="left", maintain_order="left")
    return ServedDay(events.with_columns(propensity="chance").drop("chance"), outcome.figures())


def explored(
    ranked: Sequence[Sequence[str]], share: float, places: int, rng: np.random.Generator
) -> tuple[list[list[str]], list[list[float]]]:
    """First places of rankings, some given to items from below, and the chance of each choice.

    Each place is given away with probability ``share``, to one of those below, uniformly, none twice.
    """
    lists, chances = [], []
    for row in ranked:
        page, below = list(row[:places]), row[places:]
        chance = [1.0 - share if below else 1.0] * len(page)
        gives = np.flatnonzero(rng.random(len(page)) < share)[: len(below)]
        for place, item in zip(gives.tolist(), rng.permutation(len(below)).tolist(), strict=False):
            page[place], chance[place] = below[item], share / len(below)
        lists.append(page)
        chances.append(chance)
    return lists, chances


def keyword_day(shoppers: SimulatedShoppers, searches: int, number: int, seed: int) -> pl.DataFrame:
    """A day that the shop's keyword engine answers: quick, where no release has to be judged."""
    world = shoppers.world
    requests = shoppers.requests(searches, seed, number)
    rng = np.random.default_rng([world.seed, seed, number, 0x4E])
    items, _, _ = keyword_engine(world, requests.needs, np.ones(len(world.catalogue)), DAYS + number, rng)
    ids = world.listings.items["item_id"].to_list()
    lists = [[ids[item] for item in row if item >= 0] for row in items.tolist()]
    return shoppers.act(requests, lists, seed, "simulated-keyword-engine").events


def expected_orders(
    shoppers: SimulatedShoppers, requests: Requests, ranked: Sequence[Sequence[str]]
) -> np.ndarray:
    """f64[R], orders that each search leads to in expectation, by the simulated shoppers' own chances:
    Σ p(seen) · p(click) · p(order) over the list. The same luck for everybody, on average over all luck."""
    number = {item: at for at, item in enumerate(shoppers.world.listings.items["item_id"].to_list())}
    items = np.full((len(ranked), LISTED), -1, np.int64)
    for row, answer in enumerate(ranked):
        items[row, : min(LISTED, len(answer))] = [number[item] for item in answer[:LISTED]]
    click, order = shoppers.world.behaviour.chances(requests.needs, items)
    place = np.arange(LISTED)
    seen = (1.0 + place) ** -SEARCH_FADE * np.where(place < PAGE, 1.0, SECOND_PAGE)
    return np.asarray((seen * click * order).sum(axis=1), np.float64)


def lift_of(ours: np.ndarray, base: np.ndarray, who: np.ndarray, draws: int = 2_000) -> Estimate:
    """Lift in percent of a sum over searches f64[R] over another, with the middle 95 % of a bootstrap over
    shoppers i64[R], paired: both met the same searches."""
    people, at = np.unique(who, return_inverse=True)
    totals = np.zeros((len(people), 2))
    np.add.at(totals, at.reshape(-1), np.stack([ours, base], axis=1))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    drawn = weights @ totals
    lifts = 100 * (drawn[:, 0] / np.maximum(drawn[:, 1], 1e-12) - 1)
    low, high = np.quantile(lifts, (0.025, 0.975))
    return Estimate(float(100 * (ours.sum() / max(base.sum(), 1e-12) - 1)), float(low), float(high))
