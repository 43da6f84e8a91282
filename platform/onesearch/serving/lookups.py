"""Who is searching: look-ups of shoppers that may be slow, broken or gone without a search noticing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ServingError

_LOG = logging.getLogger("onesearch.lookups")
_LOG_EVERY_S = 60.0
_OPEN_AGAIN_S = 1.0
_THREADS = 8
# A look-up never takes more than this share of the time that a search has.
_SHARE = 0.25


class Store(Protocol):
    """As much of a state store as a search needs."""

    def get(self, user_id: str) -> ShopperState:
        """The state of a shopper; one that nothing is known of where the store has none."""


@dataclass
class Tally:
    """Look-ups since the start: how many, of shoppers that were known, without an answer, and seconds."""

    asked: int = 0
    known: int = 0
    failed: int = 0
    took_s: float = 0.0


class Lookups:
    """Looks shoppers up in a store, within a time limit. For one event loop.

    A store in files is read where the caller is, in microseconds; it is opened again when another file has
    taken its place. A store behind a network is asked from threads.
    """

    def __init__(self, url: str, limit_s: float, open_store: Callable[[str], Store] | None = None) -> None:
        """Nothing is opened yet.

        Args:
            url: ``lmdb:PATH``, a path, or ``redis://…``.
            limit_s: of one look-up.
            open_store: opens a URL; None: :func:`onesearch.shoppers.opening.open_states`, read-only.
        """
        self.url = url
        self.tally = Tally()
        self._limit_s = limit_s
        self._open_store = open_store or _open_read_only
        remote = url.startswith(("redis:", "rediss:"))
        self._folder = None if remote else Path(url.removeprefix("lmdb:").removeprefix("//"))
        self._pool = ThreadPoolExecutor(_THREADS, "lookups") if self._folder is None else None
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        self._open_again = 0.0
        self._logged_at, self._logged = -_LOG_EVERY_S, 0

    def open(self) -> None:
        """Open the store. A server that does not answer yet may come up later: it is tried again.

        Raises:
            OneSearchError: the URL is wrong, a store in files is not there, or something else is there.
        """
        try:
            self._store = self._open_store(self.url)
            self._file = self._mark()
        except ServingError as error:
            if self._folder is not None:
                raise
            self._open_again = time.monotonic() + _OPEN_AGAIN_S
            self._tell(error)

    async def of(self, user_id: str, left_s: float) -> ShopperState:
        """The state of a shopper; that of an unknown one where there is no answer within the limit.

        Args:
            user_id: empty: nobody is looked up.
            left_s: seconds that the whole search has.
        """
        if not user_id:
            return ShopperState()
        started = time.perf_counter()
        self.tally.asked += 1
        try:
            if self._pool is None:
                state = self._get(user_id)
            else:
                asked = asyncio.get_running_loop().run_in_executor(self._pool, self._get, user_id)
                state = await asyncio.wait_for(asked, min(self._limit_s, _SHARE * left_s))
        except Exception as error:  # whatever a store raises, a search goes on without it
            self.tally.failed += 1
            self._tell(error)
            return ShopperState(user_id)
        finally:
            self.tally.took_s += time.perf_counter() - started
        self.tally.known += state.known
        return state if state.user_id else replace(state, user_id=user_id)

    def close(self) -> None:
        """Close the store; look-ups under way are not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        _close(self._store)
        self._store = None

    def _get(self, user_id: str) -> ShopperState:
        store = self._current()
        try:
            return store.get(user_id)
        except ServingError:
            if self._folder is None:
                raise
            self._file = None  # its writer has enlarged it, say: opening it again helps
            return self._current().get(user_id)

    def _current(self) -> Store:
        """The store, opened if need be. While it is open its file cannot be taken for a new one."""
        store, file = self._store, self._mark()
        if store is not None and file == self._file:
            return store
        with self._lock:
            if self._store is not None and file == self._file:
                return self._store
            if time.monotonic() < self._open_again:
                raise ServingError("the store cannot be opened")
            _close(self._store)
            self._store = None
            try:
                opened = self._open_store(self.url)
            except Exception:
                self._open_again = time.monotonic() + _OPEN_AGAIN_S
                raise
            self._store, self._file = opened, file
            return opened

    def _mark(self) -> tuple[int, int] | None:
        """Device and number of the store's file. Raises OSError where it is gone."""
        if self._folder is None:
            return None
        found = (self._folder / "data.mdb").stat()
        return found.st_dev, found.st_ino

    def _tell(self, error: Exception) -> None:
        """Log the first failure, and then one a minute with the number of those before it."""
        now = time.monotonic()
        if now - self._logged_at < _LOG_EVERY_S:
            return
        why = "no answer in time" if isinstance(error, TimeoutError) else f"{error}" or type(error).__name__
        since = self.tally.failed - self._logged
        self._logged_at, self._logged = now, self.tally.failed
        _LOG.warning(
            "shoppers are not known: %s: %s (look-ups without an answer: %d)", self.shown, why, max(since, 1)
        )

    @property
    def shown(self) -> str:
        """The URL without the password that it may hold."""
        return without_password(self.url)


def without_password(url: str) -> str:
    """A URL as people may see it."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":…@")


def _open_read_only(url: str) -> Store:
    from onesearch.shoppers.opening import open_states

    store: Store = open_states(url, read_only=True)
    return store


def _close(store: Any) -> None:
    with suppress(Exception):  # it is let go of either way
        store.close()
