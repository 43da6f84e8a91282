"""What OneSearch asks of a Kafka client, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onesearch._closing import Closing
from onesearch.config import KafkaConfig
from onesearch.errors import ServingError

Headers = Sequence[tuple[str, bytes]]


class KafkaError(ServingError):
    """The cluster did not do what was asked: it is down, refuses, or does not know the topic."""


class TruncatedError(KafkaError):
    """What is to be read next is not in the topic: it is older than its oldest message, or newer than its
    newest."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int


class Record(NamedTuple):
    """A message to be sent; what has the same key stays in order."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True)
class Fetched:
    """Messages of one partition, in order; lists of one length.

    Attributes:
        times: milliseconds since 1970, as the sender or the broker stamped them.
    """

    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes]
    headers: list[Headers]
    times: list[int]

    def __len__(self) -> int:
        return len(self.offsets)


class Bounds(NamedTuple):
    """Which offsets a partition has: from ``first`` up to before ``end``."""

    first: int
    end: int


@dataclass(frozen=True)
class NewTopic:
    """A topic to be made; ``settings`` as Kafka names them, e.g. ``retention.ms``."""

    name: str
    partitions: int = 1
    replicas: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


class Failure(NamedTuple):
    """A message that was not acknowledged.

    Attributes:
        reason: for people.
        lasting: it never will be, however often it is sent: it is too large.
    """

    reason: str
    lasting: bool = False


class Producer(Closing):
    """Sends messages; acknowledged by all replicas in sync, in order, none twice while it lives."""

    @abstractmethod
    def deliver(self, records: Sequence[Record], timeout_s: float) -> list[Failure | None]:
        """Send messages and wait for what becomes of each.

        Returns, for each, None where it was acknowledged, else why not. One that has not been acknowledged
        in time may be there all the same.
        """


Told = Callable[[list[Partition]], None]


class Consumer(Closing):
    """Reads messages. Nothing is committed but by :meth:`commit`. One thread at a time."""

    @abstractmethod
    def subscribe(self, topics: Sequence[str], assigned: Told, revoked: Told) -> None:
        """Share topics with the other members of the group.

        Within :meth:`poll`, on the caller's thread, ``assigned`` is told of partitions that are ours from now
        on: it must :meth:`seek` each. ``revoked`` is told of those that are ours no more; somebody else may
        be reading them already.
        """

    @abstractmethod
    def assign(self, partitions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, whatever others do."""

    @abstractmethod
    def seek(self, partition: Partition, offset: int) -> None:
        """Go on from an offset; of a partition that is ours no more, nothing happens."""

    @abstractmethod
    def poll(self, timeout_s: float, limit: int) -> dict[Partition, Fetched]:
        """At most ``limit`` messages; waits up to ``timeout_s`` for the first.

        Raises TruncatedError where an offset is not in the topic, KafkaError where the cluster refuses.
        While it is down or the topic away, there is nothing.
        """

    @abstractmethod
    def pause(self, wanted: bool) -> None:
        """Stop or go on fetching; :meth:`poll` keeps the membership alive meanwhile."""

    @abstractmethod
    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group how far we are (the next offset to read). Raises KafkaError."""

    @abstractmethod
    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """How far the group is; partitions of which nothing is known are left out."""

    @abstractmethod
    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Which offsets there are. Raises KafkaError."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group, let go of the connections; a second time does nothing."""


class Admin(Closing):
    """Looks after topics."""

    @abstractmethod
    def topics(self, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Id (32 hex digits, another one when a topic is made anew) and number of partitions of those topics
        that there are. Raises KafkaError."""

    @abstractmethod
    def create(self, topics: Sequence[NewTopic]) -> list[str]:
        """Make topics; return the names of those that were not there yet. Raises KafkaError."""

    @abstractmethod
    def delete(self, names: Sequence[str]) -> None:
        """Delete topics. Raises KafkaError."""


class Client(ABC):
    """Makes producers, consumers and admins for one cluster."""

    def __init__(self, settings: KafkaConfig) -> None:
        self.settings = settings

    @abstractmethod
    def producer(self) -> Producer:
        """A new producer. Does not wait for the cluster."""

    @abstractmethod
    def consumer(self, group: str | None = None) -> Consumer:
        """A new consumer; ``group`` is needed to subscribe and commit. Raises KafkaError where no broker
        answers."""

    @abstractmethod
    def admin(self) -> Admin:
        """A new admin. Raises KafkaError where no broker answers."""
