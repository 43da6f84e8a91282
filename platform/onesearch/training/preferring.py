"""What the phases of preference learning learn from, gathered from a store (DESIGN 9).

Learnt from are searches before the held-out slice, each as it was asked: the shopper's state and the
stand-ins strictly before it. Where a store logs no searches, phase 1 takes its judged queries, asked by
strangers. No shopper, and no robot, has more of the searches than :func:`onesearch.training.levels.fair` lets
them have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.contracts.reward import RewardServer
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import ShopperState, UserEncoderServer
from onesearch.progress import Progress
from onesearch.serving import steps
from onesearch.serving.pipeline import Pipeline
from onesearch.training.candidates import search_all
from onesearch.training.drawing import gains_of
from onesearch.training.examples import Examples, SidTask
from onesearch.training.levels import fair, levels
from onesearch.training.personal import states_before
from onesearch.training.preferences import Preferences, Ranked, interactions_alone, reward_guided
from onesearch.training.prompting import Prompts
from onesearch.training.sft import SERVED_TASK
from onesearch.training.split import Split
from onesearch.training.standins import NOTHING, stand_ins
from onesearch.training.targets import search_targets

if TYPE_CHECKING:
    from onesearch.data.store import Store
    from onesearch.index import CatalogueIndex
    from onesearch.shoppers.log import EventLog

HELD_OUT_SHARE = 0.1
"""Share of a phase's lists that it does not learn from and is stopped by."""
GUARDS = 500
"""Held-out clicks and orders that a phase must not forget."""
_BATCH, _SCORED = 1_024, 32


class NothingToPrefer(Exception):  # noqa: N818 (no error: the phase is passed over)
    """There are no preferences in the log; the message says why."""


@dataclass(frozen=True)
class Requests:
    """N searches.

    Attributes:
        queries: normalised. users: who asked, "" for nobody. moments: i64[N], seconds since 1970.
        chosen: row (u32, a search), item (i32), gain 1: what was clicked or ordered.
    """

    queries: list[str]
    users: list[str]
    moments: np.ndarray
    chosen: pl.DataFrame

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class Asker:
    """Makes of requests what serving would have made of them then.

    Attributes:
        store, split: as everywhere in a training. log: of the store, asked for only when it is needed.
        tokenizer, user_encoder: serving halves.
    """

    store: Store
    split: Split
    log: Callable[[], EventLog]
    tokenizer: TokenizerServer
    user_encoder: UserEncoderServer
    half_life_days: float

    def standing(self, asked: Requests) -> list[np.ndarray]:
        """What stands in for a cold shopper, i32[n] each: nothing where nobody asked."""
        if not any(asked.users):
            return [NOTHING] * len(asked)
        return stand_ins(self.store, asked.queries, asked.moments, self.half_life_days)

    def states(self, asked: Requests, rows: np.ndarray) -> list[ShopperState]:
        """The shoppers of some requests, strictly before them."""
        if not any(asked.users[row] for row in rows):
            return [ShopperState()] * len(rows)
        return states_before(self.log(), [asked.users[row] for row in rows], asked.moments[rows])

    def encoded(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of N texts: rows i32[N] of the different ones' e° f16[U, D] and SIDs i32[U, L]."""
        different, at = np.unique(np.array(texts, dtype=object), return_inverse=True)
        parts = [steps.encode(self.tokenizer, batch) for batch in _parts(different.tolist())]
        vectors = np.concatenate([part[0] for part in parts]).astype(np.float16)
        return at.reshape(-1).astype(np.int32), vectors, np.concatenate([part[1] for part in parts])

    def preferences(
        self, asked: Requests, ranked: Ranked, standing: list[np.ndarray], seed: int, progress: Progress
    ) -> Preferences:
        """Ranked lists with the prompts of their requests; a share of the lists held out by the seed."""
        used, source = np.unique(ranked.source, return_inverse=True)
        vector, vectors, sids = self.encoded([asked.queries[row] for row in used])
        whole = np.zeros((len(asked), sids.shape[1]), np.int32)
        whole[used] = sids[vector]
        made = Prompts(self.user_encoder, asked.queries, whole, standing)
        with progress.task("prompts of ranked lists", total=len(used)) as task:
            for rows in _rows(len(used)):
                made.add(used[rows], self.states(asked, used[rows]))
                task.advance(len(rows))
        prompts, histories = made.finished()
        held_out = np.random.default_rng([seed, 0xB1]).random(len(used)) < HELD_OUT_SHARE
        held_out &= not held_out.all()
        weight = np.ones(len(used), np.float32)
        ranked = replace(ranked, source=source.reshape(-1).astype(np.int64))
        return Preferences(ranked, prompts, vector, vectors, weight, held_out, histories)

    def guards(self, index: CatalogueIndex, empty: Examples, seed: int) -> Examples:
        """Held-out clicks and orders as examples of the served task: what a phase must not forget.

        ``empty`` has the vocabulary and the tree. Without anything held out it is what comes back.
        """
        held_out = self._held_out()
        if len(held_out) > GUARDS:
            rng = np.random.default_rng([seed, 0xB2])
            held_out = held_out[np.sort(rng.choice(len(held_out), GUARDS, replace=False))]
        if not len(held_out):
            return empty
        queries, users = held_out["query"].to_list(), held_out["user_id"].to_list()
        asked = Requests(queries, users, held_out["moment"].to_numpy(), held_out.clear())
        vector, vectors, sids = self.encoded(queries)
        made = Prompts(self.user_encoder, queries, sids[vector], self.standing(asked))
        for rows in _rows(len(asked)):
            made.add(rows, self.states(asked, rows))
        prompts, histories = made.finished()
        leaf = index.live.tree.find_leaves(index.sids[held_out["item"].to_numpy()])
        weight, every = held_out["worth"].to_numpy().astype(np.float32), np.ones(len(asked), bool)
        task = SidTask(SERVED_TASK, prompts, vector, leaf, weight, every, histories)
        return replace(empty, vectors=vectors, sid_tasks=(task,))

    def _held_out(self) -> pl.DataFrame:
        """user_id, query, item, moment, worth of what is held out."""
        if self.split.cutoff is not None:
            return search_targets(self.store).filter(pl.col("ts") >= self.split.cutoff)
        pairs = self.split.held_out.with_columns(user_id=pl.lit(""), moment=pl.lit(0, pl.Int64))
        return pairs.select("user_id", "query", "item", "moment", worth="weight")


def learnable(exposures: pl.DataFrame, split: Split) -> pl.DataFrame:
    """The exposures that a phase may learn from: of time before the slice, or of queries not held out."""
    if split.cutoff is not None:
        return exposures.filter(pl.col("ts") < split.cutoff)
    hidden = split.held_out["query"].unique().implode()
    return exposures.filter(pl.col("query").is_null() | ~pl.col("query").is_in(hidden))


def searches(exposures: pl.DataFrame, items: pl.DataFrame, limit: int) -> Requests:
    """The newest searches of a log, by shoppers who have not too many of them, and what was chosen in each.

    Args:
        exposures: those to learn from (:func:`learnable`). items: the catalogue. limit: searches at most.

    Raises NothingToPrefer where there are none.
    """
    numbers = items.select("item_id").with_row_index("item").with_columns(pl.col("item").cast(pl.Int32))
    asked = exposures.filter((pl.col("scene") == "search") & pl.col("query").is_not_null())
    lists = asked.group_by("list", "user_id", "query").agg(pl.col("ts").min())
    lists = fair(lists).sort("ts", "list").tail(limit).with_row_index("row")
    if not len(lists):
        raise NothingToPrefer("the store logs no searches to learn from")
    chosen = (
        asked.filter("clicked")
        .join(lists.select("list", "row"), on="list")
        .join(numbers, on="item_id")
        .select("row", "item", gain=pl.lit(1.0, pl.Float32))
        .unique(["row", "item"], maintain_order=True)
    )
    moments = lists["ts"].dt.epoch("s").to_numpy()
    return Requests(lists["query"].to_list(), lists["user_id"].to_list(), moments, chosen)


def judged_queries(split: Split, limit: int, seed: int) -> Requests:
    """Queries of a store that has judgements alone, asked by nobody; chosen is what was judged relevant.

    Raises NothingToPrefer where there are none.
    """
    known = split.trained.filter(pl.col("weight") > 0).select("query", "item")
    queries = known["query"].unique().sort()
    if len(queries) > limit:
        rng = np.random.default_rng([seed, 0xB3])
        queries = queries[np.sort(rng.choice(len(queries), limit, replace=False))]
    if not len(queries):
        raise NothingToPrefer("the store neither logs searches nor has judged any")
    rows = pl.DataFrame({"query": queries}).with_row_index("row")
    chosen = known.join(rows, on="query").select("row", "item", gain=pl.lit(1.0, pl.Float32))
    return Requests(queries.to_list(), [""] * len(queries), np.zeros(len(queries), np.int64), chosen)


def phase_1(
    asked: Requests,
    asker: Asker,
    pipeline: Pipeline,
    reward: RewardServer,
    seed: int,
    progress: Progress,
) -> Preferences:
    """Reward-guided: the generator's own lists, and what the reward makes of them.

    Raises NothingToPrefer where the reward changes no list by enough.
    """
    standing = asker.standing(asked)
    every = np.arange(len(asked))
    states = [state for rows in _rows(len(asked)) for state in asker.states(asked, every[rows])]
    vectors, found = search_all(pipeline, asked.queries, states, standing, progress)
    totals = np.full(found.items.shape, -np.inf, np.float32)
    with progress.task("scoring lists", total=len(asked)) as task:
        for start in range(0, len(asked), _SCORED):
            at = slice(start, start + _SCORED)
            own = type(found)(found.items[at], found.log_probs[at])
            totals[at], _ = reward.score(asked.queries[at], vectors[at], states[at], own)
            task.advance(len(own.items))
    index = pipeline.context.index
    leaf = index.live.tree.find_leaves(index.sids)
    leaves = np.where(found.items >= 0, leaf[found.items], -1).astype(np.int32)
    ranked = reward_guided(leaves, totals, gains_of(asked.chosen, found.items) > 0)
    if not len(ranked):
        raise NothingToPrefer("the reward changes none of the generator's lists by enough")
    return asker.preferences(asked, ranked, standing, seed, progress)


def phase_2(
    exposures: pl.DataFrame, asker: Asker, index: CatalogueIndex, limit: int, seed: int, progress: Progress
) -> Preferences:
    """Interactions alone: what shoppers chose against what they left and what they were not shown.

    Args:
        exposures: those to learn from (:func:`learnable`). limit: searches at most, the newest.

    Raises NothingToPrefer where nobody chose anything.
    """
    known = levels(exposures, asker.store.items(), seed=seed) if len(exposures) else None
    if known is None or not len(known):
        raise NothingToPrefer("the log has no clicks and orders of searches to learn from")
    lists = known.group_by("list").agg(pl.col("user_id", "query").first(), pl.col("ts").min())
    lists = lists.sort("ts", "list").tail(limit).with_row_index("row")
    own = known.join(lists.select("list", "row"), on="list").sort("row", "level", "item")
    leaf = index.live.tree.find_leaves(index.sids)
    ranked = interactions_alone(
        own["row"].to_numpy().astype(np.int64),
        leaf[own["item"].to_numpy()].astype(np.int32),
        own["level"].to_numpy(),
        own["reward"].to_numpy(),
        seed=seed,
    )
    if not len(ranked):
        raise NothingToPrefer("no search of the log has an item that was chosen and one that was not")
    moments = lists["ts"].dt.epoch("s").to_numpy()
    asked = Requests(lists["query"].to_list(), lists["user_id"].to_list(), moments, lists.clear())
    return asker.preferences(asked, ranked, asker.standing(asked), seed, progress)


def _rows(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, _BATCH):
        yield np.arange(start, min(start + _BATCH, count))


def _parts(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, max(1, len(texts)), _BATCH):
        yield texts[start : start + _BATCH]
