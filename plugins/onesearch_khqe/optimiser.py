"""Steps of the alignment: embedding the texts of a step, and Adam on what they touched."""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from onesearch_khqe.encoders import TextEncoder, bag
from onesearch_khqe.texts import TextTable


class Adam:
    """Adam on one tensor, or on some rows of it: moments of rows without a gradient stay as they are.

    A step then costs what its rows cost; all 2^17 rows of 256 would move 0.7 GB. (torch.optim's Adam has no
    such thing, and loads torch's compiler, which takes longer than a small store's alignment.)
    """

    def __init__(self, values: Tensor, rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.values = values
        self.rate = rate
        self.betas = betas
        self.first = torch.zeros_like(values)
        self.second = torch.zeros_like(values)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, rows: Tensor | EllipsisType = ..., scale: float = 1.0) -> None:
        """Update ``values[rows]`` (all of them by default) at ``scale`` times the rate; ``rows`` i64[U]
        differ, ``gradient`` f32[U, …] is theirs."""
        self.steps += 1
        one, two = self.betas
        first = torch.lerp(self.first[rows], gradient, 1 - one)
        second = self.second[rows] * two + gradient.square() * (1 - two)
        self.first[rows] = first
        self.second[rows] = second
        rate = scale * self.rate * (1 - two**self.steps) ** 0.5 / (1 - one**self.steps)
        self.values[rows] -= rate * first / (second.sqrt() + 1e-8)


class StepTexts:
    """Embeds the texts of one step. The n-gram rows that it uses are cut out of the table, so that gradients
    are as small as they are."""

    def __init__(self, encoder: TextEncoder, table: TextTable) -> None:
        self.encoder = encoder
        self.table = table
        self.rows: Tensor | None = None
        self.cut: tuple[Tensor, Tensor] | None = None

    def __call__(self, queries: np.ndarray, items: np.ndarray) -> tuple[Tensor, Tensor]:
        """Embeddings of the table's rows ``queries`` and ``items``; called once a step."""
        ngram = None
        if self.encoder.ngram is not None:
            ids, offsets = self.table.bags(np.concatenate([queries, items]))
            used, inverse = np.unique(ids, return_inverse=True)
            self.rows = torch.from_numpy(used)
            values, weights = (
                own.detach()[self.rows].requires_grad_()
                for own in (self.encoder.ngram.rows, self.encoder.ngram.weights)
            )
            self.cut = (values, weights)
            ngram = bag(torch.from_numpy(inverse), torch.from_numpy(offsets), values, weights)
        count = len(queries)
        return (
            self.encoder.join(None if ngram is None else ngram[:count], self._base(queries), "query"),
            self.encoder.join(None if ngram is None else ngram[count:], self._base(items), "item"),
        )

    def _base(self, rows: np.ndarray) -> Tensor | None:
        return None if self.table.base is None else torch.from_numpy(self.table.base[rows].astype(np.float32))


class Optimiser:
    """Adam for all parameters of an encoder; of the n-gram table, for the rows of the step.

    Attributes:
        scale: by what the rates are multiplied now.
    """

    def __init__(self, encoder: TextEncoder, table_rate: float, rate: float) -> None:
        self.encoder = encoder
        self.scale = 1.0
        self._parameters = dict(encoder.named_parameters())
        self._adams = {
            name: Adam(value.data, table_rate if name == "ngram.rows" else rate)
            for name, value in self._parameters.items()
        }

    def step(self, table: TextTable, compute: Callable[..., dict[str, Tensor]]) -> dict[str, float]:
        """One step on the sum of the losses that ``compute(embed)`` gives; returns them as numbers."""
        embed = StepTexts(self.encoder, table)
        losses = compute(embed)
        self.encoder.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for name, value in self._parameters.items():
            if value.grad is not None:
                self._adams[name].step(value.grad, scale=self.scale)
        if embed.cut is not None and embed.rows is not None:
            for name, cut in zip(("ngram.rows", "ngram.weights"), embed.cut, strict=True):
                assert cut.grad is not None
                self._adams[name].step(cut.grad, embed.rows, self.scale)
        return {name: float(value.detach()) for name, value in losses.items()}

    def state(self) -> dict[str, Tensor]:
        """Moments and numbers of steps."""
        out: dict[str, Tensor] = {}
        for name, adam in self._adams.items():
            out[f"{name}.first"], out[f"{name}.second"] = adam.first, adam.second
            out[f"{name}.steps"] = torch.tensor(adam.steps)
        return out

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for name, adam in self._adams.items():
            adam.first, adam.second = state[f"{name}.first"], state[f"{name}.second"]
            adam.steps = int(state[f"{name}.steps"])
