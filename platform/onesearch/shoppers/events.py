"""Folding what shoppers do into their states.

A state is a summary of a *set* of events: folding them one by one, in any order, or all at once gives the
same state, as long as nothing comes later than a full ring reaches back.

- *Rings* hold the newest clicks and orders, by time, then item key. An event of the same item, time and
  action as one that is there is a repetition and changes nothing. One older than all of a full ring is
  counted and forgotten at once.
- *Recent pairs* are the different pairs of a query, in its normalised form, and an item, with the time and
  the wording of their last event, by time, then item key, then query. Impressions in search make pairs of
  their query and no item; a query with clicks keeps both kinds, and readers decide which to look at.
- *Counts* count applied events, repeated clicks and orders only once. Single impressions are not remembered,
  so that a repeated one cannot be told and is counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from onesearch.errors import UsageError
from onesearch.shoppers.packing import cut_text
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

ACTIONS = ("impression", "click", "order")
FUTURE_LIMIT_S = 86_400
"""Seconds that an event may lie ahead of the clock; clocks differ, but not by more than a day."""
LAST_TIME = 2**32 - 1
"""The last second that a state can hold; it is in the year 2106."""


class Event(NamedTuple):
    """Something a shopper was shown or did.

    Attributes:
        user_id: who.
        time: whole seconds since 1970.
        action: one of :data:`ACTIONS`.
        item_id: which item; None for an impression of a search that found nothing.
        query: as typed; None or empty where nothing was typed.
        scene: ``search`` or ``recommend``; what is said to be typed there is not looked at.
    """

    user_id: str
    time: int
    action: str
    item_id: str | None = None
    query: str | None = None
    scene: str = SCENES[0]


@dataclass(frozen=True)
class Tally:
    """What became of some events.

    Attributes:
        applied: they are in the state, or were, and are counted.
        repeated: the same click or order was there already.
        refused: too far in the future, before 1970, of an unknown scene or action, a click or order without
            an item, or of no user.
    """

    applied: int = 0
    repeated: int = 0
    refused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.applied + other.applied, self.repeated + other.repeated, self.refused + other.refused
        )


def apply(state: ShopperState, events: Iterable[Event], now: float | None = None) -> ShopperState:
    """The state after some events of its shopper, in any order; see :func:`fold`."""
    return fold(state, events, now)[0]


def fold(
    state: ShopperState, events: Iterable[Event], now: float | None = None
) -> tuple[ShopperState, Tally]:
    """The state after some events of its shopper, in any order, and what became of them.

    Args:
        state: what is known; where it names nobody, the events say who it is.
        events: any number, any order.
        now: seconds since 1970; what lies more than :data:`FUTURE_LIMIT_S` ahead of it is refused. None: for
            logs, whose times are taken as they are.

    Raises UsageError where an event is of another shopper.
    """
    latest = LAST_TIME if now is None else min(LAST_TIME, int(now) + FUTURE_LIMIT_S)
    user_id = state.user_id
    done: dict[str, list[tuple[int, int, int]]] = {"click": [], "order": []}
    shown = refused = 0
    pairs: _Pairs = {(pair_text(recent.query), recent.item): recent for recent in state.recent}
    texts: dict[str, str] = {}
    for event in events:
        user_id = user_id or event.user_id
        if event.user_id != user_id:
            raise UsageError(f"an event of shopper {event.user_id!r} among those of {user_id!r}")
        scene = _SCENE_NUMBERS.get(event.scene, -1)
        click_or_order = done.get(event.action)
        fits = bool(event.item_id) if click_or_order is not None else event.action == "impression"
        if not fits or scene < 0 or not user_id or not 0 <= event.time <= latest:
            refused += 1
            continue
        query = ""
        if event.query and scene == 0:
            if (known := texts.get(event.query)) is None:
                known = texts[event.query] = typed_text(event.query)
            query = known
        if click_or_order is None:
            shown += 1
            if query:
                _note(pairs, query, NO_ITEM, event.time, scene)
            continue
        item = item_key(event.item_id or "")
        click_or_order.append((event.time, item, scene))
        _note(pairs, query, item, event.time, scene)
    clicks, clicked = _merged(state.clicks, done["click"])
    orders, ordered = _merged(state.orders, done["order"])
    given = len(done["click"]) + len(done["order"])
    counts = (state.counts[0] + shown, state.counts[1] + clicked, state.counts[2] + ordered)
    tally = Tally(shown + clicked + ordered, given - clicked - ordered, refused)
    return ShopperState(user_id, clicks, orders, _newest(pairs), counts), tally


def by_user(events: Iterable[Event]) -> Mapping[str, Sequence[Event]]:
    """Events grouped by shopper, in the order in which they came."""
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.user_id, []).append(event)
    return groups


def typed_text(query: str) -> str:
    """A query as states keep it: as typed, cut to what a packed state holds; empty where it says nothing."""
    text = cut_text(query)
    return text if pair_text(text) else ""


@lru_cache(1 << 16)
def pair_text(query: str) -> str:
    """The form under which queries of recent pairs are equal: NFKC, lower case, single spaces."""
    return " ".join(normalize("NFKC", query).lower().split())


_SCENE_NUMBERS = {name: number for number, name in enumerate(SCENES)}
_Pairs = dict[tuple[str, int], Recent]
"""By query in its normalised form, and item: the last of each pair."""


def _note(pairs: _Pairs, query: str, item: int, time: int, scene: int) -> None:
    pair = pair_text(query), item
    before = pairs.get(pair)
    if before is None or (before.time, before.query, before.scene) < (time, query, scene):
        pairs[pair] = Recent(query, item, time, scene)


def _newest(pairs: _Pairs) -> tuple[Recent, ...]:
    ranked = sorted(pairs, key=lambda pair: (pairs[pair].time, pair[1], pair[0]))
    return tuple(pairs[pair] for pair in ranked[-RECENT_SIZE:])


def _merged(ring: Ring, events: list[tuple[int, int, int]]) -> tuple[Ring, int]:
    """The ring with some (time, item, scene), and how many of them were new."""
    if not events:
        return ring, 0
    # What lies before all of them stays where it is: nearly the whole ring, as events mostly come in order.
    start = int(np.searchsorted(ring.times, min(events)[0]))
    later = zip(
        ring.times[start:].tolist(), ring.items[start:].tolist(), ring.scenes[start:].tolist(), strict=True
    )
    scenes: dict[tuple[int, int], int] = {}
    for time, item, scene in (*later, *events):
        scenes[time, item] = min(scene, scenes.get((time, item), scene))
    new = len(scenes) - (len(ring) - start)
    moved = sorted(scenes)[-RING_SIZE:]
    kept = slice(max(0, start + len(moved) - RING_SIZE), start)
    merged = Ring(
        np.concatenate([ring.items[kept], np.array([item for _, item in moved], np.uint64)]),
        np.concatenate([ring.times[kept], np.array([time for time, _ in moved], np.uint32)]),
        np.concatenate([ring.scenes[kept], np.array([scenes[event] for event in moved], np.uint8)]),
    )
    return merged, new
