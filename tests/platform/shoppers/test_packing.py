from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.errors import ArtifactError
from onesearch.shoppers.packing import LONGEST, cut_text, pack, unpack
from onesearch.shoppers.state import (
    NO_ITEM,
    RECENT_SIZE,
    RING_SIZE,
    Recent,
    Ring,
    ShopperState,
    item_key,
    item_keys,
)

U32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    count = draw(st.integers(0, 12))
    items = draw(st.lists(st.integers(1, 2**64 - 1), min_size=count, max_size=count))
    times = sorted(draw(st.lists(U32, min_size=count, max_size=count)))
    scenes = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    return Ring(np.array(items, np.uint64), np.array(times, np.uint32), np.array(scenes, np.uint8))


RECENT = st.builds(Recent, TEXT, st.integers(0, 2**64 - 1), U32, st.integers(0, 1))
STATES = st.builds(
    ShopperState,
    TEXT,
    rings(),
    rings(),
    st.lists(RECENT, max_size=RECENT_SIZE).map(tuple),
    st.tuples(U32, U32, U32),
)


@given(STATES)
def test_what_is_packed_comes_back(state: ShopperState) -> None:
    assert unpack(pack(state)) == state


@given(STATES, st.data())
def test_what_is_cut_off_is_told(state: ShopperState, data: st.DataObject) -> None:
    raw = pack(state)
    if raw:
        with pytest.raises(ArtifactError, match="not a shopper's state"):
            unpack(raw[: data.draw(st.integers(1, len(raw) - 1))])
        with pytest.raises(ArtifactError, match="not a shopper's state"):
            unpack(raw + b"x")


@given(st.binary(max_size=80))
def test_anything_else_is_told(raw: bytes) -> None:
    with suppress(ArtifactError):
        unpack(raw)


def test_nobody_takes_no_bytes() -> None:
    assert pack(ShopperState()) == b""
    assert unpack(b"") == ShopperState()
    assert pack(ShopperState("u")) != b""
    assert unpack(pack(ShopperState(counts=(1, 0, 0)))).counts == (1, 0, 0)


def test_another_version_is_named() -> None:
    with pytest.raises(ArtifactError, match="version 9; this version reads 1"):
        unpack(b"\x09" + pack(ShopperState("u"))[1:])


def test_what_is_too_much_is_left_out() -> None:
    count = RING_SIZE + 5
    ring = Ring(
        np.arange(1, count + 1, dtype=np.uint64), np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8)
    )
    recent = tuple(Recent(f"q{number}", NO_ITEM, number) for number in range(RECENT_SIZE + 3))
    state = unpack(pack(ShopperState("u" * 400, ring, ring, recent, (2**40, 1, 2))))
    assert state.clicks.items.tolist() == list(range(6, count + 1))
    assert state.recent == recent[3:]
    assert (state.user_id, state.counts) == ("u" * LONGEST, (2**32 - 1, 1, 2))


def test_the_form_is_this_one() -> None:
    """Stores and models of another day read it."""
    ring = Ring(np.uint64([7]), np.uint32([8]), np.uint8([1]))
    packed = pack(ShopperState("u", ring, Ring(), (Recent("q", 7, 8, 1),), (1, 2, 3)))
    assert packed == (
        struct.pack("<BBHHB3I", 1, 1, 1, 0, 1, 1, 2, 3) + b"u" + struct.pack("<QIB", 7, 8, 1)
        + struct.pack("<QIBB", 7, 8, 1, 1) + b"q"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a" * 255, "a" * 255), ("a" * 256, "a" * 255), ("a" + "台" * 90, "a" + "台" * 84), ("\ud800", "?")],
)
def test_no_character_is_cut_in_two(text: str, kept: str) -> None:
    assert cut_text(text) == kept


def test_keys_of_items() -> None:
    """They name items in every release, so that they may never change."""
    assert (item_key("a"), item_key("台灯")) == (0x2F42665B399EF840, 0x6B06625152B6F364)
    assert item_keys(["a", "台灯", "\ud800"]).dtype == np.uint64
    assert len(set(item_keys([f"{number}" for number in range(1_000)]).tolist())) == 1_000
