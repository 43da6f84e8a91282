"""A store of states made from a whole log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from onesearch.errors import UsageError
from onesearch.progress import Progress, SilentProgress
from onesearch.shoppers.events import LAST_TIME
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.store import StateStore

if TYPE_CHECKING:
    from onesearch.data.store import Store

_PORTION = 2_000


def build_states(
    store: Store, states: StateStore, replace: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Write what is known of every shopper of a log, in place of what was known of them.

    The same log gives the same states, however often it is run or interrupted in between.

    Args:
        store: its interactions are read.
        states: where to write.
        replace: write although a stream writes there too, whose later events are then lost.
        progress: who is told.

    Returns ``shoppers`` (how many were written), ``interactions`` (of the log), ``seconds``, ``simulated``.
    Raises UsageError where marks say that a stream writes there.
    """
    progress = progress or SilentProgress()
    started = time.monotonic()
    if states.marks() and not replace:
        raise UsageError(
            f"{states.url} is written by a stream, and what it has seen since the log ends would be lost; "
            "name another place, or say --replace"
        )
    with progress.task("reading the log"):
        log = EventLog.of_store(store)
    count = len(log.user_ids)
    with progress.task("writing states", count) as task:
        for start in range(0, count, _PORTION):
            user_ids = log.user_ids[start : start + _PORTION]
            states.put_many(log.states_before(user_ids, np.full(len(user_ids), LAST_TIME + 1)))
            task.advance(len(user_ids))
    return {
        "shoppers": count,
        "interactions": store.count("interactions"),
        "seconds": time.monotonic() - started,
        "simulated": store.simulated,
    }
