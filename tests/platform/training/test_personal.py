from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.config import TrainingConfig
from onesearch.contracts import Prompt, RawPrompt, ShopperState, UserEncoderServer
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import OneSearchError
from onesearch.progress import SilentProgress
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import Recent, Ring, item_key, item_keys
from onesearch.training import personal
from onesearch.training.examples import Examples, SidTask
from onesearch.training.pairs import query_item_pairs
from onesearch.training.personal import NothingPersonal, check_strictly_before, personalisation
from onesearch.training.sft import PSEUDO_TASK, SERVED_TASK
from onesearch.training.split import split_logs
from onesearch.training.standins import MostClicked, stand_ins
from onesearch.training.targets import search_targets
from onesearch.vocabulary import QUERY, SEP, pad

DAY = datetime(2024, 3, 1, tzinfo=UTC)
START = int(DAY.timestamp())
NAMES = [f"i{n}" for n in range(6)]
CLICK, ORDER = 1.0, 2.0

# user, request, query, item, action, day, second
LOG = [
    ("ann", "r1", "red lamp", 0, "impression", 0, 1000),
    ("ann", "r1", "red lamp", 1, "impression", 0, 1000),
    ("ann", "r1", "red lamp", 1, "click", 0, 1005),
    ("ann", "r1", "red lamp", 1, "order", 0, 1070),
    ("bob", "r2", "red lamp", 0, "impression", 0, 2000),
    ("bob", "r2", "red lamp", 0, "click", 0, 2003),
    ("bob", "r2", "red lamp", 2, "click", 0, 2010),
    # Two shoppers in the same second: neither is known to the other.
    ("ann", "r3", "RED  Lamp ", 0, "click", 1, 10),
    ("cat", "r4", "red lamp", 2, "click", 1, 10),
    # The newest day is held out; by its second search, its first one is known.
    ("ann", "r5", "red lamp", 1, "click", 2, 50),
    ("ann", "r6", "red lamp", 3, "order", 2, 90),
]


def written(path: Path, log: Sequence[tuple[Any, ...]], items: int = len(NAMES)) -> Store:
    catalogue = pl.DataFrame({"item_id": [f"i{n}" for n in range(items)]}).with_columns(
        title=pl.concat_str(pl.lit("lamp of kind "), "item_id"),
        category=pl.lit([], pl.List(pl.String)),
        in_stock=True,
    )
    rows = [
        {
            "event_id": f"e{number}",
            "ts": DAY + timedelta(days=day, seconds=second),
            "user_id": user,
            "request_id": request,
            "scene": "search",
            "query": query,
            "item_id": f"i{item}",
            "action": action,
        }
        for number, (user, request, query, item, action, day, second) in enumerate(log)
    ]
    with StoreWriter(path, "test") as writer:
        writer.write("items", catalogue)
        if rows:
            # The order of a file says nothing.
            frame = pl.DataFrame(rows, schema_overrides={"request_id": pl.String})
            writer.write("interactions", frame.sample(fraction=1.0, shuffle=True, seed=1))
    return Store.open(path)


class PlainLog:
    """What was known of shoppers, by going through the whole log each time."""

    def __init__(self, store: Store, late_s: int = 0) -> None:
        second = pl.col("ts").dt.epoch("s")
        self._rows = store.interactions().with_columns(second=second).sort("ts").collect()
        self._late_s = late_s

    def states_before(self, user_ids: Sequence[str], times: np.ndarray) -> list[ShopperState]:
        return [self._one(user, int(time)) for user, time in zip(user_ids, times, strict=True)]

    def _one(self, user: str, time: int) -> ShopperState:
        before = self._rows.filter((pl.col("user_id") == user) & (pl.col("second") < time + self._late_s))
        rings = [
            Ring(
                item_keys(rows["item_id"].to_list()),
                rows["second"].to_numpy().astype(np.uint32),
                np.zeros(len(rows), np.uint8),
            )
            for rows in (before.filter(pl.col("action") == action) for action in ("click", "order"))
        ]
        acts = before.filter(pl.col("action") != "impression").select("query", "item_id", "second").rows()
        recent = tuple(Recent(query, item_key(item), second) for query, item, second in acts)
        return ShopperState(user, *rings, recent)


class Plain(UserEncoderServer):
    """Prompts that say how many clicks and orders it was told, and what stands in."""

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind

    @classmethod
    def open(cls, folder: Path, context: Any, config: Any) -> Plain:
        return cls()

    def raw(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> RawPrompt:
        assert stand_ins is not None
        if self.blind:
            ids, mask = pad([[QUERY, SEP] for _ in queries])
            return RawPrompt(ids, mask, np.zeros((len(ids), 0, 0)), np.zeros((len(ids), 0), bool))
        rows = [
            [QUERY, 100 + len(state.clicks), 200 + len(state.orders), SEP, *(300 + items).tolist()]
            for state, items in zip(states, stand_ins, strict=True)
        ]
        history = np.array([[[len(state.clicks), 1, 2, 3]] * 2 for state in states], np.float32)
        ids, mask = pad(rows)
        return RawPrompt(ids, mask, history, np.array([[len(s.clicks) > 0, False] for s in states]))

    def features(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> Prompt:
        raise NotImplementedError


def made(
    store: Store, corpus_of, tmp_path: Path, log: Any = None, blind: bool = False, **more: Any
) -> Examples:
    encoder = Plain(blind)
    corpus = corpus_of(store, tmp_path)
    bare = Plain(blind).raw(
        [ShopperState()] * len(corpus.query_prompts),
        [""] * len(corpus.query_prompts),
        corpus.query_sids,
        [np.zeros(0, np.int32)] * len(corpus.query_prompts),
    )
    from onesearch.training.examples import Ragged

    corpus = replace(corpus, query_prompts=Ragged.of_mask(bare.ids, bare.mask))
    training = TrainingConfig(**more)
    split = split_logs(store, 0.2, 0.66, training.half_life_days)
    return personalisation(
        corpus, store, split, lambda: log or EventLog.of_store(store), encoder, training, SilentProgress()
    )


def task(examples: Examples, name: str) -> SidTask:
    return next(task for task in examples.sid_tasks if task.name == name)


def prompts(task: SidTask) -> list[list[int]]:
    return [task.prompts.row(at).tolist()[1:] for at in range(len(task.prompts))]


# -- targets -------------------------------------------------------------------------------------------------


def test_targets_golden(tmp_path: Path) -> None:
    found = search_targets(written(tmp_path, LOG))
    at = found.select("user_id", "query", "item", pl.col("moment") - START, "worth").rows()
    assert at == [
        # Clicked and ordered in one request: an order, asked for before anything was shown.
        ("ann", "red lamp", 1, 1000, ORDER),
        ("bob", "red lamp", 0, 2000, CLICK),
        # The page's second click knows as little of the first as the search did.
        ("bob", "red lamp", 2, 2000, CLICK),
        ("ann", "red lamp", 0, 86_400 + 10, CLICK),
        ("cat", "red lamp", 2, 86_400 + 10, CLICK),
        ("ann", "red lamp", 1, 2 * 86_400 + 50, CLICK),
        ("ann", "red lamp", 3, 2 * 86_400 + 90, ORDER),
    ]
    assert found["ts"][0] == DAY + timedelta(seconds=1070), "an order's time is its own"


def test_events_of_one_query_are_one_search_where_no_request_is_named(tmp_path: Path) -> None:
    log = [
        ("ann", None, "rug", 1, "click", 0, 0),
        ("bob", None, "rug", 1, "click", 0, 30),
        ("ann", None, "rug", 1, "order", 0, 1_700),
        ("ann", None, "rug", 2, "click", 0, 3_400),
        ("ann", None, "rug", 1, "click", 0, 5_300),
        ("ann", None, "Lamp", 1, "click", 0, 60),
    ]
    found = search_targets(written(tmp_path, log))
    assert found.select("user_id", "query", "item", pl.col("moment") - START, "worth").rows() == [
        ("ann", "rug", 1, 0, ORDER),
        ("ann", "rug", 2, 0, CLICK),
        ("bob", "rug", 1, 30, CLICK),
        ("ann", "lamp", 1, 60, CLICK),
        ("ann", "rug", 1, 5_300, CLICK),
    ]


def test_what_the_catalogue_lacks_and_other_scenes_are_no_targets(tmp_path: Path) -> None:
    store = written(tmp_path, [*LOG[:3], ("ann", "r1", "red lamp", 77, "click", 0, 1006)])
    assert search_targets(store)["item"].to_list() == [1]


# -- stand-ins -----------------------------------------------------------------------------------------------


def test_stand_ins_golden(tmp_path: Path) -> None:
    store = written(tmp_path, LOG)
    moments = START + np.array([1000, 1005, 1006, 2000, 86_410, 86_411, 10**7])

    def found(half_life_days: float) -> list[list[int]]:
        made = stand_ins(store, ["red lamp"] * 7, moments, half_life_days)
        return [items.tolist() for items in made]

    # At second 1005 the click of that second is not known. Item 2 was clicked 7 s after item 0.
    assert found(14.0) == [[], [], [1], [1], [1, 2, 0], [1, 2, 0], [1, 3, 2, 0]]
    # A day is ten half-lives: what was clicked yesterday hardly counts.
    assert found(0.1) == [[], [], [1], [1], [1, 2, 0], [2, 0, 1], [3, 1, 2, 0]]
    assert stand_ins(store, ["rug"], moments[:1], 14.0)[0].tolist() == []


@pytest.mark.parametrize("half_life_days", [0.001, 2.0, 400.0])
def test_stand_ins_rank_as_pairs_do(tmp_path: Path, half_life_days: float) -> None:
    rng = np.random.default_rng(4)
    log = [
        ("u", f"r{n}", f"q{rng.integers(2)}", int(rng.integers(30)), ("click", "order")[int(rng.integers(2))],
         int(rng.integers(9)), int(rng.integers(86_400)))
        for n in range(600)
    ]  # fmt: skip
    store = written(tmp_path, log, items=30)
    queries = [f"q{n % 2}" for n in range(40)]
    moments = START + rng.integers(9 * 86_400, size=40)
    found = stand_ins(store, queries, moments, half_life_days)
    for query, moment, items in zip(queries, moments.tolist(), found, strict=True):
        before = datetime.fromtimestamp(moment, UTC)
        pairs = query_item_pairs(store, before=before, half_life_days=half_life_days)
        # Weights of single precision fade to nothing; those rank in any order.
        known = pairs.filter((pl.col("query") == query) & (pl.col("weight") > 1e-30))
        best = known.sort("weight", "item", descending=[True, False])["item"][:10].to_list()
        assert items.tolist()[: len(best)] == best
        assert len(items) == min(10, len(pairs.filter(pl.col("query") == query)))


def test_equal_ones_are_told_apart_by_their_number_and_few_are_kept() -> None:
    most = MostClicked(half_life_s=100.0, count=2)
    for item in (5, 3, 4):
        most.add(item, 50, 1.0)
    assert most.best().tolist() == [3, 4]
    most.add(5, 50, 1.0)
    assert most.best().tolist() == [5, 3], "what fell out comes back with all its weight"
    most.add(4, 10**9, 1.0)
    assert most.best().tolist() == [4, 5]


# -- examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [PlainLog, EventLog.of_store])
def test_examples_golden(tmp_path: Path, corpus_of, log: Callable[[Store], Any]) -> None:
    store = written(tmp_path / "S", LOG)
    examples = made(store, corpus_of, tmp_path, log(store))
    served = task(examples, SERVED_TASK)
    assert prompts(served) == [
        [100, 200, SEP],  # ann, nobody before her
        [100, 200, SEP, 301],  # bob
        [100, 200, SEP, 301],
        [101, 201, SEP, 301, 302, 300],  # ann again
        [100, 200, SEP, 301, 302, 300],  # cat, in the same second
        [102, 201, SEP, 301, 302, 300],
        [103, 201, SEP, 301, 302, 300],  # her search of the held-out day before this one is known by now
    ]
    assert served.held_out.tolist() == [False] * 5 + [True] * 2
    leaves = examples.tree.tree.find_leaves(corpus_of(store, tmp_path).index.sids)
    assert served.leaf.tolist() == leaves[[1, 0, 2, 0, 2, 1, 3]].tolist()
    assert set(served.vector.tolist()) == {0}
    # The newest learnt event is a day and 10 s old at most; 56 days are one halving.
    day = 0.5 ** (1 / 56)
    ages = [1 - 1_060 / 86_400, 1 - 1_993 / 86_400, 1 - 2_000 / 86_400, 0, 0]
    worth = [2, 1, 1, 1, 1]
    assert served.weight[:5].tolist() == pytest.approx(
        [w * day**age for w, age in zip(worth, ages, strict=True)], rel=1e-6
    )
    assert served.weight[5:].tolist() == [1.0, 2.0], "held-out ones do not fade"


def test_equal_histories_are_stored_once(tmp_path: Path, corpus_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "BATCH", 2)
    served = task(made(written(tmp_path / "S", LOG), corpus_of, tmp_path), SERVED_TASK)
    histories = served.histories
    assert histories is not None and histories.values.dtype == np.float16
    assert histories.row.tolist() == [0, 0, 0, 1, 0, 2, 3] and histories.row.dtype == np.int32
    assert histories.values[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert histories.mask.tolist() == [[False, False], [True, False], [True, False], [True, False]]
    assert not histories.values[~histories.mask].any(), "what has nothing to say is 0"


def test_strangers_and_pseudo_queries_are_mixed_in(logged: Store, corpus_of, tmp_path: Path) -> None:
    examples = made(logged, corpus_of, tmp_path)
    assert examples.share == {SERVED_TASK: 0.8, personal.UNKNOWN_TASK: 0.1, PSEUDO_TASK: 0.1}
    served, strangers = task(examples, SERVED_TASK), task(examples, personal.UNKNOWN_TASK)
    known = [row[0] > 100 for row in prompts(served)]
    learnt = np.flatnonzero(np.array(known) & ~served.held_out)
    assert len(strangers.leaf) == len(learnt) // personal.UNKNOWN_EACH > 10
    assert {tuple(row[:3]) for row in prompts(strangers)} == {(100, 200, SEP)}
    assert not strangers.held_out.any()
    for other in (strangers, task(examples, PSEUDO_TASK)):
        # They are served with the prefix of nothing known, so they are trained with it.
        histories = other.histories
        assert histories is not None and len(histories.row) == len(other.leaf)
        assert histories.values.shape[1:] == served.histories.values.shape[1:]  # type: ignore[union-attr]
        assert not histories.mask[histories.row].any() and not histories.values[histories.row].any()
    told = {tuple(row[3:]) for row in prompts(strangers)}
    assert told <= {tuple(row[3:]) for row in prompts(served)} and max(map(len, told)) > 3


def test_the_newest_are_kept_and_all_are_before_the_held_out(
    logged: Store, corpus_of, tmp_path: Path
) -> None:
    every = task(made(logged, corpus_of, tmp_path), SERVED_TASK)
    few = task(made(logged, corpus_of, tmp_path, personal_examples=50), SERVED_TASK)
    learnt = np.flatnonzero(~every.held_out)
    assert (~few.held_out).sum() == 50 and few.held_out.sum() == every.held_out.sum()
    newest = every.prompts.take(learnt[-50:])
    assert few.prompts.take(np.arange(50)).values.tolist() == newest.values.tolist()


def test_without_the_sliding_window_each_shopper_is_seen_once(
    logged: Store, corpus_of, tmp_path: Path
) -> None:
    whole = task(made(logged, corpus_of, tmp_path), SERVED_TASK)
    once = task(made(logged, corpus_of, tmp_path, sliding_window=False), SERVED_TASK)
    assert (~once.held_out).sum() == 9 and once.held_out.sum() == whole.held_out.sum()


def test_held_out_searches_are_a_sample_of_bounded_size(
    logged: Store, corpus_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal, "HELD_OUT_EXAMPLES", 20)
    first, again, other = (
        task(made(logged, corpus_of, tmp_path, seed=seed), SERVED_TASK) for seed in (0, 0, 1)
    )
    assert first.held_out.sum() == 20
    assert first.leaf.tolist() == again.leaf.tolist() != other.leaf.tolist()


def test_held_out_queries_are_not_learnt_from_where_the_split_is_by_query(tmp_path: Path, corpus_of) -> None:
    log = [
        ("u", f"r{n}", f"seldom {n // 2}", n % 6, "click", n // 30, 600 * (n % 30)) for n in range(120)
    ]  # fmt: skip
    store = written(tmp_path / "S", log)
    split = split_logs(store, 0.2, 0.66, 14.0)
    assert split.kind == "query"
    served = task(made(store, corpus_of, tmp_path), SERVED_TASK)
    corpus = corpus_of(store, tmp_path)
    assert {tuple(row[3:]) for row in np.array(prompts(served), object)[served.held_out]} == {()}
    hidden = {corpus.queries[row] for row in served.vector[served.held_out]}
    assert hidden == set(split.held_out["query"]) and hidden
    assert not hidden & {corpus.queries[row] for row in served.vector[~served.held_out]}


def test_a_store_without_searches_is_passed_over(judged: Store, corpus_of, tmp_path: Path) -> None:
    with pytest.raises(NothingPersonal, match="logs no searches"):
        made(judged, corpus_of, tmp_path)


def test_an_encoder_that_looks_at_nobody_is_passed_over(tmp_path: Path, corpus_of) -> None:
    with pytest.raises(NothingPersonal, match="know nothing of shoppers"):
        made(written(tmp_path / "S", LOG), corpus_of, tmp_path, blind=True)


# -- the guard -----------------------------------------------------------------------------------------------


def test_a_planted_leak_is_caught(tmp_path: Path, corpus_of) -> None:
    store = written(tmp_path / "S", LOG)
    # A log that is a minute late in forgetting: it tells the click on the very item.
    with pytest.raises(
        OneSearchError, match="shopper 'ann' for a search of 2024-03-02 00:00:10 holds an event"
    ):
        made(store, corpus_of, tmp_path, log=PlainLog(store, late_s=1))


def test_the_guard_looks_at_every_part_of_a_state() -> None:
    def ring(*times: int) -> Ring:
        return Ring(
            np.ones(len(times), np.uint64), np.array(times, np.uint32), np.zeros(len(times), np.uint8)
        )

    recent = (Recent("lamp", 1, 100),)
    good = ShopperState("u", ring(20, 99), ring(99), (Recent("lamp", 1, 99),))
    check_strictly_before([ShopperState(), good, good], np.array([0, 100, 101]))
    for bad in (
        replace(good, clicks=ring(100)),
        replace(good, clicks=ring(100, 20)),
        replace(good, orders=ring(5, 101)),
        replace(good, recent=recent),
    ):
        with pytest.raises(OneSearchError, match="the future"):
            check_strictly_before([good, bad], np.array([100, 100]))
