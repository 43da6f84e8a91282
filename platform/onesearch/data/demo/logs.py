"""A year of simulated logs: a keyword engine and a feed serve the shoppers, month by month.

The engine knows titles, attributes and past clicks, not the truth. With probability :data:`EXPLORE` a place
is given to a random item of the same group instead of the engine's choice, and every impression carries its
propensity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from onesearch.data.demo.behaviour import PAGE, Acts
from onesearch.data.demo.catalogue import DAYS
from onesearch.data.demo.needs import Needs, query_texts
from onesearch.data.demo.world import START, World

MONTHS = 12
EXPLORE = 0.1
LISTED = 2 * PAGE
FEED = 12
ENGINE = "simulated-keyword-engine"
FEED_ENGINE = "simulated-feed"
ACTIONS = ("impression", "click", "order")
_LOGS, _JUDGES = 10, 11  # streams of random numbers, after those of the world
_LUCK = 0  # the seed of the logged year's luck; simulated shoppers who act later have others
_MORE_QUERIES = (0.4, 0.3)  # how many sessions go on to a second query, and of those to a third
_REFINES = 0.6
_AGEING = 0.85  # of the engine's click counts, a month
_MICROS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Served:
    """R requests, the lists they got and what came of them.

    Attributes:
        session: i64[R]. start: i64[R], microseconds since day 0. texts: queries; None for feeds.
        lists: i64[R, K], item numbers, −1 past the end. scores, propensity: f32[R, K].
        release: the name of what served them.
    """

    needs: Needs
    session: np.ndarray
    start: np.ndarray
    texts: list[str] | None
    lists: np.ndarray
    scores: np.ndarray | None
    propensity: np.ndarray | None
    acts: Acts
    release: str


def year_of_logs(world: World) -> Iterator[pl.DataFrame]:
    """The store's table ``interactions``, a month at a time, in order of time."""
    rng = np.random.default_rng([world.seed, _LOGS])
    popularity = np.ones(len(world.catalogue))
    first = 0
    for month in range(MONTHS):
        days = (month * DAYS // MONTHS, (month + 1) * DAYS // MONTHS)
        searched = _searches(world, days, popularity, first, rng)
        browsed = _feeds(world, days, popularity, first + len(searched.needs), rng)
        first += len(searched.needs) + len(browsed.needs)
        yield pl.concat([events(world, searched), events(world, browsed)]).sort("ts", "event_id")
        popularity *= _AGEING
        for served in (searched, browsed):
            for acts, worth in ((served.acts.clicked, 1.0), (served.acts.ordered, 3.0)):
                np.add.at(popularity, served.lists[acts], worth)


def _searches(
    world: World, days: tuple[int, int], popularity: np.ndarray, first: int, rng: np.random.Generator
) -> Served:
    wanted = world.size.searches // MONTHS
    sessions = int(wanted / (1 + _MORE_QUERIES[0] + _MORE_QUERIES[0] * _MORE_QUERIES[1]))
    who = rng.choice(len(world.people), size=sessions, p=world.people.activity)
    day = rng.integers(*days, size=sessions)
    start = day * _MICROS_A_DAY + rng.integers(6 * 3600, 24 * 3600 - 600, size=sessions) * 1_000_000
    number = np.arange(sessions)
    parts = [world.demand.search(who, day, number.astype(np.uint64), rng)]
    numbers, starts = [number], [start]
    for often in _MORE_QUERIES:
        goes_on = np.flatnonzero(rng.random(len(parts[-1])) < often)
        before = parts[-1].take(goes_on)
        again = world.demand.refined(before, before.key, rng)
        other = world.demand.search(before.who, before.day, before.key, rng)
        refines = (rng.random(len(before)) < _REFINES)[:, None]
        same = refines[:, 0]
        parts.append(
            Needs(
                before.who,
                before.day,
                np.where(same, again.entity, other.entity),
                np.where(refines, again.kinds, other.kinds),
                np.where(refines, again.values, other.values),
                before.key,
            )
        )
        numbers.append(numbers[-1][goes_on])
        starts.append(starts[-1][goes_on] + rng.integers(60, 180, size=len(goes_on)) * 1_000_000)
    needs = Needs.joined(parts)
    needs = replace(needs, key=np.arange(first, first + len(needs)).astype(np.uint64))
    lists, scores, propensity = keyword_engine(world, needs, popularity, days[0], rng)
    texts = query_texts(needs, world.words, world.catalogue, world.people, rng)
    acts = world.behaviour.act(needs, lists, _LUCK)
    session = np.concatenate(numbers) + first
    return Served(needs, session, np.concatenate(starts), texts, lists, scores, propensity, acts, ENGINE)


def keyword_engine(
    world: World, needs: Needs, popularity: np.ndarray, day: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists i64[R, 20], scores and propensities f32[R, 20], by words known of items and by popularity."""
    catalogue, said = world.catalogue, world.listings.said
    lists = np.full((len(needs), LISTED), -1, dtype=np.int64)
    scores = np.zeros(lists.shape, dtype=np.float32)
    propensity = np.ones(lists.shape, dtype=np.float32)
    groups = np.array([kind.group for kind in world.words.entities])[needs.entity]
    language = world.people.language[needs.who]
    live = catalogue.live(day)
    for group in range(len(world.words.groups)):
        for speaks in (0, 1):
            rows = np.flatnonzero((groups == group) & (language == speaks))
            pool = np.flatnonzero((catalogue.group == group) & (catalogue.language == speaks) & live)
            if not len(rows) or not len(pool):
                continue
            score = 1.5 * (catalogue.entity[pool][None, :] == needs.entity[rows][:, None])
            for slot in range(needs.kinds.shape[1]):
                kind, value = needs.kinds[rows, slot], needs.values[rows, slot]
                safe = np.maximum(kind, 0)
                holds = (catalogue.values[pool][:, safe] == value) & said[pool][:, safe] & (kind >= 0)
                score = score + 0.6 * holds.T
            score = score + 0.12 * np.log(popularity[pool]) + 0.15 * rng.gumbel(size=score.shape)
            best = np.argsort(-score, axis=1, kind="stable")
            chosen, chance = _explored(best, rng)
            lists[rows[:, None], np.arange(chosen.shape[1])] = pool[chosen]
            scores[rows[:, None], np.arange(chosen.shape[1])] = np.take_along_axis(score, chosen, axis=1)
            propensity[rows[:, None], np.arange(chosen.shape[1])] = chance
    return lists, scores, propensity


def _explored(best: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The first places of rankings i64[R, P], some given to lower items, with the chance of each choice."""
    rows, size = best.shape
    places = min(LISTED, size)
    rest = size - places
    if not rest:
        return best, np.ones(best.shape, dtype=np.float32)
    # From a random place onwards, so that no item below is drawn twice for one list.
    below = places + (rng.integers(rest, size=(rows, 1)) + np.arange(places)) % rest
    explores = (rng.random((rows, places)) < EXPLORE) & (np.arange(places) < rest)
    at = np.where(explores, below, np.arange(places))
    chance = np.where(explores, EXPLORE / rest, 1.0 - EXPLORE * (np.arange(places) < rest))
    return np.take_along_axis(best, at, axis=1), chance.astype(np.float32)


def _feeds(
    world: World, days: tuple[int, int], popularity: np.ndarray, first: int, rng: np.random.Generator
) -> Served:
    """Feeds show, place by place, a popular item of a department that the shopper is known to like."""
    count = world.size.feeds // MONTHS
    who = rng.choice(len(world.people), size=count, p=world.people.activity)
    day = rng.integers(*days, size=count)
    needs = world.demand.browse(who, day, np.arange(first, first + count).astype(np.uint64))
    catalogue = world.catalogue
    departments = len(world.words.departments)
    known = 0.7 * world.people.interest[who] + 0.3 / departments
    department = (
        (rng.random((count, FEED, 1)) > np.cumsum(known, axis=1)[:, None, :])
        .sum(axis=2)
        .clip(max=departments - 1)
    )
    weight = np.where(catalogue.live(days[0]), popularity**0.6, 0.0)
    shelf = catalogue.department * 2 + catalogue.language
    order = np.argsort(shelf, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    edges = np.searchsorted(shelf[order], np.arange(2 * departments + 1))
    want = department * 2 + world.people.language[who][:, None]
    low, high = total[edges[want]], total[edges[want + 1]]
    at = np.searchsorted(total, low + rng.random((count, FEED)) * (high - low), side="right") - 1
    lists = order[at.clip(max=len(order) - 1)]
    chance = np.take_along_axis(known, department, axis=1) * weight[lists] / (high - low)
    lists, chance = _without_repeats(lists, chance)
    acts = world.behaviour.act(needs, lists, _LUCK)
    start = day * _MICROS_A_DAY + rng.integers(6 * 3600, 24 * 3600 - 600, size=count) * 1_000_000
    session = first + np.arange(count)
    return Served(needs, session, start, None, lists, None, chance.astype(np.float32), acts, FEED_ENGINE)


def _without_repeats(lists: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists with later repeats taken out, moved together, −1 at the end."""
    repeats = np.zeros(lists.shape, dtype=bool)
    for place in range(1, lists.shape[1]):
        repeats[:, place] = (lists[:, :place] == lists[:, place : place + 1]).any(axis=1)
    order = np.argsort(repeats, axis=1, kind="stable")
    return np.take_along_axis(np.where(repeats, -1, lists), order, axis=1), np.take_along_axis(
        chance, order, axis=1
    )


def events(world: World, served: Served, names: pl.Series | None = None) -> pl.DataFrame:
    """Rows of the table ``interactions``: an impression for each item shown, then clicks, then orders.

    ``names`` are the requests' ids; by default they are numbered by their keys.
    """
    ids, users = world.listings.items["item_id"], world.user_ids
    acts = served.acts
    parts = []
    for action, done in zip(ACTIONS, (acts.shown, acts.clicked, acts.ordered), strict=True):
        row, place = np.nonzero(done)
        number = ACTIONS.index(action)
        # A click some seconds after it was seen, further down later; an order a minute after its click.
        delay = place + (number > 0) * (2 + 3 * place) * 1_000_000 + (number > 1) * 60_000_000
        parts.append(
            pl.DataFrame(
                {
                    "row": row,
                    "micros": served.start[row] + delay,
                    "item": served.lists[row, place],
                    "action": pl.Series([action], dtype=pl.String).new_from_index(0, len(row)),
                    "position": place.astype(np.int32),
                    "score": _at(served.scores, row, place),
                    "propensity": _at(served.propensity, row, place),
                }
            )
        )
    flat = pl.concat(parts)
    row = flat["row"].to_numpy()
    names = pl.Series([f"r{key}" for key in served.needs.key.tolist()]) if names is None else names
    request = names.gather(row)
    texts = pl.Series(served.texts or [None] * len(served.needs), dtype=pl.String)
    return flat.select(
        event_id=pl.concat_str(request, pl.lit("-"), pl.col("action").str.head(1), "position"),
        ts=(pl.lit(START).cast(pl.Datetime("us", "UTC")) + pl.duration(microseconds="micros")),
        user_id=users.gather(served.needs.who[row]),
        session_id=pl.concat_str(pl.lit("w"), pl.Series(served.session[row])),
        request_id=request,
        scene=pl.lit("recommend" if served.texts is None else "search"),
        query=texts.gather(row),
        item_id=ids.gather(flat["item"]),
        action="action",
        position="position",
        score="score",
        propensity="propensity",
        release=pl.lit(served.release or None, pl.String),
    )


def _at(values: np.ndarray | None, row: np.ndarray, place: np.ndarray) -> pl.Series:
    if values is None:
        return pl.Series([None], dtype=pl.Float32).new_from_index(0, len(row))
    return pl.Series(values[row, place].astype(np.float32))


def judgements(world: World, queries: int, judged: int = 12) -> pl.DataFrame:
    """The store's table ``relevance``: simulated judges grade 0, ⅓, ⅔ or 1, and are sometimes a step off."""
    rng = np.random.default_rng([world.seed, _JUDGES])
    who = rng.choice(len(world.people), size=queries, p=world.people.activity)
    needs = world.demand.search(
        who, rng.integers(DAYS, size=queries), np.zeros(queries, dtype=np.uint64), rng
    )
    texts = query_texts(needs, world.words, world.catalogue, world.people, rng)
    popularity = np.ones(len(world.catalogue))
    lists, _, _ = keyword_engine(world, needs, popularity, DAYS, rng)
    lists[:, judged - 2 : judged] = rng.integers(len(world.catalogue), size=(queries, 2))
    lists = lists[:, :judged]
    truth = world.behaviour.relevance(needs, lists) * 3 + rng.normal(size=lists.shape) * 0.35
    grades = np.round(truth).clip(0, 3) / 3
    row, place = np.nonzero(lists >= 0)
    return pl.DataFrame(
        {
            "query": pl.Series(texts).gather(row),
            "item_id": world.listings.items["item_id"].gather(lists[row, place]),
            "grade": grades[row, place].astype(np.float32),
        }
    ).unique(["query", "item_id"], keep="first", maintain_order=True)
