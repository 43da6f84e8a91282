"""The examples of supervised training's third stage: personalisation (DESIGN 7 and 8).

Every click and order of a search is a target. Its prompt is what serving would have made for that request:
the shopper's state strictly before it, and as stand-ins what was most clicked for the query strictly before
it. That every event is a target, seen from what came before it, is the sliding window over a shopper's
behaviour. It is the served task, so the generator stops early and fits its weights by the held-out ones.

Two smaller tasks keep what must not be forgotten:

- *unknown shopper*: requests of known shoppers, asked as if by a stranger, with the same stand-ins. Where
  everybody in the log comes back, a first visit is rare in it and is not rare in the shop.
- *pseudo-queries* of stage 2, with nothing known of shopper or query: items that nobody clicked yet.

Pairs of stage 2 are not mixed in: with today's stand-ins they would hold the answer, and without any they are
no prompts that serving makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.contracts.user_encoder import ShopperState, UserEncoderServer
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from onesearch.training.corpus import Corpus
from onesearch.training.examples import Examples, Histories, Ragged, SidTask
from onesearch.training.prompting import Prompts
from onesearch.training.sft import PSEUDO_TASK, SERVED_TASK, assembled, pseudo_task
from onesearch.training.split import Split
from onesearch.training.standins import NOTHING, stand_ins
from onesearch.training.targets import search_targets

if TYPE_CHECKING:
    from onesearch.config import TrainingConfig
    from onesearch.data.store import Store
    from onesearch.shoppers.log import EventLog

UNKNOWN_TASK = "query text → item SID, unknown shopper"
SHARES = {SERVED_TASK: 0.8, UNKNOWN_TASK: 0.1, PSEUDO_TASK: 0.1}
UNKNOWN_EACH = 4
"""One in so many requests of known shoppers is also asked as if by a stranger."""
HELD_OUT_EXAMPLES = 4_000
"""Held-out clicks and orders at most: a sample by the seed."""
TASTE_HALF_LIVES = 4.0
"""An example's weight halves in so many half-lives of a pair's: tastes last longer than demand."""
BATCH = 1_024
"""Prompts made at once."""


class NothingPersonal(Exception):  # noqa: N818 (no error: the stage is passed over)
    """There is nothing to learn of shoppers; the message says why."""


def personalisation(
    corpus: Corpus,
    store: Store,
    split: Split,
    log: Callable[[], EventLog],
    user_encoder: UserEncoderServer,
    training: TrainingConfig,
    progress: Progress,
) -> Examples:
    """Stage 3.

    Args:
        corpus: queries with vectors and SIDs, and the pseudo-queries.
        store: its log of searches is read. split: what of it is held out. log: of the same store, asked for
            only when it is needed.
        user_encoder: lays out prompts, as it does in serving.
        training: how many examples, and of which events.

    Raises:
        NothingPersonal: no searches are logged, or the prompts know nothing of shoppers.
        OneSearchError: a state holds an event that is not before its request.
    """
    chosen = choose(targets_of(corpus, store, split), training)
    with progress.task("reading the log of shoppers"):
        past = log()
    held_out = chosen["held_out"].to_numpy()
    queries, rows = chosen["query"].to_list(), chosen["row"].to_numpy()
    users, moments = chosen["user_id"].to_list(), chosen["moment"].to_numpy()
    with progress.task("finding what was most clicked"):
        standing = stand_ins(store, queries, moments, training.half_life_days)
    if split.cutoff is None:
        # A query is held out to be one that nobody has searched for.
        standing = [NOTHING if out else items for out, items in zip(held_out, standing, strict=True)]
    leaf = corpus.item_leaf[chosen["item"].to_numpy()]
    weight = chosen["weight"].to_numpy()

    def prompts() -> Prompts:
        return Prompts(user_encoder, queries, corpus.query_sids[rows], standing)

    def states_of(at: np.ndarray) -> list[ShopperState]:
        return states_before(past, [users[row] for row in at], moments[at])

    def task_of(name: str, at: np.ndarray, made: Prompts) -> SidTask:
        texts, histories = made.finished()
        return SidTask(name, texts, rows[at], leaf[at], weight[at], held_out[at], histories)

    newest = np.arange(len(chosen))[-BATCH:]
    probe = prompts()
    probe.add(newest, states_of(newest))
    if _same(probe, corpus.query_prompts.take(rows[newest])):
        raise NothingPersonal("the user encoder's prompts know nothing of shoppers")
    personal, known = prompts(), np.zeros(len(chosen), bool)
    with progress.task("personal prompts", total=len(chosen)) as task:
        for at in _batches(np.arange(len(chosen))):
            states = states_of(at)
            known[at] = [state.known for state in states]
            personal.add(at, states)
            task.advance(len(at))
    strangers, unknown = _strangers(known & ~held_out, training.seed), prompts()
    for at in _batches(strangers):
        unknown.add(at, [ShopperState()] * len(at))
    served, pseudo = task_of(SERVED_TASK, np.arange(len(chosen)), personal), pseudo_task(corpus)
    if served.histories is not None:
        pseudo = replace(pseudo, histories=nothing_known(len(pseudo.leaf), served.histories))
    tasks = [served, task_of(UNKNOWN_TASK, strangers, unknown), pseudo]
    return assembled(corpus, tasks, [], SHARES)


def targets_of(corpus: Corpus, store: Store, split: Split) -> pl.DataFrame:
    """All targets: columns of :data:`onesearch.training.targets.TARGET_SCHEMA`, row i32 of the corpus'
    queries, held_out.

    By time, clicks and orders from the cutoff on are held out; what a state knows of the time between cutoff
    and request is known in serving, too. By query, all those of the held-out queries, which nothing stands in
    for: they are to be queries that nobody has made yet.

    Raises NothingPersonal where there is none to learn from.
    """
    rows = pl.DataFrame(
        {"query": corpus.queries, "hidden": corpus.held_out},
        schema={"query": pl.String, "hidden": pl.Boolean},
    ).with_row_index("row")
    targets = search_targets(store).join(rows, on="query", how="inner", maintain_order="left")
    out = pl.col("hidden") if split.cutoff is None else pl.col("ts") >= split.cutoff
    targets = targets.with_columns(pl.col("row").cast(pl.Int32), held_out=out).drop("hidden")
    if targets["held_out"].all():
        raise NothingPersonal("the store logs no searches to learn from")
    return targets


def choose(targets: pl.DataFrame, training: TrainingConfig) -> pl.DataFrame:
    """The newest targets that are learnt from and a sample of those held out, in order of time, with weights.

    ``weight`` f32 is what the event is worth, half of it for each :data:`TASTE_HALF_LIVES` half-lives of age.
    """
    learnt = targets.filter(~pl.col("held_out"))
    if not training.sliding_window:
        learnt = learnt.filter(pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1)
    learnt = learnt.tail(training.personal_examples)
    held_out = targets.filter("held_out")
    if len(held_out) > HELD_OUT_EXAMPLES:
        rng = np.random.default_rng([training.seed, 0x3A])
        held_out = held_out[np.sort(rng.choice(len(held_out), HELD_OUT_EXAMPLES, replace=False))]
    age_s = (pl.col("ts").filter(~pl.col("held_out")).max() - pl.col("ts")).dt.total_seconds()
    half_life_s = TASTE_HALF_LIVES * training.half_life_days * 86_400
    faded = 0.5 ** (age_s / half_life_s).clip(lower_bound=0.0)
    return pl.concat([learnt, held_out]).with_columns(weight=(pl.col("worth") * faded).cast(pl.Float32))


def states_before(log: EventLog, users: Sequence[str], moments: np.ndarray) -> list[ShopperState]:
    """The shoppers' states strictly before the moments i64[N]. Raises OneSearchError where one is not."""
    states = log.states_before(users, moments)
    check_strictly_before(states, moments)
    return states


def check_strictly_before(states: Sequence[ShopperState], times: np.ndarray) -> None:
    """The guard against leaks: no event of a state may be at or after its example's time.

    Args:
        states: N states. times: i64[N], whole seconds since 1970.

    Raises:
        OneSearchError: one is; the message names shopper and times.
    """
    for state, time in zip(states, times.tolist(), strict=True):
        seen = [int(ring.times.max()) for ring in (state.clicks, state.orders) if len(ring)]
        newest = max([*seen, *(pair.time for pair in state.recent)], default=-1)
        if newest >= time:
            raise OneSearchError(
                f"the state of shopper '{state.user_id}' for a search of {_moment(time)} holds an event of "
                f"{_moment(newest)}: training would be told the future"
            )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def nothing_known(count: int, like: Histories) -> Histories:
    """Histories of ``count`` examples that say nothing, of the shape of others."""
    values = np.zeros((1, *like.values.shape[1:]), np.float16)
    return Histories(values, np.zeros(values.shape[:2], bool), np.zeros(count, np.int32))


def _strangers(known: np.ndarray, seed: int) -> np.ndarray:
    """Which requests are asked by a stranger, too: i64, rising."""
    rows = np.flatnonzero(known)
    rng = np.random.default_rng([seed, 0x57])
    return np.sort(rng.choice(rows, len(rows) // UNKNOWN_EACH, replace=False))


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _same(made: Prompts, bare: Ragged) -> bool:
    """Whether prompts are those of unknown shoppers and queries."""
    texts, histories = made.finished()
    lengths_too = np.array_equal(texts.offsets, bare.offsets)
    nothing = histories is None or not histories.mask.any()
    return nothing and lengths_too and np.array_equal(texts.values, bare.values)
