"""What a gateway showed, and what shoppers did, told to Kafka without a search ever waiting for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from onesearch.config import KafkaConfig
from onesearch.errors import UsageError
from onesearch.events.columns import FUTURE_LIMIT_S
from onesearch.events.messages import (
    Interaction,
    key_of,
    new_event_id,
    now_us,
    write_interaction,
)
from onesearch.events.publisher import Fate, Publisher, PublisherTally
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Client, Record
from onesearch.kafka.opening import connect
from onesearch.serving.requests import SearchAnswer, SearchRequest

MAX_EVENTS = 1_000
"""Events of one report."""
_NEEDED = ("event_id", "user_id", "item_id")
_MAX_ID_BYTES = 256
_MAX_QUERY_BYTES = 4_096
_NOTHING = PublisherTally(0, 0, 0, 0, 0, False)


class Traffic:
    """Publishes interactions to a topic."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    @classmethod
    def open(cls, settings: KafkaConfig, port: int) -> Self:
        """Of a cluster, with a spool. Kafka need not answer yet.

        Raises UsageError where the client is not installed, or another gateway has the spool.
        """
        client: Client = connect(settings)
        folder = Path(settings.spool) if settings.spool else _default_spool(port)
        return cls(Publisher(client, Spool(folder, settings.spool_mb * 2**20)), settings.interactions)

    def shown(self, request: SearchRequest, answer: SearchAnswer) -> None:
        """Log what an answer shows. Shoppers without an id leave no trace: nothing is learnt of them."""
        if not request.user_id or not answer.hits:
            return
        at, base = request.asked_at_us or now_us(), new_event_id()
        events = [
            Interaction(
                event_id=f"{base}{hit.rank:x}",
                ts_us=at,
                user_id=request.user_id,
                item_id=hit.item_id,
                action="impression",
                query=request.query,
                request_id=answer.request_id,
                position=hit.rank - 1,
                score=hit.score,
                propensity=hit.propensity if hit.propensity > 0 else None,
                release=answer.release,
            )
            for hit in answer.hits
        ]
        self._publisher.offer(self._records(events))

    async def report(self, events: Sequence[Interaction]) -> Fate:
        """Keep events that a client reports; what became of them.

        Raises:
            UsageError: one does not fit; the message says which and why. None is kept then.
            ServingError: neither Kafka nor the spool could keep them.
        """
        check(events)
        return await asyncio.wrap_future(self._publisher.deliver(self._records(events)))

    @property
    def tally(self) -> PublisherTally:
        """What became of messages since the start."""
        return self._publisher.tally

    def close(self) -> None:
        """Send or spool what is waiting."""
        self._publisher.close()

    def _records(self, events: Sequence[Interaction]) -> list[Record]:
        return [Record(self._topic, key_of(event), write_interaction(event)) for event in events]


def tally_of(traffic: Traffic | None) -> PublisherTally:
    """What became of messages; nothing where none are sent."""
    return traffic.tally if traffic is not None else _NOTHING


def check(events: Sequence[Interaction]) -> None:
    """Raise UsageError naming the event and field that a log would refuse."""
    if not 1 <= len(events) <= MAX_EVENTS:
        raise UsageError(f"events: {len(events)}, where 1 to {MAX_EVENTS} are possible")
    latest = now_us() + FUTURE_LIMIT_S * 1_000_000
    for number, event in enumerate(events):
        why = _problem(event, latest)
        if why:
            raise UsageError(f"event {number}: {why}")


def check_time(asked_at_us: int | None) -> None:
    """Raise UsageError where a request's own time is none, or lies ahead."""
    if asked_at_us is not None and not 0 <= asked_at_us <= now_us() + FUTURE_LIMIT_S * 1_000_000:
        raise UsageError(f"asked_at_us: {asked_at_us} is not a time from 1970 to tomorrow, in microseconds")


def _problem(event: Interaction, latest: int) -> str:
    for name in (*_NEEDED, "session_id", "request_id", "release"):
        value = getattr(event, name) or ""
        if name in _NEEDED and not value:
            return f"{name}: empty"
        if len(value.encode("utf-8", "replace")) > _MAX_ID_BYTES:
            return f"{name}: longer than {_MAX_ID_BYTES} bytes"
    if len((event.query or "").encode("utf-8", "replace")) > _MAX_QUERY_BYTES:
        return f"query: longer than {_MAX_QUERY_BYTES} bytes"
    if not 0 <= event.ts_us <= latest:
        return f"ts_us: {event.ts_us} is not a time from 1970 to tomorrow, in microseconds"
    if event.propensity is not None and not 0 < event.propensity <= 1:
        return f"propensity: {event.propensity} is not in (0, 1]"
    return ""


def _default_spool(port: int) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "onesearch" / f"spool-{port or 'any'}"
