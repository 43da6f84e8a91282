"""One step's losses: embeds everything that a batch names, then the five terms with their weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from onesearch_khqe.config import AlignmentConfig
from onesearch_khqe.encoders import TextEncoder
from onesearch_khqe.losses import info_nce, rank_loss, relevance_loss
from onesearch_khqe.samples import Batch

Embed = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]
"""Text-table rows of queries and of items → their embeddings."""


class Objective:
    """``λ1·L_q2q + λ2·L_i2i + λ3·L_q2i + λ4·L_rank + λ5·L_rel`` of a batch.

    Args:
        queries, items: text-table row of each query and item number.
        pseudo, pseudo_items: text-table row of each pseudo-query, and the item that it was cut from.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        settings: AlignmentConfig,
        queries: np.ndarray,
        items: np.ndarray,
        pseudo: np.ndarray,
        pseudo_items: np.ndarray,
    ) -> None:
        self.encoder = encoder
        self.settings = settings
        self.queries = queries
        self.items = items
        self.pseudo = pseudo
        self.pseudo_items = pseudo_items

    def losses(self, embed: Embed, batch: Batch, drawn: np.ndarray) -> dict[str, Tensor]:
        """Weighted losses by name. ``drawn`` are numbers of pseudo-queries that join the batch for q2i. A
        term whose weight is 0, or for which the batch holds nothing, is left out."""
        weights = self.settings.weights
        with_query = _where(batch.other_query, weights.q2q)
        with_item = _where(batch.other_item, weights.i2i)
        with_worse = _where(batch.worse, weights.rank or weights.relevance)
        cut_from = self.pseudo_items[drawn]
        query_rows = [
            self.queries[batch.query],
            self.pseudo[drawn],
            self.queries[batch.other_query[with_query]],
        ]
        item_rows = [
            self.items[rows]
            for rows in (batch.item, cut_from, batch.other_item[with_item], batch.worse[with_worse])
        ]
        query_vectors, item_vectors = embed(np.concatenate(query_rows), np.concatenate(item_rows))
        query, pseudo, other_query = query_vectors.split([len(rows) for rows in query_rows])
        item, pseudo_item, other_item, worse = item_vectors.split([len(rows) for rows in item_rows])
        scale = self.encoder.scale.exp().clamp(max=100.0)

        numbers = np.concatenate([batch.query, -1 - np.arange(len(drawn))])
        same = _same(numbers) | _same(np.concatenate([batch.item, cut_from]))
        out = {
            "q2i": weights.q2i
            * info_nce(torch.cat([query, pseudo]), torch.cat([item, pseudo_item]), scale, same)
        }
        if len(with_query):
            own, other = batch.query[with_query], batch.other_query[with_query]
            same = _same(own) | _same(own, other) | _same(other)
            out["q2q"] = weights.q2q * info_nce(query[with_query], other_query, scale, same)
        if len(with_item):
            own, other = batch.item[with_item], batch.other_item[with_item]
            same = _same(own) | _same(own, other) | _same(other) | _same(batch.query[with_item])
            out["i2i"] = weights.i2i * info_nce(item[with_item], other_item, scale, same)
        if len(with_worse) and weights.rank:
            steps = torch.from_numpy(batch.steps[with_worse])
            loss = rank_loss(query[with_worse], item[with_worse], worse, steps, self.settings.margin)
            out["rank"] = weights.rank * loss
        grades = np.concatenate([batch.grade, batch.worse_grade[with_worse]])
        judged = np.flatnonzero(~np.isnan(grades))
        if len(judged) and weights.relevance:
            loss = relevance_loss(
                torch.cat([query, query[with_worse]])[judged],
                torch.cat([item, worse])[judged],
                torch.from_numpy(grades[judged]),
                self.encoder.slope,
                self.encoder.shift,
            )
            out["relevance"] = weights.relevance * loss
        return out


def _where(numbers: np.ndarray, weight: float) -> np.ndarray:
    """Rows of the batch that have a partner, none where nobody asks for it."""
    return np.flatnonzero(numbers >= 0) if weight else np.zeros(0, np.int64)


def _same(left: np.ndarray, right: np.ndarray | None = None) -> Tensor:
    """bool[B, B]: which rows stand for the same query or item."""
    return torch.from_numpy(left[:, None] == (left if right is None else right)[None, :])
