"""Of two who take themselves for the reader of a partition, one finds out."""

from __future__ import annotations

import pytest
from onesearch.shoppers.events import Event
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.store import StaleError


def test_marks_that_others_have_moved_stop_the_write(url: str) -> None:
    shown = {"u": [Event("u", 5, "impression", "i", "q")]}
    with open_states(url) as states:
        states.update(shown, {"p": 1}, after={"p": None})
        assert states.get("u").counts == (1, 0, 0)
        for wrong in (None, 0, 2):
            with pytest.raises(StaleError, match="'p'"):
                states.update(shown, {"p": 3}, after={"p": wrong})
        assert states.get("u").counts == (1, 0, 0) and states.marks() == {"p": 1}
        states.update(shown, {"p": 3, "o": 1}, after={"p": 1, "o": None})
        assert states.get("u").counts == (2, 0, 0) and states.marks() == {"p": 3, "o": 1}
        # The same once more: an answer that was lost.
        assert states.update(shown, {"p": 3, "o": 1}, after={"p": 1, "o": None}).repeated == 1
