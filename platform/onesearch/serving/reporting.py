"""What the gateway tells Kafka: what it showed, and what it is told that shoppers did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from onesearch.config import KafkaConfig
from onesearch.data.schemas import TEXT_LIMIT
from onesearch.errors import DataError, ServingError, UsageError
from onesearch.events.messages import (
    ACTION_NAMES,
    ANONYMOUS,
    LAST_TIME_US,
    SCENE_NAMES,
    SCHEMA,
    Interaction,
    new_event_id,
    now_us,
    write_interaction,
)
from onesearch.events.proto import events_pb2 as events
from onesearch.events.proto import reporting_pb2 as pb
from onesearch.events.proto import reporting_pb2_grpc as pb_grpc
from onesearch.events.publisher import Publisher
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Record
from onesearch.kafka.opening import connect
from onesearch.serving.proto.onesearch_pb2 import SearchResponse
from onesearch.serving.requests import SearchRequest

SERVICE = pb.DESCRIPTOR.services_by_name["Events"].full_name
MOST_REPORTED = 1_000
"""Interactions of one report."""
_FATES = {"acknowledged": pb.ACKNOWLEDGED, "spooled": pb.SPOOLED}
_TEXTS = ("event_id", "user_id", "session_id", "request_id", "query", "item_id", "release")


class Reporter(pb_grpc.EventsServicer):
    """The service ``onesearch.events.v1.Events``, and the impressions of every answer."""

    def __init__(self, kafka: KafkaConfig, spool: Path, spool_mb: int) -> None:
        """Start to publish; Kafka need not be there. Raises OneSearchError where no spool can be."""
        self.topic = kafka.interactions
        self.publisher = Publisher(connect(kafka), Spool(spool, spool_mb << 20))

    def shown(self, request: SearchRequest, answer: SearchResponse) -> None:
        """Log what an answer shows, one impression an item. Waits for nobody."""
        now, base = request.asked_at_us or now_us(), new_event_id()
        user_id = request.user_id or ANONYMOUS + answer.request_id
        impressions = [
            Interaction(
                f"{base}-{hit.rank}",
                now,
                user_id,
                hit.item.item_id,
                "impression",
                query=request.query,
                request_id=answer.request_id,
                position=hit.rank - 1,
                score=hit.score,
                propensity=hit.propensity,
                release=answer.release,
            )
            for hit in answer.hits
        ]
        key = user_id.encode("utf-8", "replace")
        try:
            self.publisher.offer([Record(self.topic, key, write_interaction(one)) for one in impressions])
        except DataError:  # half a surrogate pair in an id: it has no form, in an answer neither
            return

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:  # noqa: N802
        """What shoppers did."""
        try:
            reported = filled(request.interactions)
        except UsageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        records = [
            Record(self.topic, one.user_id.encode("utf-8", "replace"), one.SerializeToString())
            for one in reported
        ]
        try:
            fate = await asyncio.wrap_future(self.publisher.deliver(records))
        except ServingError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return pb.ReportResponse(fate=_FATES[fate], event_ids=[one.event_id for one in reported])

    async def Tally(self, request: pb.TallyRequest, context: Any) -> pb.TallyResponse:  # noqa: N802
        """What became of events."""
        return pb.TallyResponse(**asdict(self.publisher.tally))

    async def close(self) -> None:
        """Send or spool what is waiting, and stop."""
        await asyncio.get_running_loop().run_in_executor(None, self.publisher.close)


def filled(interactions: Sequence[events.Interaction]) -> list[events.Interaction]:
    """Interactions with what was left empty filled in. Raises UsageError naming what does not fit."""
    if not 1 <= len(interactions) <= MOST_REPORTED:
        raise UsageError(f"interactions: {len(interactions)}, where 1 to {MOST_REPORTED} are possible")
    now = now_us()
    found = []
    for at, given in enumerate(interactions):
        where = f"interactions[{at}]."
        one = events.Interaction()
        one.CopyFrom(given)
        for name in _TEXTS:
            if len(getattr(one, name)) > TEXT_LIMIT:
                raise UsageError(f"{where}{name}: longer than {TEXT_LIMIT:,} characters")
        if one.action not in ACTION_NAMES:
            raise UsageError(f"{where}action: {one.action} is none of {', '.join(ACTION_NAMES.values())}")
        if not one.item_id:
            raise UsageError(f"{where}item_id: empty")
        if not one.user_id and not one.request_id:
            raise UsageError(f"{where}user_id: empty, and so is request_id")
        if not 0 <= one.ts_us <= LAST_TIME_US:
            raise UsageError(f"{where}ts_us: {one.ts_us} is not a time after 1970")
        if one.position < 0:
            raise UsageError(f"{where}position: {one.position} is negative")
        if one.HasField("propensity") and not 0 < one.propensity <= 1:
            raise UsageError(f"{where}propensity: {one.propensity} is not a probability above 0")
        if one.scene not in SCENE_NAMES:
            one.scene = events.SEARCH
        one.schema = SCHEMA
        one.ts_us = one.ts_us or now
        one.event_id = one.event_id or new_event_id()
        one.user_id = one.user_id or ANONYMOUS + one.request_id
        found.append(one)
    return found
