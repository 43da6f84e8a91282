"""A simulated A/B: every arm meets the same requests with the same luck; intervals are paired, by shopper.

A seed draws searches of the day after the log. The lists of all arms meet ``lucks`` draws of luck, the same
for every arm: who looks, clicks and orders is decided by common random numbers, so that differences between
arms are differences of their lists. Intervals are a bootstrap over shoppers, with all that a shopper did in
all seeds drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from onesearch.data.demo.behaviour import PAGE
from onesearch.data.simulation import ORACLE, RANDOM, Requests, SimulatedShoppers
from onesearch.evaluation.arms import Answers

SEARCHES, CLICKS, IMPRESSIONS, ORDERS, RELEVANCE, BEST = range(6)
_RESAMPLES = 2_000
_SEED = 20


@dataclass
class Trial:
    """Sums of what shoppers did with the lists of each arm.

    Attributes:
        shoppers: who acts. item_ids: of the arms' item numbers. lucks: draws of luck that a seed meets.
        sums: arm → f64[shoppers, 6]: searches, clicks, impressions, orders, summed relevance of the first
            ten, and orders had its candidates been ordered by one who knows every taste.
        by_seed: arm → orders a search of each seed. bought: arm → share of the shoppers who ordered, by seed
            and luck.
    """

    shoppers: SimulatedShoppers
    item_ids: Sequence[str]
    lucks: int
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    by_seed: dict[str, list[float]] = field(default_factory=dict)
    bought: dict[str, list[float]] = field(default_factory=dict)

    def add(self, requests: Requests, answers: Mapping[str, Answers], seed: int) -> None:
        """Let shoppers act on the answers of every arm, and on an oracle's and a random one's."""
        for name, answer in answers.items():
            reached = self._numbers(answer.reached)
            self._act(name, requests, self._numbers(answer.shown), self.best(requests, reached), seed)
        for name, lists in (
            (ORACLE, self.shoppers.oracle(requests)),
            (RANDOM, self.shoppers.random(requests, seed=seed)),
        ):
            shown = np.full((len(lists), max([1, *map(len, lists)])), -1, np.int64)
            for row, items in zip(shown, lists, strict=True):
                row[: len(items)] = [self._number[item] for item in items]
            self._act(name, requests, shown, shown, seed)

    def _act(self, name: str, requests: Requests, shown: np.ndarray, best: np.ndarray, seed: int) -> None:
        """``shown`` and ``best`` i64[R, K]: the world's item numbers, -1 behind the last."""
        behaviour, who = self.shoppers.world.behaviour, requests.needs.who
        relevance = behaviour.relevance(requests.needs, shown[:, :PAGE]).sum(axis=1) / PAGE
        total = self.sums.setdefault(name, np.zeros((len(self.shoppers.world.people), 6)))
        orders = 0.0
        for luck in range(self.lucks):
            lot = seed * 1_000 + luck + 1  # 0 is the luck of the logged year
            real = behaviour.act(requests.needs, shown, lot)
            ideal = real if best is shown else behaviour.act(requests.needs, best, lot)
            ordered = real.ordered.sum(axis=1)
            sums = (np.ones(len(who)), real.clicked.sum(axis=1), real.shown.sum(axis=1), ordered, relevance)
            np.add.at(total, who, np.stack([*sums, ideal.ordered.sum(axis=1)], axis=1))
            orders += float(ordered.mean())
            bought = len(np.unique(who[ordered > 0])) / len(np.unique(who))
            self.bought.setdefault(name, []).append(bought)
        self.by_seed.setdefault(name, []).append(orders / self.lucks)

    def best(self, requests: Requests, reached: np.ndarray, k: int = 20) -> np.ndarray:
        """The reached items by p(click)·p(order), i64[R, ≤ k]: what the last stage could have made of them.

        Left out is what has nothing to do with the request: a shopper may well order it for sheer liking, but
        a search engine that shows it is none. The oracle keeps to the request's group of things as well.
        """
        behaviour = self.shoppers.world.behaviour
        click, order = behaviour.chances(requests.needs, reached)
        fits = (reached >= 0) & (behaviour.relevance(requests.needs, reached) > 0)
        first = np.argsort(-np.where(fits, click * order, -1.0), axis=1, kind="stable")[:, :k]
        best: np.ndarray = np.take_along_axis(np.where(fits, reached, -1), first, axis=1)
        return best

    @cached_property
    def _number(self) -> dict[str, int]:
        ids = self.shoppers.world.listings.items["item_id"].to_list()
        return {item: number for number, item in enumerate(ids)}

    @cached_property
    def _of_world(self) -> np.ndarray:
        return np.array([self._number[item] for item in self.item_ids], np.int64)

    def _numbers(self, items: np.ndarray) -> np.ndarray:
        """The world's numbers i64[R, K] of the arms'."""
        return np.where(items >= 0, self._of_world[np.maximum(items, 0)], -1)

    def rows(self, against: str, order: Sequence[str]) -> list[dict[str, Any]]:
        """One row an arm, in this order.

        ``system``, ``orders_per_search``, ``ctr`` (clicks an impression), ``buyers`` (share of the shoppers
        of a day who ordered), ``lift_percent`` of the orders over ``against`` with ``low`` and ``high``,
        ``relevance`` of the first ten with ``relevance_lift`` over ``against``, ``relevance_low`` and
        ``relevance_high``, and ``best_order``: orders a search, had one who knows every taste ordered what
        the arm's last stage chose from. All intervals are 95 %.
        """
        drawn = _Bootstrap(self.sums[against])
        return [self._row(name, drawn) for name in order]

    def _row(self, name: str, drawn: _Bootstrap) -> dict[str, Any]:
        total = self.sums[name].sum(axis=0)
        orders, relevance = (drawn.over(self.sums[name], column) for column in (ORDERS, RELEVANCE))
        return {
            "system": name,
            "orders_per_search": _short(total[ORDERS] / total[SEARCHES]),
            "ctr": _short(total[CLICKS] / max(1.0, total[IMPRESSIONS])),
            "buyers": _short(float(np.mean(self.bought[name]))),
            "lift_percent": _short(100 * orders[0]),
            "low": _short(100 * orders[1]),
            "high": _short(100 * orders[2]),
            "relevance": _short(total[RELEVANCE] / total[SEARCHES]),
            "relevance_lift": _short(100 * relevance[0]),
            "relevance_low": _short(100 * relevance[1]),
            "relevance_high": _short(100 * relevance[2]),
            "best_order": _short(total[BEST] / total[SEARCHES]),
        }


class _Bootstrap:
    """Resamples of the shoppers, the same for all arms."""

    def __init__(self, base: np.ndarray) -> None:
        self._present = base[:, SEARCHES] > 0
        self._base = base[self._present]
        count = len(self._base)
        rng = np.random.default_rng(_SEED)
        self._weights = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)

    def over(self, arm: np.ndarray, column: int) -> tuple[float, float, float]:
        """Relative change of a column's sum over the base, and its 95 % interval; NaN over nothing."""
        own, base = arm[self._present][:, column], self._base[:, column]
        if not base.sum():
            return float("nan"), float("nan"), float("nan")
        ratios = (self._weights @ own) / np.maximum(self._weights @ base, 1e-9) - 1
        low, high = np.percentile(ratios, [2.5, 97.5])
        return float(own.sum() / base.sum() - 1), float(low), float(high)


def _short(value: float) -> float:
    """Six digits; JSON knows no NaN, nor does a table without orders."""
    return float(f"{value:.6g}") if np.isfinite(value) else 0.0
