"""How long one more search would wait."""

from __future__ import annotations

import pytest
from onesearch.serving import pace
from onesearch.serving.pace import Pace


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)

    def passed(self, seconds: float) -> float:
        self.now += seconds
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_nobody_waits_for_what_nobody_has_seen() -> None:
    assert Pace().wait_s(64) == 0


def test_pauses_between_searches_are_no_work(clock: Clock) -> None:
    seen = Pace()
    for _ in range(50):
        began = clock.passed(3.0)
        clock.passed(0.010)
        seen.ended(began, answered=True)
    assert seen.wait_s(1) == pytest.approx(0.010)


def test_searches_that_end_together_count_as_many(clock: Clock) -> None:
    seen = Pace()
    began = clock.now
    for _ in range(100):  # eight every 80 ms
        clock.passed(0.080)
        for _ in range(8):
            seen.ended(began, answered=True)
    assert seen.wait_s(32) == pytest.approx(0.32, rel=0.3)


def test_one_that_was_given_up_never_makes_the_wait_shorter(clock: Clock) -> None:
    seen = Pace()
    began = clock.now
    clock.passed(0.5)
    seen.ended(began, answered=True)
    for _ in range(20):  # who has 10 ms says nothing of those who have a second
        began = clock.now
        clock.passed(0.010)
        seen.ended(began, answered=False)
    assert seen.wait_s(1) == pytest.approx(0.5)
    began = clock.now
    clock.passed(5.0)
    seen.ended(began, answered=False)
    assert seen.wait_s(1) > 0.6
