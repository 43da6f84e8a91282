"""Champion and challenger on the same held-out searches: measured in turns, with what was known just before.

*Quality.* The held-out lists were chosen by the champion, so that shoppers could only choose what it
showed, and saw best what it put first. So both are asked to order what was shown, and a choice counts the
more the less its place was seen: for a search with the choices C, of worth g_c, at places p_c::

    quality = Σ_c w_c / log2(1 + rank_c) / mean of Σ_c w_c over the searches,    w_c = g_c · (1 + p_c)^fade

where rank_c is c's rank, from 1, among what was shown. Restricted to what was shown its mean is unbiased
where attention falls as ``fade`` says. (Divided by each search's own weights instead, a search of one
choice would count alike wherever that stood, and whoever made the lists would win.) It cannot see what a
challenger would have found
beside: *reach* tells whether its beams find what was chosen at all.

*Relevance.* NDCG@10 of the whole search for judged queries, asked by nobody in particular; where none is
judged, the mean similarity of query and first ten items by the champion's embeddings, for the held-out
searches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from onesearch.compiling.runtime import Runtime
from onesearch.evaluation.metrics import Estimate, Relevant, bootstrap, per_query
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import ShopperState
from onesearch.training.pairs import CLICK_WEIGHT, ORDER_WEIGHT, normalised

from onesearch_streaming.nightly.data_checks import stability
from onesearch_streaming.nightly.gate import Anchored, Measured
from onesearch_streaming.nightly.settings import GateLimits

JUDGED_QUERIES = 300
_FIRST = 10


@dataclass(frozen=True)
class Shown:
    """Held-out searches of which something was chosen.

    Attributes:
        queries, users, moments: of S searches; seconds since 1970, i64[S].
        items: of each, the ids shown, by place. places: i64, theirs. worth: f64, what was chosen of them.
    """

    queries: list[str]
    users: list[str]
    moments: np.ndarray
    items: list[list[str]]
    places: list[np.ndarray]
    worth: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.queries)


def shown_lists(events: pl.LazyFrame, since: Any, limit: int, seed: int) -> Shown:
    """Searches whose impressions are from ``since`` on, with at least two items shown and one chosen.

    At most ``limit``, drawn by the seed; in order of time.
    """
    search = events.filter(
        (pl.col("scene") == "search") & pl.col("request_id").is_not_null() & (pl.col("ts") >= since)
    )
    action = pl.col("action").cast(pl.String)
    key = ["request_id", "user_id"]
    lists = (
        search.filter((action == "impression") & pl.col("position").is_not_null())
        .select(*key, "ts", normalised(), "item_id", "position")
        .filter(pl.col("query") != "")
    )
    worth = (
        search.filter(action != "impression")
        .group_by(*key, "item_id")
        .agg(worth=pl.when((action == "order").any()).then(ORDER_WEIGHT).otherwise(CLICK_WEIGHT))
    )
    found = (
        lists.join(worth, on=[*key, "item_id"], how="left")
        .with_columns(pl.col("worth").fill_null(0.0))
        .unique([*key, "item_id"], keep="first")
        .sort(*key, "position", "item_id")
        .group_by(key, maintain_order=True)
        .agg(
            pl.col("query").first(),
            pl.col("ts").min(),
            pl.col("item_id"),
            pl.col("position"),
            pl.col("worth"),
        )
        .filter((pl.col("item_id").list.len() > 1) & (pl.col("worth").list.sum() > 0))
        .sort("ts", "request_id")
        .collect()
    )
    if len(found) > limit:
        chosen = np.random.default_rng([seed, 0x6A]).choice(len(found), limit, replace=False)
        found = found[np.sort(chosen).tolist()]
    return Shown(
        found["query"].to_list(),
        found["user_id"].to_list(),
        found["ts"].dt.epoch("s").to_numpy(),
        found["item_id"].to_list(),
        [np.asarray(places, np.int64) for places in found["position"].to_list()],
        [np.asarray(worth, np.float64) for worth in found["worth"].to_list()],
    )


def weights_of(shown: Shown, fade: float) -> list[np.ndarray]:
    """w_c of each search, f64[n], over the mean of their sums: see the module."""
    raw = [worth * (1.0 + places) ** fade for worth, places in zip(shown.worth, shown.places, strict=True)]
    mean = sum(float(one.sum()) for one in raw) / max(1, len(raw))
    return [one / mean for one in raw]


def order_quality(ranks: np.ndarray, weights: np.ndarray) -> float:
    """Quality of one search: ranks i64[n], from 0, of what was shown, and its weights f64[n]."""
    return float((weights / np.log2(ranks + 2.0)).sum())


@dataclass
class _System:
    """A release that answers."""

    release: Release
    pipeline: Pipeline
    item_of: dict[str, int]
    ms: list[float]

    @classmethod
    def open(cls, release: Release, threads: int) -> _System:
        pipeline = Pipeline.of_release(release, Runtime(threads=threads))
        ids = release.index.items["item_id"].to_list()
        return cls(release, pipeline, {item: number for number, item in enumerate(ids)}, [])

    def answer(self, query: str, state: ShopperState) -> np.ndarray:
        """Item numbers, best first."""
        began = time.perf_counter()
        found = self.pipeline.candidates([query], [state])
        order, _, _ = self.pipeline.rank([query], [state], found)
        self.ms.append(1e3 * (time.perf_counter() - began))
        items = found.candidates.items[0][order[0]]
        return items[items >= 0]

    def ranks(self, answer: np.ndarray, shown: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ranks i64[n] from 0 of what was shown, among itself, and which of it the beams reached, bool[n]."""
        place = {int(item): at for at, item in enumerate(answer)}
        missing = len(answer)
        at = np.array([place.get(self.item_of.get(item, -1), missing) for item in shown], np.int64)
        # What is not reached keeps its order, behind all that is.
        return np.argsort(np.argsort(at, kind="stable"), kind="stable"), at < missing


def measure(
    champion: Release,
    challenger: Release,
    shown: Shown,
    states: EventLog,
    judged: pl.DataFrame,
    drift: float,
    limits: GateLimits,
    progress: Progress,
    seed: int = 0,
    anchor: Release | None = None,
) -> tuple[Measured, pl.DataFrame]:
    """Ask both, in turns, and the anchor, where there is one, after them.

    Args:
        states: of the whole window. judged: the store's table ``relevance``.
        drift: of the codes that are clicked, see :func:`code_drift`.

    Returns:
        What was measured, and each search's quality (columns champion, challenger).
    """
    asked = [champion, challenger, *([anchor] if anchor else [])]
    systems = [_System.open(one, champion.config.serving.threads) for one in asked]
    quality, reached, similar = (np.zeros((len(shown), len(systems))) for _ in range(3))
    weights = weights_of(shown, limits.position_fade)
    known = states.states_before(shown.users, shown.moments) if len(shown) else []
    vectors = champion.index.vectors
    tokenizer = systems[0].pipeline.tokenizer
    with progress.task("champion and challenger", total=len(shown)) as task:
        for row, (query, state) in enumerate(zip(shown.queries, known, strict=True)):
            vector = np.asarray(tokenizer.embed([query], "query"), np.float32)[0]
            for at in _turns(row, len(systems)):
                answer = systems[at].answer(query, state)
                ranks, found = systems[at].ranks(answer, shown.items[row])
                worth = shown.worth[row]
                quality[row, at] = order_quality(ranks, weights[row])
                reached[row, at] = float((worth * found).sum() / worth.sum())
                similar[row, at] = _similarity(systems[at], systems[0], answer[:_FIRST], vectors, vector)
            task.advance()
    relevance, by = _judged(systems, judged, progress, seed), "judgements"
    if relevance is None:
        relevance, by = similar, "similarity"
    times = [np.array(one.ms or [0.0]) for one in systems]
    measured = Measured(
        searches=len(shown),
        quality=_difference(quality, 0),
        quality_of=_means(quality),
        reach=_means(reached),
        judged=len(relevance),
        relevance=_difference(relevance, 0),
        relevance_of=_means(relevance),
        relevance_by=by,
        p50_ms=(float(np.median(times[0])), float(np.median(times[1]))),
        p99_ms=(float(np.quantile(times[0], 0.99)), float(np.quantile(times[1], 0.99))),
        latency_ratio=float(np.median(times[1] / np.maximum(times[0], 1e-6))),
        bytes=(release_bytes(champion), release_bytes(challenger)),
        changed_codes=changed_codes(champion, challenger),
        code_drift=drift,
        anchored=None
        if anchor is None
        else Anchored(
            anchor.name,
            _difference(quality, 2),
            float(quality[:, 2].mean()) if len(quality) else 0.0,
            _difference(relevance, 2),
            float(relevance[:, 2].mean()) if len(relevance) else 0.0,
        ),
    )
    each = pl.DataFrame({"champion": quality[:, 0], "challenger": quality[:, 1]})
    return measured, each


def release_bytes(release: Release) -> int:
    """Size of what serves and of what further training needs."""
    return sum(file.size for file in release.manifest.files.values())


_SAME = ["item_id", "title", "category", "brand"]


def changed_codes(champion: Release, challenger: Release) -> float:
    """Share of the items of both whose semantic ID differs; 0 where they share none.

    Items that were given another title, category or brand are others now, and do not count.
    """
    sids = [
        one.index.items.select(_SAME).with_columns(
            sid=pl.Series(one.index.sids.tolist(), dtype=pl.List(pl.Int64))
        )
        for one in (champion, challenger)
    ]
    both = sids[0].join(sids[1], on=_SAME, how="inner", nulls_equal=True)
    return (
        float(both.select((pl.col("sid") != pl.col("sid_right")).mean()).item() or 0.0) if len(both) else 0.0
    )


def code_drift(champion: Release, events: pl.LazyFrame, since: Any) -> float:
    """Stability index of the first codes of what was clicked from ``since`` on, against before."""
    first = pl.DataFrame(
        {"item_id": champion.index.items["item_id"], "code": champion.index.sids[:, 0].astype(np.int32)}
    )
    clicks = (
        events.filter(pl.col("action").cast(pl.String) == "click")
        .join(first.lazy(), on="item_id", how="inner")
        .group_by("code", new=pl.col("ts") >= since)
        .agg(count=pl.len())
        .collect()
    )
    spread = [
        {str(code): float(count) for code, count in part.select("code", "count").iter_rows()}
        for part in (clicks.filter("new"), clicks.filter(~pl.col("new")))
    ]
    return stability(spread[0], spread[1])


def _judged(
    systems: Sequence[_System], judged: pl.DataFrame, progress: Progress, seed: int
) -> np.ndarray | None:
    """NDCG@10 f64[Q, S] of judged queries; None where fewer than ten have something relevant."""
    good = judged.with_columns(normalised()).filter((pl.col("grade") > 0) & (pl.col("query") != ""))
    grouped = (
        good.group_by("query", "item_id").agg(pl.col("grade").max())
        .sort("query", "item_id").group_by("query", maintain_order=True).agg("item_id", "grade")
    )  # fmt: skip
    if len(grouped) < _FIRST:
        return None
    if len(grouped) > JUDGED_QUERIES:
        chosen = np.random.default_rng([seed, 0x4A]).choice(len(grouped), JUDGED_QUERIES, replace=False)
        grouped = grouped[np.sort(chosen).tolist()]
    values = np.zeros((len(grouped), len(systems)))
    queries, ids, grades = (grouped[name].to_list() for name in ("query", "item_id", "grade"))
    with progress.task("judged queries", total=len(queries)) as task:
        for row, query in enumerate(queries):
            for at in _turns(row, len(systems)):
                system = systems[at]
                answer = system.answer(query, ShopperState())[:_FIRST]
                numbers = [system.item_of.get(item, -2 - n) for n, item in enumerate(ids[row])]
                truth = Relevant(np.array(numbers, np.int32), np.array(grades[row], np.float32))
                ranked = np.full((1, _FIRST), -1, np.int32)
                ranked[0, : len(answer)] = answer
                values[row, at] = per_query(ranked, [truth], (_FIRST,))[f"NDCG@{_FIRST}"][0]
            task.advance()
    return values


def _similarity(
    system: _System, champion: _System, answer: np.ndarray, vectors: np.ndarray, query: np.ndarray
) -> float:
    """Mean similarity of a query and some items, by the champion's embeddings; unknown items count
    nothing."""
    ids = system.release.index.items["item_id"].gather(answer.tolist()).to_list()
    rows = [champion.item_of[item] for item in ids if item in champion.item_of]
    return float((vectors[rows].astype(np.float32) @ query).sum() / _FIRST) if rows else 0.0


def _turns(row: int, count: int) -> tuple[int, ...]:
    """Who is asked when: champion and challenger first in turn, one right after the other."""
    return ((0, 1) if row % 2 == 0 else (1, 0)) + tuple(range(2, count))


def _difference(values: np.ndarray, other: int) -> Estimate:
    """Challenger − another system, paired, of f64[Q, S]."""
    if not len(values):
        return _NOTHING
    [found] = bootstrap((values[:, 1] - values[:, other])[:, None])
    return found


def _means(values: np.ndarray) -> tuple[float, float]:
    return (float(values[:, 0].mean()), float(values[:, 1].mean())) if len(values) else (0.0, 0.0)


[_NOTHING] = bootstrap(np.zeros((1, 1)), resamples=1)
