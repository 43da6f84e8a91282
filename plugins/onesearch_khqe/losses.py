"""The five losses of the aligned embedding. All vectors are L2-normalised, so that a dot product is a cosine.

``L = λ1·L_q2q + λ2·L_i2i + λ3·L_q2i + λ4·L_rank + λ5·L_rel``. The paper names the terms and prints no closed
forms; these are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(left: Tensor, right: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """Symmetric in-batch InfoNCE, for q2q, i2i and q2i.

    ``½·(CE(s·left·rightᵀ) + CE(s·right·leftᵀ))``, the partner of row b being row b. ``scale`` is the inverse
    temperature s. ``same`` bool[B, B] marks pairs that must not count as negatives: rows that stand for the
    same query or item (the diagonal is always kept). A batch of fewer than two rows has no negatives and
    gives 0.
    """
    if len(left) < 2:
        return left.sum() * 0.0
    scores = left @ right.T * scale
    if same is not None:
        off_diagonal = ~torch.eye(len(left), dtype=torch.bool, device=left.device)
        scores = scores.masked_fill(same & off_diagonal, -1e4)
    target = torch.arange(len(left), device=left.device)
    return 0.5 * (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target))


def rank_loss(query: Tensor, better: Tensor, worse: Tensor, steps: Tensor, margin: float) -> Tensor:
    """Margin over impression < click < order: ``mean relu(margin·steps − (q·better − q·worse))``.

    ``steps`` f32[B] is how many steps the two items are apart: 1 for click over impression or order over
    click, 2 for order over impression.
    """
    if not len(query):
        return query.sum() * 0.0
    gap = (query * better).sum(1) - (query * worse).sum(1)
    return F.relu(margin * steps - gap).mean()


def relevance_loss(query: Tensor, item: Tensor, grade: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """Regression to judged relevance in [0, 1]: ``mean (σ(slope·q·x + shift) − grade)²``; slope and shift are
    learnt."""
    if not len(query):
        return query.sum() * 0.0
    return F.mse_loss(torch.sigmoid(slope * (query * item).sum(1) + shift), grade)
