"""KHQE keeps the promises of the tokenizer's contract."""

from __future__ import annotations

import pytest
from onesearch.contracts import conformance


@pytest.mark.parametrize("check", conformance.checks("tokenizer", "khqe"), ids=str)
def test_contract(check: conformance.Check) -> None:
    check()
