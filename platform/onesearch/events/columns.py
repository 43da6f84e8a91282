"""Many messages at once as the columns of a table, each row checked; what does not fit is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
from google.protobuf.message import DecodeError

from onesearch.data.schemas import RULES, schema
from onesearch.errors import DataError
from onesearch.events.messages import (
    ACTION_NAMES,
    LAST_TIME_US,
    SCENE_NAMES,
    SCHEMA,
    UNREADABLE,
    CatalogueEvent,
    read_change,
)
from onesearch.events.proto import events_pb2 as pb
from onesearch.shoppers.events import FUTURE_LIMIT_S


class Refused(NamedTuple):
    """A message that does not fit.

    Attributes:
        row: which of the messages given.
        reason: for people.
    """

    row: int
    reason: str


class Read(NamedTuple):
    """What some messages say.

    Attributes:
        rows: i64[n] as a list, which of the messages each row of the table is.
        table: one row a message that fits.
        refused: all others.
    """

    rows: list[int]
    table: pl.DataFrame
    refused: list[Refused]


def read_interactions(raw: Sequence[bytes], now: float) -> Read:
    """Messages as rows with the columns of a store's interactions.

    Args:
        raw: the messages.
        now: seconds since 1970; what lies more than :data:`FUTURE_LIMIT_S` ahead is refused.
    """
    rows, messages, refused = _parsed(raw)
    optional = {
        name: [getattr(message, name) if message.HasField(name) else None for message in messages]
        for name in ("position", "score", "propensity")
    }
    table = pl.DataFrame(
        [
            pl.Series("schema", [message.schema for message in messages], pl.UInt32()),
            pl.Series("event_id", [message.event_id for message in messages], pl.String()),
            pl.Series("ts", [message.ts_us for message in messages], pl.Int64()),
            pl.Series("user_id", [message.user_id for message in messages], pl.String()),
            pl.Series("session_id", [message.session_id for message in messages], pl.String()),
            pl.Series("request_id", [message.request_id for message in messages], pl.String()),
            pl.Series("scene", [message.scene for message in messages], pl.Int32()),
            pl.Series("query", [message.query for message in messages], pl.String()),
            pl.Series("item_id", [message.item_id for message in messages], pl.String()),
            pl.Series("action", [message.action for message in messages], pl.Int32()),
            pl.Series("position", optional["position"], pl.Int32()),
            pl.Series("score", optional["score"], pl.Float32()),
            pl.Series("propensity", optional["propensity"], pl.Float32()),
            pl.Series("release", [message.release for message in messages], pl.String()),
        ]
    )
    table = table.with_columns(
        *(pl.col(name).replace("", None) for name in ("session_id", "request_id", "query", "release")),
        pl.col("scene").replace_strict(SCENE_NAMES, default=None, return_dtype=pl.String()),
        pl.col("action").replace_strict(ACTION_NAMES, default=None, return_dtype=pl.String()),
        _time("ts"),
    )
    return _checked(rows, table, refused, now)


def read_changes(raw: Sequence[bytes], now: float) -> tuple[list[int], list[CatalogueEvent], list[Refused]]:
    """Messages as changes of the catalogue: which ones they are, the changes, and all others."""
    rows, changes, refused = [], [], []
    latest = int((now + FUTURE_LIMIT_S) * 1e6)
    for row, message in enumerate(raw):
        try:
            event = read_change(message)
            if event.ts_us > latest:
                raise DataError(_AHEAD)
        except DataError as error:
            refused.append(Refused(row, str(error)))
        else:
            rows.append(row)
            changes.append(event)
    return rows, changes, refused


def _parsed(raw: Sequence[bytes]) -> tuple[list[int], Sequence[pb.Interaction], list[Refused]]:
    """The messages that are any, which ones they are, and the others."""
    # As one message of many: half the time of parsing them one by one.
    framed: list[bytes] = []
    for message in raw:
        framed += (_HEADS[len(message)], message)
    try:
        return list(range(len(raw))), list(pb.Interactions.FromString(b"".join(framed)).rows), []
    except DecodeError:
        pass
    rows, messages, refused = [], [], []
    for row, message in enumerate(raw):
        try:
            messages.append(pb.Interaction.FromString(message))
        except DecodeError:
            refused.append(Refused(row, UNREADABLE))
        else:
            rows.append(row)
    return rows, messages, refused


class _Heads(dict[int, bytes]):
    """By length, what stands before an entry of ``Interactions.rows``: its tag and its length."""

    def __missing__(self, length: int) -> bytes:
        head, left = bytearray(b"\x0a"), length
        while left > 127:
            head.append(left & 127 | 128)
            left >>= 7
        head.append(left)
        self[length] = bytes(head)
        return self[length]


_HEADS = _Heads()
_AHEAD = "ts_us: lies more than a day ahead of the clock"


def _time(name: str) -> pl.Expr:
    """Microseconds as a time; what is none that a store can hold is left empty."""
    column = pl.col(name)
    return pl.when(column.is_between(0, LAST_TIME_US)).then(column).cast(schema("interactions")["ts"])


def _checked(rows: list[int], table: pl.DataFrame, refused: list[Refused], now: float) -> Read:
    """Without the rows that break a rule of the store's schema, or lie ahead of the clock."""
    limit = pl.lit(int((now + FUTURE_LIMIT_S) * 1e6)).cast(table.schema["ts"])
    checks = [
        (pl.col("schema") != SCHEMA, f"schema: is not version {SCHEMA}, the one that this OneSearch reads"),
        (pl.col("action").is_null(), "action: is unknown, or missing"),
        (pl.col("scene").is_null(), "scene: is unknown, or missing"),
        (pl.col("ts").is_null(), "ts_us: is not a time after 1970"),
        (pl.col("ts") > limit, _AHEAD),
        *((pl.col(name) == "", f"{name}: is empty") for name in ("event_id", "user_id", "item_id")),
        *((rule.broken, f"{rule.column}: {rule.reason}") for rule in RULES["interactions"]),
    ]
    columns = list(schema("interactions"))
    broken = table.select(pl.any_horizontal(check.fill_null(False) for check, _ in checks)).to_series()
    if not broken.any():
        return Read(rows, table.select(columns), refused)
    reason = table.filter(broken).select(
        pl.coalesce(pl.when(check.fill_null(False)).then(pl.lit(why)) for check, why in checks)
    )
    told = zip(broken.arg_true().to_list(), reason.to_series().to_list(), strict=True)
    refused = sorted([*refused, *(Refused(rows[at], why) for at, why in told)])
    kept = (~broken).arg_true().to_list()
    return Read([rows[at] for at in kept], table[kept].select(columns), refused)
