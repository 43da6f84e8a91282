"""The text encoders as torch modules: n-gram embedding bag, heads on a frozen sentence model, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from onesearch.contracts.tokenizer import TextRole
from torch import Tensor, nn

if TYPE_CHECKING:
    from onesearch_khqe.config import KhqeConfig
    from onesearch_khqe.texts import TextTable


class NgramTable(nn.Module):
    """Sum of hashed n-gram embeddings, each weighted by softplus of a learnt weight; shared by queries and
    items.

    A bucket's weight starts at the inverse document frequency of its n-grams, as in a bag-of-words search.
    Buckets that no known text uses start near zero: an n-gram never seen must not drown those that mean
    something.
    """

    def __init__(self, buckets: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(buckets, dim))
        self.weights = nn.Parameter(torch.zeros(buckets))

    def initialise(self, frequency: np.ndarray, texts: int, seed: int) -> None:
        """``frequency`` i64[buckets]: in how many of the ``texts`` item texts a bucket's n-grams occur."""
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.rows, std=self.rows.shape[1] ** -0.5, generator=generator)
        idf = np.log((texts + 1) / (frequency + 1)) + 0.5
        self.weights.data = torch.from_numpy(np.where(frequency > 0, idf, UNSEEN_WEIGHT).astype(np.float32))

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Normalised embeddings f32[B, dim] of the bags ``ids[offsets[b]:offsets[b + 1]]``."""
        return bag(ids, offsets, self.rows, self.weights)

    def table(self) -> np.ndarray:
        """What serving sums: ``softplus(weight)·row``, f32[buckets, dim]."""
        with torch.inference_mode():
            return (F.softplus(self.weights)[:, None] * self.rows).numpy()


UNSEEN_WEIGHT = 0.5


def bag(ids: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Normalised weighted sum of rows; see :class:`NgramTable`."""
    summed = F.embedding_bag(ids, rows, offsets, mode="sum", per_sample_weights=F.softplus(weights[ids]))
    return F.normalize(summed, dim=-1)


class ResidualHead(nn.Module):
    """``norm(x + W2·gelu(W1·x))``, W2 zero at first, so that training starts from the model as it is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, base: Tensor) -> Tensor:
        """Base vectors f32[B, dim] → aligned, normalised."""
        return F.normalize(base + self.narrow(F.gelu(self.wide(base))), dim=-1)


class TextEncoder(nn.Module):
    """Texts of a :class:`~onesearch_khqe.texts.TextTable` → normalised embeddings, by the parts that are
    there.

    With both parts the embedding is ``[√a·ngram, √(1−a)·base]``: its dot products are the mix ``a·cos_ngram +
    (1−a)·cos_base``, a learnt.
    """

    def __init__(self, config: KhqeConfig, base_dim: int) -> None:
        super().__init__()
        self.ngram = (
            NgramTable(config.buckets, config.dim) if config.encoder != "sentence-transformers" else None
        )
        self.heads = (
            nn.ModuleDict({role: ResidualHead(base_dim) for role in ("query", "item")}) if base_dim else None
        )
        self.mix = nn.Parameter(torch.zeros(()))
        self.scale = nn.Parameter(torch.tensor(config.alignment.temperature).log())
        self.slope = nn.Parameter(torch.tensor(4.0))
        self.shift = nn.Parameter(torch.tensor(-1.0))
        self.dim = (config.dim if self.ngram else 0) + base_dim

    def join(self, ngram: Tensor | None, base: Tensor | None, role: TextRole) -> Tensor:
        """Embeddings f32[B, D] from the n-gram part (normalised) and the base model's vectors."""
        aligned = None if base is None or self.heads is None else self.heads[role](base)
        if ngram is None or aligned is None:
            only = aligned if ngram is None else ngram
            assert only is not None
            return only
        share = torch.sigmoid(self.mix)
        return torch.cat([ngram * share.sqrt(), aligned * (1 - share).sqrt()], dim=-1)

    @torch.inference_mode()
    def embed(self, table: TextTable, rows: np.ndarray, role: TextRole, batch: int = 4096) -> np.ndarray:
        """Embeddings f32[R, D] of the table's rows."""
        out = np.empty((len(rows), self.dim), dtype=np.float32)
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            ngram = None
            if self.ngram is not None:
                ids, offsets = table.bags(some)
                ngram = self.ngram(torch.from_numpy(ids), torch.from_numpy(offsets))
            base = None if table.base is None else torch.from_numpy(table.base[some].astype(np.float32))
            out[start : start + batch] = self.join(ngram, base, role).numpy()
        return out
