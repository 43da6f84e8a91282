"""Shoppers' states in Redis, for several machines.

Under ``onesearch:states:``: ``state:USER`` a packed state, ``users`` the set of ids, ``marks`` a hash, and
``format``. A step is written by MULTI and EXEC while the states that it read are watched, so that several
writers are safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from onesearch.errors import ArtifactError, OneSearchError, ServingError, UsageError
from onesearch.shoppers.events import Event, Tally
from onesearch.shoppers.packing import pack
from onesearch.shoppers.state import ShopperState
from onesearch.shoppers.store import StateStore, check_marks, check_named, fold_all, read_state

FORMAT = b"1"
_SPACE = "onesearch:states:"
_USERS, _MARKS, _FORMAT = (_SPACE + name for name in ("users", "marks", "format"))
_STATE = (_SPACE + "state:").encode()
_TIMEOUT_S = 5.0
_PORTION = 1_000
_TRIES = 100
"""How often a step is tried again because another writer came between."""


class RedisStates(StateStore):
    """States in one database of a Redis server, beside whatever else is there."""

    def __init__(self, url: str, read_only: bool = False) -> None:
        """Connect.

        Args:
            url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]``, or ``rediss://`` for TLS.
            read_only: refuse to write.

        Raises UsageError where the URL is wrong, ServingError where no server answers, ArtifactError where
        its states are of another format.
        """
        self.url = _checked(url)
        self.read_only = read_only
        self._closed = False
        # A connection that has died is made anew, once and at once: a search does not wait for more.
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 1)
        )
        try:
            self._check_format()
        except BaseException:
            self.close()
            raise

    def get(self, user_id: str) -> ShopperState:
        """What is known of a shopper; of an unknown one, a state with nothing but the id."""
        with self._explained():
            packed = self._client.get(_state_key(user_id))
        return read_state(user_id, packed, self.url)

    def get_many(self, user_ids: Sequence[str]) -> list[ShopperState]:
        """The same for several shoppers, of one moment."""
        if not user_ids:
            return []
        with self._explained():
            packed = self._client.mget([_state_key(user_id) for user_id in user_ids])
        return [read_state(user_id, raw, self.url) for user_id, raw in zip(user_ids, packed, strict=True)]

    def update(
        self,
        events: Mapping[str, Sequence[Event]],
        marks: Mapping[str, int] | None = None,
        now: float | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> Tally:
        """Fold events into states, and write states and marks in one step: see :class:`StateStore`."""
        self._check_writable()
        marks = dict(marks or {})
        keys: list[str | bytes] = [_state_key(user_id) for user_id in events]
        for _ in range(_TRIES):
            with self._explained(), self._client.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(*(keys or [_MARKS]))
                    if marks and pipe.hmget(_MARKS, list(marks)) == [b"%d" % mark for mark in marks.values()]:
                        return Tally(repeated=sum(map(len, events.values())))
                    if after:
                        stand = pipe.hmget(_MARKS, list(after))
                        found = {
                            name: None if mark is None else int(mark)
                            for name, mark in zip(after, stand, strict=True)
                        }
                        check_marks(self.url, after, found)
                    packed = pipe.mget(keys) if keys else []
                    states = (
                        read_state(user_id, raw, self.url)
                        for user_id, raw in zip(events, packed, strict=True)
                    )
                    changed, tally = fold_all(states, events, now)
                    pipe.multi()
                    _write(pipe, changed)
                    if marks:
                        pipe.hset(_MARKS, mapping=marks)
                    pipe.execute()
                    return tally
                except redis.WatchError:
                    continue
        raise ServingError(
            f"{self.url}: other writers came between {_TRIES} times; is it written from elsewhere?"
        )

    def put_many(self, states: Iterable[ShopperState]) -> int:
        """Write states as they are, a thousand in a step; return how many."""
        self._check_writable()
        waiting, count = iter(states), 0
        while portion := list(islice(waiting, _PORTION)):
            check_named(portion)
            with self._explained(), self._client.pipeline(transaction=True) as pipe:
                _write(pipe, portion)
                pipe.execute()
            count += len(portion)
        return count

    def marks(self) -> dict[str, int]:
        """All marks."""
        with self._explained():
            return {name.decode(): int(mark) for name, mark in self._client.hgetall(_MARKS).items()}

    def users(self) -> Iterator[str]:
        """The ids of all shoppers; one may come twice, and those that come meanwhile may be among them."""
        cursor = 0
        while True:
            with self._explained():
                cursor, portion = self._client.sscan(_USERS, cursor, count=_PORTION)
            for user_id in portion:
                yield user_id.decode("utf-8", "surrogatepass")
            if cursor == 0:
                return

    @property
    def count(self) -> int:
        """How many shoppers there are."""
        with self._explained():
            return int(self._client.scard(_USERS))

    def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        self._client.close()

    def _check_format(self) -> None:
        with self._explained():
            if not self.read_only:
                self._client.set(_FORMAT, FORMAT, nx=True)
            found = self._client.get(_FORMAT)
        if found not in (None, FORMAT):
            raise ArtifactError(
                f"{self.url}: shoppers' states of format {found.decode()}; "
                f"this OneSearch reads format {FORMAT.decode()}"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors become those of OneSearch."""
        if self._closed:
            raise OneSearchError(f"{self.url} is closed")
        try:
            yield
        except redis.WatchError:
            raise
        except redis.AuthenticationError as error:
            raise ServingError(f"{self.url}: Redis does not let us in ({error})") from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise ServingError(f"{self.url}: no Redis answers there ({error}); is it running?") from error
        except redis.RedisError as error:
            raise OneSearchError(f"{self.url}: {error}") from error


def _state_key(user_id: str) -> bytes:
    return _STATE + user_id.encode("utf-8", "surrogatepass")


def _write(pipe: Any, states: Sequence[ShopperState]) -> None:
    if states:
        pipe.mset({_state_key(state.user_id): pack(state) for state in states})
        pipe.sadd(_USERS, *(state.user_id.encode("utf-8", "surrogatepass") for state in states))


def _checked(url: str) -> str:
    """The URL as people may see it. Raises UsageError where no database is named by it."""
    try:
        parts = urlsplit(url)
        fits = parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not (parts.path.strip("/").isdecimal() or parts.path in ("", "/")):
        raise UsageError(f"{_hidden(url)}: a Redis is named redis://HOST:PORT/DATABASE")
    return _hidden(url)


def _hidden(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(//[^/@]*):[^/]*@", r"\1:…@", url)
