"""A simulated A/B: every arm meets the same requests with the same luck; intervals are paired, by shopper.

A seed draws searches of the day after the log. The lists of all arms meet ``lucks`` draws of luck, the same
for every arm: who looks, clicks and orders is decided by common random numbers, so that differences between
arms are differences of their lists. Intervals are a bootstrap over shoppers, with all that a shopper did in
all seeds drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onesearch.data.simulation import ORACLE, RANDOM, Outcome, Requests, SimulatedShoppers
from onesearch.evaluation.arms import Answers

SEARCHES, CLICKS, IMPRESSIONS, ORDERS, RELEVANCE, BEST = range(6)
_RESAMPLES = 2_000
_SEED = 20


@dataclass
class Trial:
    """Sums of what shoppers did with the lists of each arm.

    Attributes:
        shoppers: who acts. item_ids: of the arms' item numbers.
        sums: arm → f64[shoppers, 6]: searches, clicks, impressions, orders, summed relevance of the first
            ten, and orders had its candidates been ordered by one who knows every taste.
        by_seed: arm → orders a search of each seed.
    """

    shoppers: SimulatedShoppers
    item_ids: Sequence[str]
    lucks: int
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    by_seed: dict[str, list[float]] = field(default_factory=dict)
    bought: dict[str, list[float]] = field(default_factory=dict)

    def add(self, requests: Requests, answers: Mapping[str, Answers], seed: int) -> None:
        """Let shoppers act on the answers of every arm, and on an oracle's and a random one's."""
        shown = {name: self._ids(answer.shown) for name, answer in answers.items()}
        shown[ORACLE] = self.shoppers.oracle(requests)
        shown[RANDOM] = self.shoppers.random(requests, seed=seed)
        for name, lists in shown.items():
            best = self._best(requests, answers[name].reached) if name in answers else lists
            self._act(name, requests, lists, best, seed)

    def _act(
        self,
        name: str,
        requests: Requests,
        lists: list[list[str]],
        best: list[list[str]],
        seed: int,
    ) -> None:
        people = len(self.shoppers.world.people)
        total = self.sums.setdefault(name, np.zeros((people, 6)))
        orders = 0.0
        for luck in range(self.lucks):
            lot = seed * 1_000 + luck
            real, ideal = self.shoppers.act(requests, lists, lot), self.shoppers.act(requests, best, lot)
            np.add.at(total, real.who, _columns(real, ideal))
            orders += float(real.orders.mean())
            self.bought.setdefault(name, []).append(real.figures()["buyers"])
        self.by_seed.setdefault(name, []).append(orders / self.lucks)

    def _best(self, requests: Requests, reached: np.ndarray, k: int = 20) -> list[list[str]]:
        """The reached items by p(click)·p(order): what the arm's last stage could have made of them.

        Left out is what has nothing to do with the request: a shopper may well order it for sheer liking, but
        a search engine that shows it is none. The oracle keeps to the request's group of things as well.
        """
        world = self.shoppers.world
        ids = world.listings.items["item_id"].to_list()
        number = {item: at for at, item in enumerate(ids)}
        of_world = np.array([number[item] for item in self.item_ids], np.int64)
        items = np.where(reached >= 0, of_world[np.maximum(reached, 0)], -1)
        click, order = world.behaviour.chances(requests.needs, items)
        fits = (items >= 0) & (world.behaviour.relevance(requests.needs, items) > 0)
        items = np.where(fits, items, -1)
        first = np.argsort(-np.where(fits, click * order, -1.0), axis=1, kind="stable")[:, :k]
        return [[ids[at] for at in row if at >= 0] for row in np.take_along_axis(items, first, 1).tolist()]

    def _ids(self, shown: np.ndarray) -> list[list[str]]:
        return [[self.item_ids[at] for at in row if at >= 0] for row in shown.tolist()]

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


def _columns(real: Outcome, ideal: Outcome) -> np.ndarray:
    """f64[R, 6]."""
    return np.stack(
        [
            np.ones(len(real.who)),
            real.clicks,
            real.impressions,
            real.orders,
            real.relevance,
            ideal.orders,
        ],
        axis=1,
    )


def _short(value: float) -> float:
    """Six digits; JSON knows no NaN, nor does a table without orders."""
    return float(f"{value:.6g}") if np.isfinite(value) else 0.0
