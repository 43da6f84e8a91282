"""Events as Python values, and the bytes that stand for them in Kafka.

The messages are those of ``proto/events.proto``; what may change in them is written there.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from onesearch.catalogue.changes import Action, Change
from onesearch.errors import DataError
from onesearch.events.proto import events_pb2 as pb

SCHEMA = 1
"""What this code writes, and the newest that it reads."""
ANONYMOUS = "anonymous:"
"""Before the id of a request whose shopper is not known: a user id of the log, which has no state."""
SCENES = {"search": pb.SEARCH, "recommend": pb.RECOMMEND}
ACTIONS = {"impression": pb.IMPRESSION, "click": pb.CLICK, "order": pb.ORDER}
SCENE_NAMES = {number: name for name, number in SCENES.items()}
ACTION_NAMES = {number: name for name, number in ACTIONS.items()}
LAST_TIME_US = 7_258_118_399_999_999
"""The last microsecond of the year 2199, the last that a store takes."""
UNREADABLE = "not a message of this topic: its bytes cannot be read"


class Interaction(NamedTuple):
    """Something a shopper was shown or did; the columns of a store's interactions.

    Attributes:
        event_id: the same event sent again has the same one.
        ts_us: microseconds since 1970, UTC.
        action: ``impression``, ``click`` or ``order``.
        scene: ``search`` or ``recommend``.
        position: 0 is the first.
        propensity: the probability with which the item was shown there, in (0, 1].
        release: which release chose the item.
    """

    event_id: str
    ts_us: int
    user_id: str
    item_id: str
    action: str
    scene: str = "search"
    query: str | None = None
    session_id: str | None = None
    request_id: str | None = None
    position: int | None = None
    score: float | None = None
    propensity: float | None = None
    release: str | None = None


class CatalogueEvent(NamedTuple):
    """A change of the catalogue on its way; see :class:`~onesearch.catalogue.changes.Change`."""

    event_id: str
    ts_us: int
    change: Change


def new_event_id() -> str:
    """32 hex digits that no other event has."""
    return uuid.uuid4().hex


def now_us() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1_000


def write_interaction(event: Interaction) -> bytes:
    """The message of an interaction. Raises DataError where it has no form."""
    try:
        return pb.Interaction(
            schema=SCHEMA,
            event_id=event.event_id,
            ts_us=event.ts_us,
            user_id=event.user_id,
            session_id=event.session_id or "",
            request_id=event.request_id or "",
            scene=SCENES[event.scene],
            query=event.query or "",
            item_id=event.item_id,
            action=ACTIONS[event.action],
            position=event.position,
            score=event.score,
            propensity=event.propensity,
            release=event.release or "",
        ).SerializeToString()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"interaction {event.event_id!r} cannot be written: {error!r}") from error


def read_interaction(raw: bytes) -> Interaction:
    """An interaction as it came. Raises DataError that says why it cannot be read; values are not checked
    any further, see :mod:`onesearch.events.columns`."""
    message = _parsed(pb.Interaction, raw)
    action, scene = ACTION_NAMES.get(message.action), SCENE_NAMES.get(message.scene)
    if action is None or scene is None:
        name, number = ("action", message.action) if action is None else ("scene", message.scene)
        raise DataError(f"{name} {number} is unknown: a newer sender, or none at all")
    return Interaction(
        message.event_id,
        message.ts_us,
        message.user_id,
        message.item_id,
        action,
        scene,
        message.query or None,
        message.session_id or None,
        message.request_id or None,
        message.position if message.HasField("position") else None,
        message.score if message.HasField("score") else None,
        message.propensity if message.HasField("propensity") else None,
        message.release or None,
    )


def write_change(event: CatalogueEvent) -> bytes:
    """The message of a change of the catalogue. Raises DataError where it has no form."""
    change = event.change
    message = pb.CatalogueChange(schema=SCHEMA, event_id=event.event_id, ts_us=event.ts_us)
    try:
        if change.action == "withdraw":
            message.withdraw = change.item_id
        else:
            getattr(message, change.action).CopyFrom(_item_to(change))
        return message.SerializeToString()
    except (TypeError, ValueError) as error:
        raise DataError(f"the change of item {change.item_id!r} cannot be written: {error!r}") from error


def read_change(raw: bytes) -> CatalogueEvent:
    """A change as it came. Raises DataError that says why it cannot be read."""
    message = _parsed(pb.CatalogueChange, raw)
    kind = message.WhichOneof("change")
    if kind is None:
        raise DataError("neither put, nor patched, nor withdrawn: a newer sender, or none at all")
    if kind == "withdraw":
        return CatalogueEvent(message.event_id, message.ts_us, Change(message.withdraw, "withdraw"))
    return CatalogueEvent(message.event_id, message.ts_us, _change_from(kind, getattr(message, kind)))


def key_of(event: Interaction | CatalogueEvent) -> bytes:
    """The Kafka key: what must stay in order goes to one partition."""
    name = event.user_id if isinstance(event, Interaction) else event.change.item_id
    return name.encode("utf-8", "replace")


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        message = kind.FromString(raw)
    except DecodeError:
        raise DataError(UNREADABLE) from None
    if message.schema != SCHEMA:
        what = "says no schema version" if message.schema == 0 else f"has schema version {message.schema}"
        raise DataError(f"{what}; this OneSearch reads version {SCHEMA}")
    if not message.event_id:
        raise DataError("event_id is empty")
    if not 0 <= message.ts_us <= LAST_TIME_US:
        raise DataError(f"ts_us {message.ts_us} is not a time after 1970")
    return message


_TOLD = ("title", "brand", "price", "in_stock", "popularity", "detail_text", "ocr_text", "image_uri")


def _item_to(change: Change) -> pb.Item:
    item = pb.Item(item_id=change.item_id, **{name: getattr(change, name) for name in _TOLD})
    if change.category is not None:
        item.category.names.extend(change.category)
        item.category.SetInParent()
    if change.attributes is not None:
        item.attributes.rows.extend(pb.Attribute(type=kind, value=own) for kind, own in change.attributes)
        item.attributes.SetInParent()
    return item


def _change_from(action: Action, item: pb.Item) -> Change:
    told = {name: getattr(item, name) for name in _TOLD if item.HasField(name)}
    if item.HasField("category"):
        told["category"] = tuple(item.category.names)
    if item.HasField("attributes"):
        told["attributes"] = tuple((one.type, one.value) for one in item.attributes.rows)
    return Change(item.item_id, action, **told)
