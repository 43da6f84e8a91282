"""The Q-Former: a few learned queries read a shopper's long sequences into prefix vectors.

B is the batch, F = 9 the vectors of a history, D their dimension, d the generator's width, P the
learned queries. A history is read as the keys ``m_f = LN(W h_f + type_f + level_f)`` and one more that always
is there, "nothing known", so that an empty history has an answer too. Then, layer by layer::

    x ← x + Attention(LN(x), m, m);   x ← x + FeedForward(LN(x))

and the prefix is ``place_p + scale ⊙ LN(x_p)``. The scale starts at zero: at first the prefix is the same for
every shopper, and what of it is worth anything has to be learnt. The place is not zero, since the generator's
first norm would blow the smallest change of a zero vector up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onesearch.errors import UsageError
from torch import Tensor, nn

from onesearch_museq.history import SEQUENCES
from onesearch_museq.user_id import DEPTH

# What hides a vector that says nothing; finite, though the last key is never hidden.
UNSEEN = -1e9
HIDDEN = 2
"""Width of the feed-forward part, in widths."""
PLACE = 0.1
SMALL = 0.02


class CrossAttention(nn.Module):
    """Multi-head attention from x to a memory."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.v, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, P, d], memory [B, M, d], bias [B, 1, 1, M] → [B, P, d] and weights [B, P, M], heads'
        mean."""
        query = self._split(self.q(x)) * (x.shape[-1] // self.heads) ** -0.5
        scores = query @ self._split(self.k(memory)).transpose(-1, -2) + bias
        weights = scores.float().softmax(dim=-1)
        mixed = weights.to(scores.dtype) @ self._split(self.v(memory))
        return self.out(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Cross-attention and feed-forward, each with a norm before it and a residual around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), CrossAttention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, HIDDEN * width), nn.Linear(HIDDEN * width, width)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, P, d] → the next x and the attention weights [B, P, M]."""
        read, weights = self.attention(self.attention_norm(x), memory, bias)
        x = x + read
        return x + self.down(F.relu(self.up(self.feed_norm(x)))), weights


class QFormer(nn.Module):
    """history f32[B, F, D], mask bool[B, F] → prefix f32[B, P, d]."""

    def __init__(
        self, dim: int, width: int, queries: int = 2, layers: int = 1, heads: int = 4, seed: int = 0
    ) -> None:
        """For D = ``dim`` and d = ``width``. Raises UsageError where the heads do not divide the width."""
        if width % heads:
            raise UsageError(f"museq: heads {heads} do not divide the generator's width {width}")
        super().__init__()
        self.dim, self.width = dim, width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.project = nn.Linear(dim, width)
            self.types = nn.Parameter(torch.randn(len(SEQUENCES), 1, width) * SMALL)
            self.levels = nn.Parameter(torch.randn(1, DEPTH, width) * SMALL)
            self.nothing = nn.Parameter(torch.randn(1, 1, width) * SMALL)
            self.memory_norm = nn.LayerNorm(width)
            self.queries = nn.Parameter(torch.randn(queries, width) * SMALL)
            self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
            self.output_norm = nn.LayerNorm(width, elementwise_affine=False)
            self.scale = nn.Parameter(torch.zeros(width))
            self.place = nn.Parameter(torch.randn(queries, width) * PLACE)

    @property
    def trained(self) -> bool:
        """Whether any training has moved the scale: before, the prefix says nothing of any shopper."""
        return bool(self.scale.detach().any())

    def forward(self, history: Tensor, history_mask: Tensor) -> Tensor:
        """See the class."""
        return self.attend(history, history_mask)[0]

    def attend(self, history: Tensor, history_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix [B, P, d], and what it looked at f32[B, P, F + 1].

        The weights are the mean over layers and heads; they sum to 1, and the last is "nothing known".
        """
        count = len(history)
        known = self.project(history) + (self.types + self.levels).flatten(0, 1)
        memory = self.memory_norm(torch.cat([known, self.nothing.expand(count, 1, -1).to(known)], dim=1))
        seen = F.pad(history_mask, (0, 1), value=True)
        bias = torch.zeros(seen.shape, device=history.device).masked_fill(~seen, UNSEEN)[:, None, None, :]
        x, looked = self.queries.expand(count, -1, -1), []
        for layer in self.layers:
            x, weights = layer(x, memory, bias)
            looked.append(weights)
        prefix = self.place + self.scale * self.output_norm(x)
        return prefix, torch.stack(looked).mean(dim=0)
