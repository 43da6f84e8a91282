"""Adam that touches only the table rows of the step."""

from __future__ import annotations

import torch
from torch import Tensor


class RowAdam:
    """Adam on rows of one large table: moments of rows without a gradient stay as they are ("lazy Adam").

    A step then costs what its rows cost; Adam over all 2^17 rows of 256 would move 0.7 GB.
    """

    def __init__(self, table: Tensor, rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.table = table
        self.rate = rate
        self.betas = betas
        self.first = torch.zeros_like(table)
        self.second = torch.zeros_like(table)
        self.steps = 0

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, scale: float = 1.0) -> None:
        """Update ``table[rows]`` at ``scale`` times the rate; ``rows`` i64[U] differ, ``gradient`` f32[U, …]
        is theirs."""
        self.steps += 1
        one, two = self.betas
        first = self.first[rows].lerp_(gradient, 1 - one)
        second = self.second[rows].mul_(two).addcmul_(gradient, gradient, value=1 - two)
        self.first[rows] = first
        self.second[rows] = second
        rate = scale * self.rate * (1 - two**self.steps) ** 0.5 / (1 - one**self.steps)
        self.table[rows] -= rate * first / second.sqrt().add_(1e-8)
