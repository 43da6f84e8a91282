"""The network: a BART-like encoder-decoder over text tokens and SID codes, with one head a SID level.

Notation: B batch, T prompt tokens, P prefix vectors, S decoder positions, d width, L levels, D query
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onesearch_seq2seq.config import Dimensions, Seq2SeqConfig
from onesearch_seq2seq.shape import SID_START, UNSEEN, Shape


class Attention(nn.Module):
    """Multi-head attention; ``forward`` attends within x, :meth:`across` from x to a memory."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.heads = dims.heads
        self.q = nn.Linear(dims.width, dims.width)
        self.kv = nn.Linear(dims.width, 2 * dims.width)
        self.out = nn.Linear(dims.width, dims.width)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """x [B, S, d], memory [B, M, d], bias [B or 1, 1, S or 1, M] (very negative: not seen) → [B, S,
        d]."""
        key, value = self.kv(memory).chunk(2, dim=-1)
        query = self._split(self.q(x)) * (x.shape[-1] // self.heads) ** -0.5
        # Written out: torch's fused attention takes ten times as long in bfloat16 on CPUs for rows this
        # short.
        scores = query @ self._split(key).transpose(-1, -2) + bias
        mixed = scores.softmax(dim=-1).to(value.dtype) @ self._split(value)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Dropout(nn.Module):
    """Drops features for a whole row of the batch at once: one random number serves all its positions.

    Drawing a number an element took a tenth of the training time on CPUs.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, d] → [B, S, d]."""
        if not self.training or not self.share:
            return x
        kept = torch.rand(len(x), 1, x.shape[-1], device=x.device) >= self.share
        return x * (kept.to(x.dtype) / (1 - self.share))


class Layer(nn.Module):
    """Self-attention, in the decoder cross-attention, feed-forward; each with a norm and a residual.

    The norm stands before each sublayer (easier to train), or behind it where BART's weights are the start.
    """

    def __init__(self, dims: Dimensions, decoder: bool, dropout: float, post_norm: bool) -> None:
        super().__init__()
        self.post_norm, self.activation = post_norm, getattr(F, dims.activation)
        self.attention, self.attention_norm = Attention(dims), nn.LayerNorm(dims.width)
        if decoder:
            self.cross, self.cross_norm = Attention(dims), nn.LayerNorm(dims.width)
        self.up, self.down = nn.Linear(dims.width, dims.hidden), nn.Linear(dims.hidden, dims.width)
        self.feed_norm = nn.LayerNorm(dims.width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor | None = None) -> Tensor:
        """x [B, S, d]; bias [B, 1, 1, M] of the memory if there is one (then x is causal), else of x."""
        if memory is None:
            x = self._residual(x, self.attention_norm, lambda y: self.attention(y, y, bias))
        else:
            later = torch.full((x.shape[1], x.shape[1]), UNSEEN, device=x.device).triu(1)
            x = self._residual(x, self.attention_norm, lambda y: self.attention(y, y, later))
            x = self._residual(x, self.cross_norm, lambda y: self.cross(y, memory, bias))
        return self._residual(x, self.feed_norm, lambda y: self.down(self.activation(self.up(y))))

    def _residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.post_norm:
            return norm(x + self.dropout(sublayer(x)))
        return x + self.dropout(sublayer(norm(x)))


class Stack(nn.Module):
    """Layers over embedded tokens; positions are learnt."""

    def __init__(
        self, dims: Dimensions, decoder: bool, positions: int, dropout: float, post_norm: bool
    ) -> None:
        super().__init__()
        self.positions = nn.Embedding(positions, dims.width)
        self.input_norm = nn.LayerNorm(dims.width)
        self.layers = nn.ModuleList(Layer(dims, decoder, dropout, post_norm) for _ in range(dims.layers))
        self.output_norm = nn.Identity() if post_norm else nn.LayerNorm(dims.width)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        embedded: Tensor,
        bias: Tensor,
        memory: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """embedded [B, S, d] and prefix [B, P, d] → [B, P + S, d]; the prefix brings its own places."""
        x = self.input_norm(embedded + self.positions.weight[: embedded.shape[1]])
        if prefix is not None and prefix.shape[1]:
            x = torch.cat([prefix.to(x.dtype), x], dim=1)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, bias, memory)
        return self.output_norm(x)


class LowRank(nn.Module):
    """A linear map of low rank whose output starts at zero."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs)
        nn.init.normal_(self.down.weight, std=inputs**-0.5)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] → […, outputs]."""
        return self.up(self.down(x))


class Seq2Seq(nn.Module):
    """The whole network with the weights of the score's parts.

    The logit of a child c of a prefix at level ℓ, for a decoder state h and a query embedding q::

        w_ℓ · head_ℓ(h)[code(c)] + s_ℓ · ⟨P_ℓ h, R v_c⟩ + γ_ℓ · ⟨q, v_c⟩ + η_ℓ · log_mass_c

    with v_c the mean vector below the child. Heads and P start at zero: untrained, the network is its prior.
    While training w = s = 1; what is served are the weights that :mod:`onesearch_seq2seq.weights` fits.
    """

    def __init__(self, shape: Shape, config: Seq2SeqConfig) -> None:
        super().__init__()
        dims, post_norm = config.dimensions, bool(config.start_from)
        self.shape, self.dims, self.post_norm = shape, dims, post_norm
        self.tokens = nn.Embedding(shape.vocabulary, dims.width)
        self.encoder = Stack(dims, False, config.prompt_limit, config.dropout, post_norm)
        target = max(config.text_limit, len(shape.levels))
        self.decoder = Stack(dims, True, target, config.dropout, post_norm)
        self.heads = nn.ModuleList(
            LowRank(dims.width, size, rank)
            if (rank := config.rank_of(level))
            else nn.Linear(dims.width, size)
            for level, size in enumerate(shape.levels)
        )
        self.steer = nn.ModuleList(
            nn.Linear(dims.width, config.steer_rank, bias=False) for _ in shape.levels if config.steer_rank
        )
        # Rows of unit length on average, so that a key has about the size of a vector.
        self.keys = nn.Parameter(torch.randn(shape.vector, config.steer_rank) * shape.vector**-0.5)
        self.log_prior = nn.Parameter(torch.full((len(shape.levels),), max(config.prior_weight, 1e-6)).log())
        self.mass = nn.Parameter(torch.full((len(shape.levels),), config.mass_weight))
        self.served: Tensor
        # Rows: head, steer, prior, mass of the served score; prior and mass of the prior without the network.
        start = [1.0, 1.0, config.prior_weight, config.mass_weight, config.prior_weight, config.mass_weight]
        self.register_buffer("served", torch.tensor(start)[:, None].repeat(1, len(shape.levels)))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for head in (*self.heads, *self.steer):
            if isinstance(head, nn.Linear):
                nn.init.zeros_(head.weight)
                if head.bias is not None:
                    nn.init.zeros_(head.bias)

    def encode(self, ids: Tensor, mask: Tensor, prefix: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prompt ids [B, T] and mask bool[B, T] → memory [B, P + T, d] and its bias f32[B, 1, 1, P + T].

        Every vector of ``prefix`` f32[B, P, d] is attended to, one of zeros too: to say nothing, P is 0.
        """
        if prefix is not None and prefix.shape[1]:
            mask = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, UNSEEN)[:, None, None, :]
        return self.encoder(self.tokens(ids), bias, prefix=prefix), bias

    def decode(self, ids: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Decoder input ids [B, S] → states [B, S, d]."""
        return self.decoder(self.tokens(ids), bias, memory)

    def sid_inputs(self, codes: Tensor) -> Tensor:
        """SID codes [B, L] → decoder input ids [B, L]: the start, then the codes of all levels but the
        last."""
        offsets = torch.tensor(
            [self.shape.offset(level) for level in range(codes.shape[1] - 1)], dtype=torch.int64
        )
        start = codes.new_full((len(codes), 1), SID_START)
        return torch.cat([start, codes[:, :-1] + offsets.to(codes)], dim=1)

    def text_logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """States […, d] → logits over these tokens i64[N] (default: all special and text ones), by the tied
        embedding."""
        weight = self.tokens.weight[: self.shape.text] if tokens is None else self.tokens(tokens)
        return F.linear(states, weight)
