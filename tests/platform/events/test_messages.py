"""What is written is read, what does not fit is refused by name, old and new code read each other."""

from __future__ import annotations

import time
from typing import Any

import polars as pl
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.catalogue.changes import Change
from onesearch.data.schemas import schema
from onesearch.errors import DataError
from onesearch.events.columns import FUTURE_LIMIT_S, read_changes, read_interactions
from onesearch.events.messages import (
    ACTIONS,
    SCENES,
    CatalogueEvent,
    Interaction,
    key_of,
    read_change,
    read_interaction,
    write_change,
    write_interaction,
)
from onesearch.events.proto import events_pb2 as pb

NOW = 1_800_000_000.0
CLICK = Interaction("e1", int(NOW * 1e6), "u1", "i1", "click", query="red lamp", position=0, propensity=0.5)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
INTERACTIONS = st.builds(
    Interaction,
    event_id=TEXTS,
    ts_us=st.integers(0, int(NOW * 1e6)),
    user_id=TEXTS,
    item_id=TEXTS,
    action=st.sampled_from(sorted(ACTIONS)),
    scene=st.sampled_from(sorted(SCENES)),
    query=st.none() | TEXTS,
    session_id=st.none() | TEXTS,
    request_id=st.none() | TEXTS,
    position=st.none() | st.integers(0, 2**31 - 1),
    score=st.none() | FLOATS,
    propensity=st.none() | st.floats(2.0**-20, 1, width=32),
    release=st.none() | TEXTS,
)


def told(table: pl.DataFrame) -> list[dict[str, Any]]:
    return table.with_columns(pl.col("ts").dt.epoch("us")).to_dicts()


@settings(max_examples=80, deadline=None)
@given(st.lists(INTERACTIONS, max_size=8))
def test_interactions_come_back_one_by_one_and_as_columns(events: list[Interaction]) -> None:
    raw = [write_interaction(event) for event in events]
    assert [read_interaction(message) for message in raw] == events
    read = read_interactions(raw, NOW)
    assert read.refused == [] and read.rows == list(range(len(raw)))
    assert dict(read.table.schema) == schema("interactions")
    expected = [{**event._asdict(), "ts": event.ts_us} for event in events]
    assert told(read.table) == [{name: row[name] for name in read.table.columns} for row in expected]


PUT = Change(
    "i1", title="Red lamp", category=("home", "lamp"), attributes=(("Color", "red"),), price=9.5, brand="B",
    in_stock=False, popularity=2.0, detail_text="d", ocr_text="o", image_uri="u",
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        PUT,
        Change("i2", title="Bare"),
        Change("i2", title="Nothing in them", category=(), attributes=(), price=0.0),
        Change("i1", "patch", price=3.0),
        Change("i1", "patch", in_stock=False, popularity=1.5),
        Change("i1", "withdraw"),
    ],
)
def test_changes_come_back(change: Change) -> None:
    event = CatalogueEvent("c1", 5, change)
    assert read_change(write_change(event)) == event
    assert read_changes([write_change(event)], NOW) == ([0], [event], [])


def test_keys_keep_in_order_what_belongs_together() -> None:
    assert key_of(CLICK) == b"u1" and key_of(CatalogueEvent("c", 0, Change("i9", "withdraw"))) == b"i9"


def changed(**fields: Any) -> bytes:
    message = pb.Interaction.FromString(write_interaction(CLICK))
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff\xfe garbage", "cannot be read"),
        (b"", "version"),
        (changed(schema=2), "version"),
        (changed(schema=0), "version"),
        (changed(event_id=""), "event_id"),
        (changed(user_id=""), "user_id"),
        (changed(item_id=""), "item_id"),
        (changed(action=0), "action"),
        (changed(action=17), "action"),
        (changed(scene=0), "scene"),
        (changed(ts_us=-1), "ts_us"),
        (changed(ts_us=2**62), "ts_us"),
        (changed(ts_us=int((NOW + FUTURE_LIMIT_S + 60) * 1e6)), "ahead of the clock"),
        (changed(position=-1), "position"),
        (changed(score=float("nan")), "score"),
        (changed(propensity=0.0), "propensity"),
        (changed(propensity=1.5), "propensity"),
        (changed(query="x" * 10_001), "query"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_the_rest_is_read(raw: bytes, why: str) -> None:
    good = write_interaction(CLICK)
    read = read_interactions([good, raw, good], NOW)
    assert read.rows == [0, 2] and len(read.table) == 2
    assert [refused.row for refused in read.refused] == [1] and why in read.refused[0].reason


def test_several_refused_for_different_reasons_keep_their_rows() -> None:
    raw = [changed(position=-1), write_interaction(CLICK), b"\xff\xff\xff", changed(schema=9)]
    read = read_interactions(raw, NOW)
    assert read.rows == [1] and [refused.row for refused in read.refused] == [0, 2, 3]


def test_a_change_that_does_not_fit_is_refused_by_name() -> None:
    empty = pb.CatalogueChange(schema=1, event_id="e", ts_us=1)
    raw = [
        empty.SerializeToString(),
        pb.CatalogueChange(schema=1, event_id="e", put=pb.Item(item_id="i")).SerializeToString(),
        pb.CatalogueChange(schema=1, event_id="e", patch=pb.Item(item_id="i", price=-1)).SerializeToString(),
        pb.CatalogueChange(schema=2, event_id="e", withdraw="i").SerializeToString(),
        pb.CatalogueChange(schema=1, event_id="e", withdraw="").SerializeToString(),
        write_change(CatalogueEvent("c", int((NOW + FUTURE_LIMIT_S + 60) * 1e6), PUT)),
        write_change(CatalogueEvent("c", 1, PUT)),
    ]
    rows, changes, refused = read_changes(raw, NOW)
    assert rows == [6] and changes[0].change == PUT
    for one, why in zip(refused, ("newer", "title", "price", "version", "item_id", "ahead"), strict=True):
        assert why in one.reason


def test_what_has_no_form_is_not_written() -> None:
    for broken in (
        CLICK._replace(action="look"),
        CLICK._replace(position=2**40),
        CLICK._replace(query="half \ud800"),
        CLICK._replace(user_id=None),  # type: ignore[arg-type]
    ):
        if broken.user_id is None:
            assert read_interactions([write_interaction(broken)], NOW).refused
            continue
        with pytest.raises(DataError, match="e1"):
            write_interaction(broken)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_break_the_reader(raw: list[bytes]) -> None:
    read = read_interactions(raw, time.time())
    assert sorted([*read.rows, *(refused.row for refused in read.refused)]) == list(range(len(raw)))
    rows, changes, refused = read_changes(raw, time.time())
    assert len(rows) == len(changes) == len(raw) - len(refused)


def other_version(name: str, change: Any) -> Any:
    """The class that another version of the protocol would have generated."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name = f"{name}.proto"
    change(next(message for message in file.message_type if message.name == "Interaction"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onesearch.events.v1.Interaction"))


def test_old_and_new_code_read_each_other() -> None:
    def with_more(message: Any) -> None:
        message.field.add(name="device", number=15, type=9, label=1)  # an optional text
        message.field.add(name="dwell_ms", number=16, type=13, label=1)

    def with_less(message: Any) -> None:
        kept = [field for field in message.field if field.name not in ("session_id", "release")]
        del message.field[:]
        message.field.extend(kept)

    newer, older = other_version("newer", with_more), other_version("older", with_less)
    sent = newer.FromString(write_interaction(CLICK))
    sent.device, sent.dwell_ms = "phone", 900
    # Today's code passes over what a newer sender adds; a message that goes through keeps it.
    assert read_interaction(sent.SerializeToString()) == CLICK
    assert read_interactions([sent.SerializeToString()], NOW).refused == []
    through = pb.Interaction.FromString(sent.SerializeToString()).SerializeToString()
    assert newer.FromString(through).device == "phone"
    # An older sender does not know the newest fields: they are missing, not wrong.
    full = CLICK._replace(session_id="s", release="r")
    old = older.FromString(write_interaction(full))
    old.DiscardUnknownFields()
    assert read_interaction(old.SerializeToString()) == CLICK
    # And it reads what today's code writes.
    assert older.FromString(write_interaction(full)).query == "red lamp"
    # Numbers are what counts: none of those written down here may ever change.
    assert {field.name: field.number for field in pb.Interaction.DESCRIPTOR.fields} == {
        "schema": 1, "event_id": 2, "ts_us": 3, "user_id": 4, "session_id": 5, "request_id": 6, "scene": 7,
        "query": 8, "item_id": 9, "action": 10, "position": 11, "score": 12, "propensity": 13, "release": 14,
    }  # fmt: skip
