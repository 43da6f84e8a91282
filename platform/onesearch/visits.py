"""Simulated shoppers at a real gateway: they search, look, click and order, and what they do is reported.

All of it is simulated but the service: every search goes through gateway and Triton, every event through
Kafka where the gateway has one.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from onesearch.data.simulation import Outcome, Requests, ShopRequest, SimulatedShoppers
from onesearch.errors import OneSearchError
from onesearch.events.messages import Interaction
from onesearch.progress import Progress
from onesearch.serving.client import Client
from onesearch.serving.requests import SearchAnswer, SearchRequest

PAGE = 10
"""Items of a page; shoppers do not turn it."""
AFTERWARDS = 100
"""Answers of the release that is waited for."""
_PORTION = 32


@dataclass
class Visit:
    """What some simulated searches led to.

    Attributes:
        searches: how many there were.
        failed: those without an answer, by the reason. degraded: those answered without the models.
        releases: answers by release.
        clicks, orders: of all shoppers. impressions: items shown. shoppers, buyers: different ones.
        relevance: mean true relevance of the places of a page.
        took_ms: of each answer, as the shopper waited.
        reported: events by what became of them, ``acknowledged`` or ``spooled``; none without reports.
    """

    searches: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    releases: Counter[str] = field(default_factory=Counter)
    impressions: int = 0
    clicks: int = 0
    orders: int = 0
    shoppers: set[int] = field(default_factory=set, repr=False)
    buyers: set[int] = field(default_factory=set, repr=False)
    relevance: float = 0.0
    took_ms: list[float] = field(default_factory=list, repr=False)
    reported: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        """For people and machines."""
        took = np.array(self.took_ms or [np.nan])
        searches = max(1, self.searches)
        return {
            "searches": self.searches,
            "failed": self.failed.total(),
            "reasons": dict(self.failed),
            "degraded": self.degraded,
            "releases": dict(self.releases),
            "orders_per_search": self.orders / searches,
            "ctr": self.clicks / max(1, self.impressions),
            "buyers": len(self.buyers) / max(1, len(self.shoppers)),
            "relevance": self.relevance / searches,
            "p50_ms": float(np.percentile(took, 50)),
            "p99_ms": float(np.percentile(took, 99)),
            "reported": dict(self.reported),
        }

    def _add(self, outcome: Outcome) -> None:
        self.searches += len(outcome.who)
        self.impressions += int(outcome.impressions.sum())
        self.clicks += int(outcome.clicks.sum())
        self.orders += int(outcome.orders.sum())
        self.relevance += float(outcome.relevance.sum())
        self.shoppers.update(outcome.who.tolist())
        self.buyers.update(outcome.who[outcome.orders > 0].tolist())


def visit(
    client: Client,
    shoppers: SimulatedShoppers,
    requests: Requests,
    progress: Progress,
    seed: int = 0,
    at_once: int = 2,
    report: bool = True,
    until: str = "",
) -> Visit:
    """Let the shoppers of some requests search, ``at_once`` at a time, and do what they would do.

    Their searches and events carry the simulated time. A search without an answer is counted, and its
    shopper leaves. ``until`` names a release: when it has given :data:`AFTERWARDS` answers, no more are
    asked.

    Raises OneSearchError where what they did could not be reported.
    """
    found = Visit()
    known = set(shoppers.world.listings.items["item_id"].to_list())

    def ask(request: ShopRequest) -> tuple[SearchAnswer | None, str, float]:
        began = time.perf_counter()
        asked = SearchRequest(
            request.query, request.user_id, PAGE, asked_at_us=int(request.ts.timestamp() * 1e6)
        )
        try:
            answer = client.search(asked)
        except OneSearchError as error:
            return None, str(error), 0.0
        return answer, "", 1000 * (time.perf_counter() - began)

    with progress.task("simulated shoppers", len(requests)) as task, ThreadPoolExecutor(at_once) as pool:
        for start in range(0, len(requests), _PORTION):
            rows = np.arange(start, min(start + _PORTION, len(requests)))
            portion = Requests([requests.requests[row] for row in rows], requests.needs.take(rows))
            answers = list(pool.map(ask, portion.requests))
            for answer, why, took in answers:
                if answer is None:
                    found.failed[why] += 1
                    continue
                found.took_ms.append(took)
                found.releases[answer.release] += 1
                found.degraded += answer.degraded
            # Items that came after the simulated year began are nobody's wish.
            lists = [
                [hit.item_id for hit in answer.hits if hit.item_id in known] if answer else []
                for answer, _, _ in answers
            ]
            outcome = shoppers.act(portion, lists, seed)
            found._add(outcome)
            if report:
                _report(client, outcome, portion, [answer for answer, _, _ in answers], found)
            task.advance(len(rows))
            if until and found.releases[until] >= AFTERWARDS:
                break
    return found


def _report(
    client: Client, outcome: Outcome, portion: Requests, answers: list[SearchAnswer | None], found: Visit
) -> None:
    """Report clicks and orders; the gateway itself logs what it showed."""
    shown = {
        asked.request_id: answer for asked, answer in zip(portion.requests, answers, strict=True) if answer
    }
    events = []
    for row in outcome.events.filter(pl.col("action") != "impression").iter_rows(named=True):
        answer = shown[row["request_id"]]
        events.append(
            Interaction(
                event_id=f"{answer.request_id}-{row['action'][0]}{row['position']}",
                ts_us=int(row["ts"].timestamp() * 1e6),
                user_id=row["user_id"],
                item_id=row["item_id"],
                action=row["action"],
                query=row["query"],
                request_id=answer.request_id,
                position=row["position"],
                release=answer.release,
            )
        )
    if events:
        found.reported[client.report(*events)] += len(events)
