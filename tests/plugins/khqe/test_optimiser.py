from __future__ import annotations

import pytest
import torch
from onesearch_khqe.optimiser import Adam


def test_the_formula() -> None:
    """Two steps by hand: m = .9m + .1g, v = .999v + .001g², x −= rate·m̂/√v̂."""
    values = torch.tensor([1.0, 2.0])
    adam = Adam(values, 0.1)
    adam.step(torch.tensor([0.5, -2.0]))
    assert values.tolist() == pytest.approx([0.9, 2.1], abs=1e-6)
    adam.step(torch.tensor([0.5, 1.0]))
    # Second value: m̂ = (.9·−.2 + .1)/.19 = −.4210526, v̂ = (.999·.004 + .001)/.001999 = 2.4992496
    assert values.tolist() == pytest.approx([0.8, 2.1 + 0.1 * 0.4210526 / 2.4992496**0.5], abs=1e-6)


def test_rows_one_by_one_and_all_at_once_are_the_same() -> None:
    torch.manual_seed(0)
    whole, some = torch.randn(6, 3), torch.zeros(6, 3)
    some.copy_(whole)
    one, two = Adam(whole, 0.01), Adam(some, 0.01)
    for _ in range(5):
        gradient, order = torch.randn(6, 3), torch.randperm(6)
        one.step(gradient)
        two.step(gradient[order], order)
    assert torch.allclose(whole, some, atol=1e-6)


def test_other_rows_stay() -> None:
    table = torch.ones(5, 2)
    Adam(table, 0.1).step(torch.ones(2, 2), torch.tensor([1, 3]))
    assert torch.equal(table[[0, 2, 4]], torch.ones(3, 2)) and (table[[1, 3]] < 1).all()
