"""Simulated shoppers who act: they search, click and order by their hidden tastes.

Everything measured here is simulated. Arms are compared with common random numbers: the same request, item
and seed meet the same luck in every arm, so that differences between arms are differences of their lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from onesearch.data.demo.behaviour import Acts
from onesearch.data.demo.catalogue import DAYS
from onesearch.data.demo.logs import Served, events
from onesearch.data.demo.needs import Needs, query_texts
from onesearch.data.demo.world import SIZES, START, World
from onesearch.data.importers.demo import SIMULATION, WORLD_VERSION
from onesearch.data.schemas import TIME
from onesearch.data.store import Store
from onesearch.errors import ArtifactError, UsageError

ORACLE, RANDOM = "oracle", "random"
_NEEDS, _RANDOM_ROW = 20, 21  # streams of random numbers
_BATCH = 256


def day_of(number: int) -> date:
    """The date of a day after the logged year, 0 the first."""
    return (START + timedelta(days=DAYS + number)).date()


@dataclass(frozen=True)
class ShopRequest:
    """One search of a simulated shopper, as a search engine sees it."""

    request_id: str
    user_id: str
    query: str
    ts: datetime


SearchFunction = Callable[[list[ShopRequest]], Sequence[Sequence[str]]]
"""What is measured: requests → item ids, best first, a list for each request."""


@dataclass(frozen=True)
class Requests:
    """Searches of one day or several, with the needs behind them that only the simulation knows."""

    requests: list[ShopRequest]
    needs: Needs

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True)
class Outcome:
    """What R simulated searches led to.

    Attributes:
        impressions, clicks, orders: i64[R]. relevance: f32[R], true relevance of the first ten places,
            empty ones 0.
        who: i64[R], the shoppers' numbers.
        events: rows of the store's table ``interactions``.
    """

    who: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    orders: np.ndarray
    relevance: np.ndarray
    events: pl.DataFrame

    def figures(self) -> dict[str, float]:
        """Orders a search, clicks an impression, share of the shoppers who ordered, mean relevance."""
        return {
            "orders_per_search": float(self.orders.mean()),
            "ctr": float(self.clicks.sum() / max(1, self.impressions.sum())),
            "buyers": len(np.unique(self.who[self.orders > 0])) / len(np.unique(self.who)),
            "relevance": float(self.relevance.mean()),
        }


class SimulatedShoppers:
    """The shoppers of a demo store, ready to act after the logged year."""

    def __init__(self, world: World) -> None:
        self.world = world

    @classmethod
    def open(cls, store: Store) -> SimulatedShoppers:
        """Make the world of a demo store again, from its seed.

        Raises UsageError where the store is not a demo store, ArtifactError where this OneSearch, or this
        numpy, makes another world of the seed than the one in the store.
        """
        about = store.extra(SIMULATION)
        if not about:
            raise UsageError(
                f"{store.path} holds {store.source}, not a simulated shop: only those have shoppers who act"
            )
        world = (
            World.make(SIZES[about["size"]], int(about["seed"]))
            if about["version"] == WORLD_VERSION
            else None
        )
        if world is None or world.fingerprint() != about["fingerprint"]:
            raise ArtifactError(
                f"{store.path}: made from another version of the simulated world; make it again"
            )
        return cls(world)

    def requests(self, count: int, seed: int, day: int = 0) -> Requests:
        """``count`` searches on a day after the logged year (0 is the first), the same for everybody."""
        world = self.world
        rng = np.random.default_rng([world.seed, _NEEDS, seed, day])
        who = rng.choice(len(world.people), size=count, p=world.people.activity)
        key = rng.integers(0, 2**63, size=count, dtype=np.uint64)
        needs = world.demand.search(who, np.full(count, DAYS + day), key, rng)
        texts = query_texts(needs, world.words, world.catalogue, world.people, rng)
        seconds = np.sort(rng.integers(6 * 3600, 24 * 3600, size=count)).tolist()
        midnight = START + timedelta(days=DAYS + day)
        made = [
            ShopRequest(
                f"s{seed}-{day}-{at}", world.user_ids[int(one)], text, midnight + timedelta(seconds=second)
            )
            for at, (one, text, second) in enumerate(zip(who, texts, seconds, strict=True))
        ]
        return Requests(made, needs)

    def act(
        self, requests: Requests, ranked: Sequence[Sequence[str]], seed: int = 0, release: str = ""
    ) -> Outcome:
        """What the shoppers do with their lists. Raises UsageError for an unknown or repeated item."""
        return self._outcome(requests, self._numbers(requests, ranked), seed, release)

    def run(self, search: SearchFunction, requests: Requests, seed: int = 0, release: str = "") -> Outcome:
        """Search for every request, in batches, and act."""
        ranked: list[Sequence[str]] = []
        for start in range(0, len(requests), _BATCH):
            asked = requests.requests[start : start + _BATCH]
            answers = list(search(asked))
            if len(answers) != len(asked):
                raise UsageError(f"the search function answered {len(answers)} of {len(asked)} requests")
            ranked += answers
        return self.act(requests, ranked, seed, release)

    def oracle(self, requests: Requests, k: int = 20) -> list[list[str]]:
        """Lists by p(click)·p(order), as one who knows every taste makes them: hardly to be beaten."""
        needs, catalogue = requests.needs, self.world.catalogue
        groups = np.array([kind.group for kind in self.world.words.entities])[needs.entity]
        best = np.full((len(needs), k), -1, dtype=np.int64)
        for group in np.unique(groups):
            pool = np.flatnonzero(catalogue.group == group)
            for rows in _chunks(np.flatnonzero(groups == group), 200):
                some = needs.take(rows)
                click, order = self.world.behaviour.chances(
                    some, np.broadcast_to(pool, (len(rows), len(pool)))
                )
                first = np.argsort(-click * order, axis=1, kind="stable")[:, :k]
                best[rows, : first.shape[1]] = pool[first]
        return self._ids_of(best)

    def wanted(self, requests: Requests, k: int = 10) -> pl.DataFrame:
        """What each shopper wants most: the oracle's first ``k`` items of every request, as a query file.

        Columns query, user_id, ts, item_id and grade, 1 for the best item of a request and falling to
        1 / k for its last: truth that stands in no log.
        """
        rows = [
            (asked.query, asked.user_id, asked.ts, item, 1 - place / k)
            for asked, items in zip(requests.requests, self.oracle(requests, k), strict=True)
            for place, item in enumerate(items)
        ]
        names = ("query", "user_id", "ts", "item_id", "grade")
        types = (pl.String(), pl.String(), TIME, pl.String(), pl.Float64())
        found = pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")
        return found.unique(["query", "user_id", "item_id"], keep="first", maintain_order=True)

    def random(self, requests: Requests, k: int = 20, seed: int = 0) -> list[list[str]]:
        """Lists of items drawn from all on sale."""
        rng = np.random.default_rng([self.world.seed, _RANDOM_ROW, seed])
        on_sale = np.flatnonzero(self.world.catalogue.live(int(requests.needs.day[0])))
        return self._ids_of(
            np.stack(
                [rng.choice(on_sale, size=min(k, len(on_sale)), replace=False) for _ in range(len(requests))]
            )
        )

    def compare(
        self,
        arms: Mapping[str, SearchFunction],
        searches: int,
        seeds: Sequence[int],
        base: str | None = None,
        day: int = 0,
    ) -> pl.DataFrame:
        """Run every arm, an oracle and a random one on the same requests with the same luck.

        One row a system: system, orders_per_search, ctr, buyers, relevance, and ``lift_percent`` of
        orders_per_search over ``base`` (the first arm by default) with a 95 % interval ``low`` … ``high``:
        a bootstrap over shoppers, paired, since every arm met the same shoppers and luck.
        """
        if not arms or (base is not None and base not in arms):
            raise UsageError(f"no arm to compare with: {base!r} of {sorted(arms)}")
        outcomes: dict[str, list[Outcome]] = {name: [] for name in (*arms, ORACLE, RANDOM)}
        for seed in seeds:
            requests = self.requests(searches, seed, day)
            for name, search in arms.items():
                outcomes[name].append(self.run(search, requests, seed))
            outcomes[ORACLE].append(self.act(requests, self.oracle(requests), seed))
            outcomes[RANDOM].append(self.act(requests, self.random(requests, seed=seed), seed))
        reference = _orders_by_shopper(outcomes[base or next(iter(arms))], len(self.world.people))
        rows = []
        for name, runs in outcomes.items():
            means = {key: float(np.mean([run.figures()[key] for run in runs])) for key in runs[0].figures()}
            lift, low, high = _lift(_orders_by_shopper(runs, len(self.world.people)), reference)
            rows.append({"system": name, **means, "lift_percent": lift, "low": low, "high": high})
        return pl.DataFrame(rows)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {item: number for number, item in enumerate(self.world.listings.items["item_id"].to_list())}

    def _numbers(self, requests: Requests, ranked: Sequence[Sequence[str]]) -> np.ndarray:
        if len(ranked) != len(requests):
            raise UsageError(f"{len(ranked)} lists for {len(requests)} requests")
        items = np.full((len(ranked), max([1, *map(len, ranked)])), -1, dtype=np.int64)
        for row, answer in enumerate(ranked):
            numbers = [self._number.get(item, -1) for item in answer]
            if -1 in numbers:
                raise UsageError(f"list {row}: the simulated shop has no item {answer[numbers.index(-1)]!r}")
            if len(set(numbers)) != len(numbers):
                raise UsageError(f"list {row}: an item stands in it twice")
            items[row, : len(numbers)] = numbers
        return items

    def _ids_of(self, numbers: np.ndarray) -> list[list[str]]:
        ids = self.world.listings.items["item_id"].to_list()
        return [[ids[number] for number in row if number >= 0] for row in numbers.tolist()]

    def _outcome(self, requests: Requests, items: np.ndarray, seed: int, release: str) -> Outcome:
        world, needs = self.world, requests.needs
        acts: Acts = world.behaviour.act(needs, items, seed + 1)  # 0 is the luck of the logged year
        top = items[:, :10]
        relevance = world.behaviour.relevance(needs, top).sum(axis=1) / 10
        start = np.array(
            [round((request.ts - START).total_seconds() * 1e6) for request in requests.requests],
            dtype=np.int64,
        )
        served = Served(
            needs,
            np.arange(len(needs)),
            start,
            [one.query for one in requests.requests],
            items,
            None,
            None,
            acts,
            release,
        )
        names = pl.Series([one.request_id for one in requests.requests])
        return Outcome(
            who=needs.who,
            impressions=acts.shown.sum(axis=1),
            clicks=acts.clicked.sum(axis=1),
            orders=acts.ordered.sum(axis=1),
            relevance=relevance,
            events=events(world, served, names),
        )


def _chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _orders_by_shopper(runs: Sequence[Outcome], shoppers: int) -> np.ndarray:
    """Orders and searches of each shopper over all runs, f64[S, 2]."""
    total = np.zeros((shoppers, 2))
    for run in runs:
        np.add.at(total, run.who, np.stack([run.orders, np.ones(len(run.orders))], axis=1))
    return total


def _lift(arm: np.ndarray, base: np.ndarray, draws: int = 1000) -> tuple[float, float, float]:
    """Difference of orders a search in percent, with the middle 95 % of a bootstrap over shoppers."""
    present = base[:, 1] > 0
    arm, base = arm[present], base[present]
    if not base[:, 0].sum():
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(base), np.full(len(base), 1 / len(base)), size=draws)
    lifts = (weights @ arm[:, 0]) / np.maximum(weights @ base[:, 0], 1.0) - 1
    low, high = np.percentile(lifts, [2.5, 97.5])
    return 100 * (arm[:, 0].sum() / base[:, 0].sum() - 1), 100 * float(low), 100 * float(high)
