from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.contracts import Keyword, ShopperState
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving import codecs
from onesearch.shoppers.state import NO_ITEM, Recent, Ring

texts = st.lists(st.text(max_size=8), max_size=3).map(tuple)
prices = st.none() | st.floats(0, 1e6)


@given(st.builds(Filters, texts, texts, prices, prices, st.booleans()))
def test_filters_come_back(filters: Filters) -> None:
    assert codecs.read_filters(codecs.write_filters(filters)) == filters


@given(st.text(max_size=8), st.lists(st.integers(1, 2**64 - 1), max_size=5), texts)
def test_states_come_back(user: str, clicks: list[int], queries: tuple[str, ...]) -> None:
    count = len(clicks)
    ring = Ring(np.array(clicks, np.uint64), np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8))
    recent = tuple(Recent(query, NO_ITEM, 7, 1) for query in queries)
    state = ShopperState(user, ring, ring, recent, (3, 2, 1))
    assert codecs.read_state(codecs.write_state(state)) == state


def test_what_is_empty_takes_no_bytes() -> None:
    assert codecs.write_filters(Filters()) == codecs.write_state(ShopperState()) == b""
    assert codecs.read_filters(b"") == Filters() and codecs.read_state(b"") == ShopperState()


def test_a_price_of_zero_is_a_bound() -> None:
    assert codecs.read_filters(codecs.write_filters(Filters(max_price=0.0))).max_price == 0.0


def test_notes_come_back() -> None:
    keywords = [Keyword("oak", "Material"), Keyword("台灯", "Entity")]
    assert codecs.read_notes(codecs.write_notes(keywords, ["a", "b"])) == (tuple(keywords), ("a", "b"))
    assert codecs.read_notes(b"") == ((), ())


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"colour":"red"}', b"\xff"])
def test_what_is_not_ours_is_refused(raw: bytes) -> None:
    for read in (codecs.read_filters, codecs.read_state):
        with pytest.raises(UsageError):
            read(raw)
