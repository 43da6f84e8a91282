"""What every store of shoppers' states promises, wherever it keeps them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from onesearch._closing import Closing
from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch.shoppers.events import Event, Tally, fold
from onesearch.shoppers.packing import unpack
from onesearch.shoppers.state import ShopperState


class StaleError(OneSearchError):
    """Somebody else has written what the writer takes for its own to write."""


class StateStore(Closing):
    """States by user id, and marks: named numbers that are written in one step with states.

    Threads may share a store. Other processes see what is written at once. All methods raise ServingError
    where the store does not answer, OneSearchError where it is full, ArtifactError where it is broken,
    and UsageError for writing to a store that is open for reading only.

    Attributes:
        url: where the store is, as people may see it.
        read_only: whether it is open for reading only.
    """

    url: str
    read_only: bool

    @abstractmethod
    def get(self, user_id: str) -> ShopperState:
        """What is known of a shopper; of an unknown one, a state with nothing but the id."""

    @abstractmethod
    def get_many(self, user_ids: Sequence[str]) -> list[ShopperState]:
        """The same for several shoppers, of one moment."""

    @abstractmethod
    def update(
        self,
        events: Mapping[str, Sequence[Event]],
        marks: Mapping[str, int] | None = None,
        now: float | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> Tally:
        """Fold events into the states of their shoppers, and write states and marks in one step, or nothing.

        Where there are marks and all of them stand in the store just as given, the events have been folded
        already (an answer was lost, a message came again): nothing changes, and all of them count as
        repeated.

        Args:
            events: by user id, in any order.
            marks: i64 numbers by name, e.g. the next offset of each partition of a topic. What stood under
                a name before is replaced.
            now: seconds since 1970, see :func:`~onesearch.shoppers.events.fold`; None: times are taken as
                they are.
            after: marks that must stand there before, None for one that must not: of two who take themselves
                for the reader of a partition, one finds out. None: they are not looked at.

        Returns what became of the events. Raises StaleError where other marks stand there: nothing changes.
        """

    @abstractmethod
    def put_many(self, states: Iterable[ShopperState]) -> int:
        """Write states as they are, in place of what was known; return how many.

        In portions: what is written when it is interrupted stays. UsageError for one without a user id.
        """

    @abstractmethod
    def marks(self) -> dict[str, int]:
        """All marks."""

    @abstractmethod
    def users(self) -> Iterator[str]:
        """The ids of all shoppers, in any order; one may come twice, new ones may be among them."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many shoppers there are."""

    def _check_writable(self) -> None:
        if self.read_only:
            raise UsageError(f"{self.url} is open for reading only")


def read_state(user_id: str, packed: bytes | None, url: str) -> ShopperState:
    """The state of a shopper from what a store holds; ArtifactError names both where it is broken."""
    if packed is None:
        return ShopperState(user_id)
    try:
        state = unpack(packed)
    except ArtifactError as error:
        raise ArtifactError(f"{url}: shopper {user_id!r}: {error}") from error
    # A packed state holds the beginning of a very long id only.
    return state if state.user_id == user_id else replace(state, user_id=user_id)


def fold_all(
    states: Iterable[ShopperState], events: Mapping[str, Sequence[Event]], now: float | None
) -> tuple[list[ShopperState], Tally]:
    """The states that events are folded into, where they change, and what became of the events."""
    changed, total = [], Tally()
    for state in states:
        folded, tally = fold(state, events[state.user_id], now)
        total += tally
        if tally.applied or tally.repeated:
            changed.append(folded)
    return changed, total


def check_marks(url: str, expected: Mapping[str, int | None], found: Mapping[str, int | None]) -> None:
    """StaleError where marks are not those that are expected."""
    for name, mark in expected.items():
        if found.get(name) != mark:
            raise StaleError(f"{url}: another writer moved {name!r} from {mark} to {found.get(name)}")


def check_named(states: Iterable[ShopperState]) -> None:
    """UsageError where one of the states names no shopper."""
    if not all(state.user_id for state in states):
        raise UsageError("a state that names no shopper cannot be stored")
