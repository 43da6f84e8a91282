"""Dead letters: messages that could not be read, with why, whence and when, until somebody looks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from onesearch.errors import OneSearchError
from onesearch.kafka.contract import Client, KafkaError, Partition, Producer, Record

HANDLED_GROUP = "onesearch-dead-letters"
"""How far letters were replayed or thrown away is what this group has committed."""
LONGEST = 16 * 1024 * 1024
"""Bytes of a message that a letter holds; of a longer one it has the beginning, and says where it is."""
_HEADERS = ("reason", "topic", "partition", "offset", "topic_id", "length")
_DELIVERY_S = 30.0


@dataclass(frozen=True)
class Letter:
    """A message that was refused.

    Attributes:
        reason: why.
        topic, partition, offset, topic_id: where it was read.
        key, value: the message; ``value`` is cut where it was longer than :data:`LONGEST`.
        length: of the whole value.
        at: its offset among the letters.
        time: milliseconds since 1970, when it was refused.
    """

    reason: str
    topic: str
    partition: int
    offset: int
    topic_id: str
    key: bytes | None
    value: bytes
    length: int
    at: int = -1
    time: int = 0

    @property
    def whole(self) -> bool:
        """Whether the letter has all of the message."""
        return len(self.value) == self.length


class TooManyLettersError(OneSearchError):
    """More messages than allowed could not be read: something is wrong with a sender, or with this reader."""


class Letterbox:
    """Puts letters into the topic. Stops where more wait there than may."""

    def __init__(self, client: Client, limit: int) -> None:
        self._topic = client.settings.dead_letters
        self._producer: Producer = client.producer()
        self._limit = limit
        self._waiting = waiting(client)
        self._check()

    def put(self, letters: Sequence[Letter]) -> None:
        """Write letters; they are acknowledged on return.

        Raises KafkaError where they are not, TooManyLettersError where there are too many now.
        """
        for failure in self._producer.deliver([self._record(letter) for letter in letters], _DELIVERY_S):
            if failure is not None:
                raise KafkaError(f"a dead letter cannot be written to {self._topic}: {failure.reason}")
        self._waiting += len(letters)
        self._check()

    def close(self) -> None:
        """Let go of the connections."""
        self._producer.close()

    def _check(self) -> None:
        if self._waiting > self._limit:
            raise TooManyLettersError(
                f"{self._waiting:,} dead letters wait in {self._topic}, where {self._limit:,} may: nothing "
                "more is read until somebody looks at them (onesearch ingest dlq show), and replays them or "
                "throws them away (onesearch ingest dlq replay, or drop)"
            )

    def _record(self, letter: Letter) -> Record:
        values = (
            letter.reason, letter.topic, letter.partition, letter.offset, letter.topic_id, letter.length,
        )  # fmt: skip
        headers = [(name, str(value).encode()) for name, value in zip(_HEADERS, values, strict=True)]
        return Record(self._topic, letter.key, letter.value[:LONGEST], headers)


def waiting(client: Client) -> int:
    """How many letters wait. Raises KafkaError."""
    partition = Partition(client.settings.dead_letters, 0)
    with closing(client.consumer(HANDLED_GROUP)) as consumer:
        bounds = consumer.bounds([partition])[partition]
        handled = consumer.committed([partition]).get(partition, 0)
    return bounds.end - max(handled, bounds.first)


def read_letters(client: Client, limit: int) -> Iterator[Letter]:
    """The letters that wait, oldest first; one that a consumer wrote twice comes once. Raises KafkaError."""
    partition = Partition(client.settings.dead_letters, 0)
    seen: set[tuple[str, int, int]] = set()
    with closing(client.consumer(HANDLED_GROUP)) as consumer:
        bounds = consumer.bounds([partition])[partition]
        at = max(consumer.committed([partition]).get(partition, 0), bounds.first)
        consumer.assign({partition: at})
        patience = time.monotonic() + _DELIVERY_S
        while at < bounds.end and limit > 0:
            fetched = consumer.poll(0.5, min(limit, 500)).get(partition)
            if fetched is None:
                if time.monotonic() > patience:
                    raise KafkaError(f"the letters of {partition.topic} do not come")
                continue
            for row, offset in enumerate(fetched.offsets):
                at = offset + 1
                letter = _letter(fetched.headers[row], fetched.keys[row], fetched.values[row], offset,
                                 fetched.times[row])  # fmt: skip
                origin = (letter.topic_id, letter.partition, letter.offset)
                if origin in seen or limit <= 0:
                    continue
                seen.add(origin)
                limit -= 1
                yield letter


def set_handled(client: Client, before: int) -> None:
    """Remember that the letters before an offset have been dealt with. Raises KafkaError."""
    partition = Partition(client.settings.dead_letters, 0)
    with closing(client.consumer(HANDLED_GROUP)) as consumer:
        consumer.commit({partition: before})


def _letter(
    headers: Sequence[tuple[str, bytes]], key: bytes | None, value: bytes, at: int, time_ms: int
) -> Letter:
    told = {name: raw.decode("utf-8", "replace") for name, raw in headers}

    def number(name: str, other: int) -> int:
        text = told.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else other

    # A letter that somebody else put there is shown as it is.
    return Letter(
        reason=told.get("reason", "unknown: not a letter of this OneSearch"),
        topic=told.get("topic", ""),
        partition=number("partition", -1),
        offset=number("offset", -at - 1),
        topic_id=told.get("topic_id", ""),
        key=key,
        value=value,
        length=number("length", len(value)),
        at=at,
        time=time_ms,
    )
