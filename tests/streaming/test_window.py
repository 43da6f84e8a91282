from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from onesearch_streaming.ingest.window import Window


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 12), st.integers(1, 60), st.integers(0, 60))
def test_it_says_the_same_however_messages_come(ids: list[int], size: int, portion: int, start: int) -> None:
    offsets, names = list(range(len(ids))), [str(one) for one in ids]
    # By its definition: no message of that id among the `size` before it.
    expected = [name not in names[max(0, at - size) : at] for at, name in enumerate(names)]
    window, found = Window(size), []
    for at in range(0, len(ids), portion):
        found += window.fresh(offsets[at : at + portion], names[at : at + portion])
    assert found == expected
    # A reader that starts late, `size` messages before what it wants, says the same from there on.
    begin = max(0, start - size)
    late = Window(size).fresh(offsets[begin:], names[begin:])
    assert late[start - begin :] == expected[start:]


def test_what_is_far_back_is_forgotten() -> None:
    window = Window(2)
    assert window.fresh([0, 1, 2, 9], ["a", "b", "a", "a"]) == [True, True, False, True]
    assert window.fresh([], []) == []
    for at in range(10, 500):
        assert window.fresh([at], [f"{at}"]) == [True]
    assert len(window._last) == len(window._taken) == 2
    assert window.fresh([500, 501], ["499", "498"]) == [False, True]
    window.clear()
    assert window.fresh([502], ["501"]) == [True]
