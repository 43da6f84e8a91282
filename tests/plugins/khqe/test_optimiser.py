from __future__ import annotations

import torch
from onesearch_khqe.optimiser import RowAdam


def test_equals_adam_when_every_row_has_a_gradient() -> None:
    torch.manual_seed(0)
    start = torch.randn(6, 3)
    mine, theirs = start.clone(), torch.nn.Parameter(start.clone())
    own = RowAdam(mine, 0.01)
    adam = torch.optim.Adam([theirs], lr=0.01)
    for _ in range(5):
        gradient = torch.randn(6, 3)
        order = torch.randperm(6)
        own.step(order, gradient[order])
        theirs.grad = gradient
        adam.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_other_rows_stay() -> None:
    table = torch.ones(5, 2)
    RowAdam(table, 0.1).step(torch.tensor([1, 3]), torch.ones(2, 2))
    assert torch.equal(table[[0, 2, 4]], torch.ones(3, 2)) and (table[[1, 3]] < 1).all()
