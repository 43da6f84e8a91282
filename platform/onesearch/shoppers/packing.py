"""A shopper's state as bytes: one form for the state stores and for the tensors of the Triton models.

Little-endian::

    u8 version, u8 length of the user id, u16 clicks, u16 orders, u8 recents, 3 × u32 counts, user id (UTF-8)
    clicks: u64 item keys, u32 times, u8 scenes; orders: the same
    each recent: u64 item key, u32 time, u8 scene, u8 length of the query, query (UTF-8)

At most 30,578 bytes: 13 an event, up to 269 a recent pair.
"""

from __future__ import annotations

import struct

import numpy as np

from onesearch.errors import ArtifactError
from onesearch.shoppers.state import RECENT_SIZE, RING_SIZE, Recent, Ring, ShopperState

VERSION = 1
LONGEST = 255
"""Bytes of UTF-8 kept of a user id or a query."""
_HEAD = struct.Struct("<BBHHB3I")
_RECENT = struct.Struct("<QIBB")
_ITEM, _TIME, _SCENE = np.dtype("<u8"), np.dtype("<u4"), np.dtype("u1")
_EVENT = 13


def pack(state: ShopperState) -> bytes:
    """A state as bytes; one that nothing is known of is empty."""
    if not (state.user_id or state.known or any(state.counts)):
        return b""
    user = _cut(state.user_id)
    clicks, orders, recent = state.clicks, state.orders, state.recent[-RECENT_SIZE:]
    sizes = min(len(clicks), RING_SIZE), min(len(orders), RING_SIZE)
    counts = (min(count, 2**32 - 1) for count in state.counts)
    parts = [_HEAD.pack(VERSION, len(user), *sizes, len(recent), *counts), user]
    for ring in (clicks, orders):
        parts += [
            ring.items[-RING_SIZE:].astype(_ITEM, copy=False).tobytes(),
            ring.times[-RING_SIZE:].astype(_TIME, copy=False).tobytes(),
            ring.scenes[-RING_SIZE:].astype(_SCENE, copy=False).tobytes(),
        ]
    for pair in recent:
        query = _cut(pair.query)
        parts += [_RECENT.pack(pair.item, pair.time, pair.scene, len(query)), query]
    return b"".join(parts)


def unpack(raw: bytes) -> ShopperState:
    """What :func:`pack` wrote. Raises ArtifactError where it is something else."""
    if not raw:
        return ShopperState()
    try:
        version, user_length, n_clicks, n_orders, n_recent, *counts = _HEAD.unpack_from(raw)
        if version != VERSION:
            raise ArtifactError(f"a shopper's state of version {version}; this version reads {VERSION}")
        at = _HEAD.size + user_length
        user_id = raw[_HEAD.size : at].decode()
        clicks, at = _ring(raw, at, n_clicks)
        orders, at = _ring(raw, at, n_orders)
        recent = []
        for _ in range(n_recent):
            item, time, scene, length = _RECENT.unpack_from(raw, at)
            at += _RECENT.size + length
            recent.append(Recent(raw[at - length : at].decode(), item, time, scene))
        if at != len(raw):
            raise ValueError(f"{len(raw)} bytes where {at} belong")
    except (struct.error, ValueError) as error:
        raise ArtifactError(f"not a shopper's state ({error})") from error
    return ShopperState(user_id, clicks, orders, tuple(recent), (counts[0], counts[1], counts[2]))


def _ring(raw: bytes, at: int, count: int) -> tuple[Ring, int]:
    items = np.frombuffer(raw, _ITEM, count, at)
    times = np.frombuffer(raw, _TIME, count, at + 8 * count)
    scenes = np.frombuffer(raw, _SCENE, count, at + 12 * count)
    return Ring(items, times, scenes), at + _EVENT * count


def cut_text(text: str) -> str:
    """What is kept of a text: at most :data:`LONGEST` bytes of UTF-8, no character cut in two."""
    return _cut(text).decode()


def _cut(text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")
    return encoded if len(encoded) <= LONGEST else encoded[:LONGEST].decode("utf-8", "ignore").encode()
