"""Events as Python values, and the bytes that stand for them in Kafka.

The messages are those of ``proto/events.proto``; what may change in them is written there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from onesearch.errors import DataError
from onesearch.events.proto import events_pb2 as pb

SCHEMA = 1
"""What this code writes, and the newest that it reads."""
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


class CatalogueChange(NamedTuple):
    """An item is new, has changed, or is gone.

    Attributes:
        item_id: which item.
        item: the whole item, a row of a store's items; None: it is withdrawn.
    """

    event_id: str
    ts_us: int
    item_id: str
    item: Mapping[str, Any] | None


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


def write_change(change: CatalogueChange) -> bytes:
    """The message of a change of the catalogue. Raises DataError where it has no form."""
    message = pb.CatalogueChange(schema=SCHEMA, event_id=change.event_id, ts_us=change.ts_us)
    try:
        if change.item is None:
            message.withdraw = change.item_id
        else:
            message.upsert.CopyFrom(_item_to(change.item))
        return message.SerializeToString()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the change of item {change.item_id!r} cannot be written: {error!r}") from error


def read_change(raw: bytes) -> CatalogueChange:
    """A change as it came. Raises DataError that says why it cannot be read."""
    message = _parsed(pb.CatalogueChange, raw)
    kind = message.WhichOneof("change")
    if kind is None:
        raise DataError("neither an item nor a withdrawal: a newer sender, or none at all")
    item = None if kind == "withdraw" else _item_from(message.upsert)
    item_id = message.withdraw if item is None else str(item["item_id"])
    if not item_id:
        raise DataError("item_id is empty")
    return CatalogueChange(message.event_id, message.ts_us, item_id, item)


def key_of(event: Interaction | CatalogueChange) -> bytes:
    """The Kafka key: what must stay in order goes to one partition."""
    name = event.user_id if isinstance(event, Interaction) else event.item_id
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


def _item_to(item: Mapping[str, Any]) -> pb.Item:
    attributes: Sequence[Mapping[str, str]] = item.get("attributes") or ()
    return pb.Item(
        item_id=item["item_id"],
        title=item["title"],
        category=item.get("category") or (),
        attributes=[pb.Attribute(type=one["type"], value=one["value"]) for one in attributes],
        price=item.get("price"),
        detail_text=item.get("detail_text") or "",
        ocr_text=item.get("ocr_text") or "",
        image_uri=item.get("image_uri") or "",
        in_stock=item.get("in_stock"),
    )


def _item_from(item: pb.Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "category": list(item.category),
        "attributes": [{"type": one.type, "value": one.value} for one in item.attributes],
        "price": item.price if item.HasField("price") else None,
        "detail_text": item.detail_text or None,
        "ocr_text": item.ocr_text or None,
        "image_uri": item.image_uri or None,
        "in_stock": item.in_stock if item.HasField("in_stock") else True,
    }
