"""A partition as it is being read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onesearch.errors import OneSearchError
from onesearch.kafka.contract import Bounds, Partition

from onesearch_streaming.ingest.sinks import Sink
from onesearch_streaming.ingest.window import Window


class TopicLostError(OneSearchError):
    """A partition does not hold what was read from it."""


@dataclass
class Lane:
    """One partition.

    Attributes:
        topic_id: changes when the topic is made anew: its offsets then mean something else.
        wanted: by sink, the next offset that it wants.
        start: where reading begins, some messages before anything is wanted: they fill the window.
        missed: messages that Kafka removed before all sinks had them.
        next: the next offset to be read.
    """

    partition: Partition
    topic_id: str
    window: Window
    wanted: dict[str, int] = field(default_factory=dict)
    start: int = 0
    missed: int = 0
    next: int = 0

    @property
    def source(self) -> str:
        """How marks and logs name it."""
        return source_name(self.partition, self.topic_id)


def source_name(partition: Partition, topic_id: str) -> str:
    """A partition of one making of a topic."""
    return f"{partition.topic}/{topic_id}/{partition.number}"


def open_lane(
    partition: Partition, topic_id: str, bounds: Bounds, sinks: Sequence[Sink], window: int
) -> Lane:
    """A partition, to be read from where its sinks are.

    Raises TopicLostError where a sink has read further than the partition goes: it has lost its end.
    """
    lane = Lane(partition, topic_id, Window(window))
    known: Mapping[str, int | None] = {sink.name: sink.position(lane.source) for sink in sinks}
    for name, position in known.items():
        if position is not None and position > bounds.end:
            raise TopicLostError(
                f"{partition.topic}[{partition.number}] ends at {bounds.end:,}, and {name} has read it up to "
                f"{position:,}: the topic has lost messages that {name} has. Make the topic anew; what is "
                "sent from then on is read from its beginning"
            )
        lane.wanted[name] = max(bounds.first, position or 0)
        if position is not None:
            lane.missed = max(lane.missed, bounds.first - position)
    lane.start = max(bounds.first, min(lane.wanted.values()) - window)
    lane.next = lane.start
    return lane
