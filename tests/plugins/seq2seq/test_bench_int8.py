"""What int8 costs: the paired figures, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onesearch_seq2seq.bench_int8 import compared, relative_change


def test_a_constant_change_has_no_interval():
    told = compared(np.full(50, 0.5), np.full(50, 0.4))
    assert (told["fp32"], told["int8"]) == (0.5, 0.4)
    assert told["change"] == told["low"] == told["high"] == -0.1
    assert told["relative"] == told["relative_low"] == told["relative_high"] == -0.2


def test_pairs_cancel_what_searches_have_in_common():
    random = np.random.default_rng(0)
    whole = random.random(2_000)
    small = whole - (np.arange(2_000) % 10 == 0) * 0.01
    told = compared(whole, small)
    assert told["change"] == pytest.approx(-0.001, abs=1e-5)
    assert told["low"] < told["change"] < told["high"] < 0, (
        "though searches differ by a hundred times as much"
    )
    assert told["high"] - told["low"] < 5e-4
    assert told["relative"] == pytest.approx(-0.001 / whole.mean(), abs=1e-5)


def test_nothing_found_is_no_change():
    none = relative_change(np.zeros(5), np.zeros(5))
    assert (none.value, none.low, none.high) == (0, 0, 0)
