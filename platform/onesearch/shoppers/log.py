"""What was known of each shopper at any moment of a log.

The log's clicks and orders, and one row for the impressions of a shopper, second and query, stand in arrays
sorted by shopper and time, so that a state is a few binary searches and slices: just what
:func:`onesearch.shoppers.events.apply` would make of everything that happened before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onesearch.shoppers.events import LAST_TIME, pair_text, typed_text
from onesearch.shoppers.state import (
    NO_ITEM,
    RECENT_SIZE,
    RING_SIZE,
    SCENES,
    Recent,
    Ring,
    ShopperState,
    item_key,
)

if TYPE_CHECKING:
    from onesearch.data.store import Store

_WALK = 64
"""Rows of a trail that are looked at first for the recent pairs; each further step takes twice as many."""
_NOTHING_TYPED = 0
"""The number of the empty text: it is the first in order."""


def _combined(highs: np.ndarray, lows: np.ndarray) -> np.ndarray:
    """u64[n]: two columns of numbers as one, in the same order."""
    return (highs.astype(np.uint64) << np.uint64(32)) + lows.astype(np.uint64)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows sorted by shopper and time.

    Attributes:
        moments: u64[n], the shopper's number · 2^32 + seconds since 1970.
        starts: i64[U + 1], where the rows of each shopper begin.
    """

    moments: np.ndarray
    starts: np.ndarray

    def before(self, shoppers: np.ndarray, times: np.ndarray) -> list[tuple[int, int]]:
        """Where the rows of shoppers i64[B] before some times i64[B] begin and end."""
        ends = np.searchsorted(self.moments, _combined(shoppers, np.clip(times, 0, LAST_TIME + 1)))
        return list(zip(self.starts[shoppers].tolist(), ends.tolist(), strict=True))

    def times(self, start: int, end: int) -> np.ndarray:
        """u32[end - start], seconds since 1970."""
        return self.moments[start:end].astype(np.uint32)


@dataclass(frozen=True, eq=False)
class _Done(_Rows):
    """Clicks or orders, none repeated: items u64[n], scenes u8[n]."""

    items: np.ndarray
    scenes: np.ndarray

    def ring(self, start: int, end: int) -> Ring:
        """The newest of some rows."""
        start = max(start, end - RING_SIZE)
        return Ring(self.items[start:end], self.times(start, end), self.scenes[start:end])


@dataclass(frozen=True, eq=False)
class _Shown(_Rows):
    """Impressions, a row a second: totals i64[n + 1], how many there are above each row."""

    totals: np.ndarray

    def count(self, start: int, end: int) -> int:
        """Impressions in some rows."""
        return int(self.totals[end] - self.totals[start])


@dataclass(frozen=True, eq=False)
class _Trail(_Rows):
    """What recent pairs are made of, sorted by shopper, time, item, query as compared, query as typed, scene.

    Attributes:
        items: u64[n]. texts: i32[n], positions in the log's queries. scenes: u8[n].
        following: i64[n], the next row of the same shopper and pair; n without one.
    """

    items: np.ndarray
    texts: np.ndarray
    scenes: np.ndarray
    following: np.ndarray

    def newest(self, start: int, end: int) -> np.ndarray:
        """i64[<= RECENT_SIZE], the last row of each of the newest pairs of some rows, oldest first."""
        size = _WALK
        while True:
            first = max(start, end - size)
            # A pair whose next row lies beyond the end has its last one here.
            rows = np.flatnonzero(self.following[first:end] >= end)
            if first == start or len(rows) >= RECENT_SIZE:
                return rows[-RECENT_SIZE:] + first
            size *= 2


@dataclass(frozen=True, eq=False)
class _Queries:
    """Texts in one block: blob of UTF-8, ends i64[n + 1] where each begins and ends."""

    blob: bytes
    ends: np.ndarray

    def some(self, numbers: np.ndarray) -> list[str]:
        """The texts of some numbers i32[n]."""
        bounds = zip(self.ends[numbers].tolist(), self.ends[numbers + 1].tolist(), strict=True)
        return [self.blob[start:end].decode() for start, end in bounds]


@dataclass(frozen=True, eq=False)
class EventLog:
    """A log, ready to be asked what was known of a shopper before any second.

    Attributes:
        user_ids: the shoppers who did or were shown anything, sorted.
    """

    user_ids: list[str]
    _clicks: _Done
    _orders: _Done
    _shown: _Shown
    _trail: _Trail
    _queries: _Queries

    @classmethod
    def of_store(cls, store: Store) -> EventLog:
        """Read a store's interactions; what :func:`~onesearch.shoppers.events.fold` refuses is left out.

        At most some 30 bytes of memory a click or order, and as much a second in which a shopper was shown
        something; reading takes a few times that.
        """
        return _read(store.interactions())

    @classmethod
    def of_events(cls, events: pl.LazyFrame) -> EventLog:
        """The same of rows of the table ``interactions``, wherever they come from."""
        return _read(events)

    def state_before(self, user_id: str, time_s: int) -> ShopperState:
        """What was known of a shopper just before a second since 1970: nothing of that second is seen."""
        return self.states_before([user_id], np.array([time_s]))[0]

    def states_before(self, user_ids: Sequence[str], times: np.ndarray) -> list[ShopperState]:
        """The same for B shoppers and seconds, times i64[B]; a shopper may come more than once."""
        numbers = self._numbers
        shoppers = np.array([numbers.get(user_id, -1) for user_id in user_ids], np.int64)
        times = np.where(shoppers < 0, 0, np.asarray(times, np.int64))
        spans = [
            rows.before(np.maximum(shoppers, 0), times)
            for rows in (self._clicks, self._orders, self._shown, self._trail)
        ]
        return [
            ShopperState(
                user_id,
                self._clicks.ring(*clicks),
                self._orders.ring(*orders),
                recent,
                (self._shown.count(*shown), clicks[1] - clicks[0], orders[1] - orders[0]),
            )
            for user_id, clicks, orders, shown, recent in zip(
                user_ids, *spans[:3], self._recents(spans[3]), strict=True
            )
        ]

    def _recents(self, spans: list[tuple[int, int]]) -> Iterator[tuple[Recent, ...]]:
        trail = self._trail
        found = [trail.newest(start, end) for start, end in spans]
        rows = np.concatenate(found) if found else np.zeros(0, np.int64)
        made = map(
            Recent,
            self._queries.some(trail.texts[rows]),
            trail.items[rows].tolist(),
            (trail.moments[rows] & np.uint64(LAST_TIME)).tolist(),
            trail.scenes[rows].tolist(),
        )
        for own in found:
            yield tuple(islice(made, len(own)))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self.user_ids)}


def _read(interactions: pl.LazyFrame) -> EventLog:
    # Texts become numbers inside the streaming engine: only different ones are ever collected as texts.
    action = pl.col("action").cast(pl.String)
    in_search = pl.col("scene").cast(pl.String) == SCENES[0]
    events = (
        interactions.select(
            "user_id",
            "item_id",
            query=pl.when(in_search).then(pl.col("query")).fill_null(""),
            time=pl.col("ts").dt.epoch("us").floordiv(1_000_000),
            scene=pl.when(in_search).then(0).otherwise(1).cast(pl.UInt8),
            action=pl.when(action == "impression").then(0).when(action == "click").then(1).otherwise(2),
        )
        .filter(
            pl.col("time").is_between(0, LAST_TIME),
            pl.col("user_id") != "",
            (pl.col("item_id") != "") | (pl.col("action") == 0),
        )
        .with_columns(pl.col("time").cast(pl.UInt32), pl.col("action").cast(pl.UInt8))
    )
    users = _different(events, "user_id").sort().to_frame().with_row_index("user")
    done = events.filter(pl.col("action") > 0)
    item_ids = _different(done, "item_id")
    keys = pl.Series("item", [item_key(item_id) for item_id in item_ids.to_list()], pl.UInt64)
    queries, texts = _queries(_different(events, "query"))
    done = done.join(pl.DataFrame([item_ids, keys]).lazy(), on="item_id")
    shown = events.filter(pl.col("action") == 0)
    numbered = [
        part.join(users.lazy(), on="user_id").join(texts.lazy(), on="query") for part in (done, shown)
    ]
    acts = (
        numbered[0]
        .select("user", "time", "item", "text", "compared", "scene", "action")
        .collect(engine="streaming")
    )
    sights = (
        numbered[1]
        .group_by("user", "time", "text", "compared")
        .agg(impressions=pl.len())
        .collect(engine="streaming")
    )
    user_ids = users["user_id"].to_list()
    count = len(user_ids)
    return EventLog(
        user_ids,
        _done(acts.filter(pl.col("action") == 1), count),
        _done(acts.filter(pl.col("action") == 2), count),
        _shown(sights, count),
        _trail(acts, sights, count),
        queries,
    )


def _different(events: pl.LazyFrame, column: str) -> pl.Series:
    return events.select(pl.col(column).unique()).collect(engine="streaming")[column]


def _queries(typed: pl.Series) -> tuple[_Queries, pl.DataFrame]:
    """The texts that states show, sorted as they are compared, and which of them stands for each typed query.

    Columns of the frame: query str, text i32 (the position of its text), compared i32 (equal for queries that
    are the same in recent pairs).
    """
    shown = [typed_text(query) for query in typed.to_list()]
    compared = {text: pair_text(text) for text in shown}
    compared[""] = ""
    texts = sorted(compared, key=lambda text: (compared[text], text))
    numbers = {text: number for number, text in enumerate(texts)}
    firsts: dict[str, int] = {}
    for text in texts:
        firsts.setdefault(compared[text], numbers[text])
    encoded = [text.encode() for text in texts]
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=ends[1:])
    frame = pl.DataFrame(
        {
            "query": typed,
            "text": pl.Series([numbers[text] for text in shown], dtype=pl.Int32),
            "compared": pl.Series([firsts[compared[text]] for text in shown], dtype=pl.Int32),
        }
    )
    return _Queries(b"".join(encoded), ends), frame


def _done(acts: pl.DataFrame, shoppers: int) -> _Done:
    moments, items, scenes = _moments(acts), acts["item"].to_numpy(), acts["scene"].to_numpy()
    order = np.lexsort([scenes, items, moments])
    order = order[_first_of_equals(moments[order], items[order])]
    moments = moments[order]
    return _Done(moments, _starts(moments, shoppers), _fixed(items[order]), _fixed(scenes[order]))


def _shown(sights: pl.DataFrame, shoppers: int) -> _Shown:
    moments = _moments(sights)
    order = np.argsort(moments, kind="stable")
    first = np.flatnonzero(_first_of_equals(moments[order]))
    running = np.concatenate([[0], np.cumsum(sights["impressions"].to_numpy()[order], dtype=np.int64)])
    moments = moments[order][first]
    return _Shown(moments, _starts(moments, shoppers), np.append(running[first], running[-1]))


def _trail(acts: pl.DataFrame, sights: pl.DataFrame, shoppers: int) -> _Trail:
    searches = sights.filter(pl.col("text") != _NOTHING_TYPED).with_columns(
        item=pl.lit(NO_ITEM, pl.UInt64), scene=pl.lit(0, pl.UInt8)
    )
    columns = ["user", "time", "item", "text", "compared", "scene"]
    frame = pl.concat([acts.select(columns), searches.select(columns)])
    users, _, items, texts, compared, scenes = (frame[name].to_numpy() for name in columns)
    moments = _moments(frame)
    order = np.lexsort([scenes, texts, items, moments])
    order = order[_first_of_equals(moments[order], items[order], texts[order], scenes[order])]
    moments, items = moments[order], items[order]
    pairs = _combined(users[order], compared[order])
    return _Trail(
        moments,
        _starts(moments, shoppers),
        items,
        texts[order],
        scenes[order],
        _following(pairs, items),
    )


def _following(pairs: np.ndarray, items: np.ndarray) -> np.ndarray:
    """i64[n]: for each row the next one that is equal in both columns; n without one."""
    count = len(pairs)
    order = np.lexsort([items, pairs])
    again = np.flatnonzero(~_first_of_equals(pairs[order], items[order]))
    following = np.full(count, count, np.int64)
    following[order[again - 1]] = order[again]
    return following


def _first_of_equals(*columns: np.ndarray) -> np.ndarray:
    """bool[n]: which rows of sorted columns differ from the row above."""
    first = np.zeros(len(columns[0]), bool)
    first[:1] = True
    for column in columns:
        first[1:] |= column[1:] != column[:-1]
    return first


def _moments(frame: pl.DataFrame) -> np.ndarray:
    return _combined(frame["user"].to_numpy(), frame["time"].to_numpy())


def _starts(moments: np.ndarray, shoppers: int) -> np.ndarray:
    numbers = np.arange(shoppers + 1)
    return np.searchsorted(moments, _combined(numbers, np.zeros_like(numbers)))


def _fixed(array: np.ndarray) -> np.ndarray:
    """The array, for nobody to write to: states hold slices of it."""
    array.flags.writeable = False
    return array
