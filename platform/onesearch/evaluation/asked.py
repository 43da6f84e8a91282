"""Who asks: searches with what was known of their shoppers, each different one asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onesearch.data.store import Store
from onesearch.evaluation.searches import ALWAYS, Searches
from onesearch.shoppers.state import ShopperState

States = Callable[[Sequence[str], np.ndarray], list[ShopperState]]
"""User ids and moments i64[B] → what was known of each shopper just before."""


@dataclass(frozen=True)
class Asked:
    """The different things that S searches ask.

    Attributes:
        queries, states: A different ones: a query, asked by a shopper as known at a moment.
        rows: i64[S], which of them each search is.
        texts: T different queries. text_rows: i64[S], which of them each search has.
        known: bool[S], whether anything is known of the search's shopper.
    """

    queries: list[str]
    states: list[ShopperState]
    rows: np.ndarray
    texts: list[str]
    text_rows: np.ndarray
    known: np.ndarray


def asked_by(searches: Searches, states: States | None) -> Asked:
    """What searches ask; without ``states`` nobody is known."""
    unknown = states is None
    keys = [
        (query, "", ALWAYS) if unknown or not user else (query, user, moment)
        for query, user, moment in zip(
            searches.queries, searches.user_ids, searches.moments.tolist(), strict=True
        )
    ]
    different = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    shoppers = list(dict.fromkeys((user, moment) for _, user, moment in different if user))
    found: dict[tuple[str, int], ShopperState] = {}
    if states is not None and shoppers:
        moments = np.array([moment for _, moment in shoppers], np.int64)
        found = dict(zip(shoppers, states([user for user, _ in shoppers], moments), strict=True))
    of_key = [found.get((user, moment), ShopperState()) for _, user, moment in different]
    texts = {text: row for row, text in enumerate(dict.fromkeys(searches.queries))}
    rows = np.array([different[key] for key in keys], np.int64)
    return Asked(
        [query for query, _, _ in different],
        of_key,
        rows,
        list(texts),
        np.array([texts[text] for text in searches.queries], np.int64),
        np.array([state.known for state in of_key], bool)[rows],
    )


def states_of_store(store: Store) -> States:
    """From a store's log: as it was before the moment of a search, at its end for one without."""
    from onesearch.shoppers.log import EventLog

    return EventLog.of_store(store).states_before


def states_of_url(url: str) -> tuple[str, States]:
    """From a store of states, as they are now, whatever the moment; and its URL as people may see it.

    Raises UsageError where there is none, and what the store raises.
    """
    from onesearch.shoppers.opening import open_states

    with open_states(url, read_only=True) as found:
        shown = found.url

    def look_up(user_ids: Sequence[str], moments: np.ndarray) -> list[ShopperState]:
        with open_states(url, read_only=True) as store:
            return store.get_many(user_ids)

    return shown, look_up
