"""List-wise DPO: the loss that is trained with, and the one the paper prints, for comparison.

For a prompt x with a positive i_w, negatives i_l and rewards r, and ``r̂(i) = β·log(π(i|x) / π_ref(i|x))``::

    S-DPO    L = −log σ(−log Σ_l exp(w_l·(r̂_l − r̂_w + δ))) − α·log π(i_w|x)
             w_l = 1 + clip(r_w − r_l, ε)^−1.5, capped
    printed  L = −log σ(log Σ_l exp(w_l·max(0, r̂_w − r̂_l − δ))) + α·log π(i_w|x)
             w_l = 1 / (r_w − r_l)

What is wrong with the printed one (each is held by a test): a negative that is not yet separated by δ has no
gradient, so that nothing is learnt where there is something to learn; those that are separated get the more
gradient the better they are separated already; its weights are singular where rewards are equal; and under a
loss that is made small its last term pushes the positive's likelihood *down*.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_POWER = -1.5


def pair_weights(winner: Tensor, losers: Tensor, floor: float, cap: float) -> Tensor:
    """w_l f32[B, M] of rewards f32[B] and f32[B, M]: close pairs weigh more, none more than ``cap``.

    ``floor`` is ε: rewards nearer to each other than that (or in the wrong order) count as so far apart.
    """
    apart = (winner[:, None] - losers).clamp(min=floor)
    return (1 + apart**_POWER).clamp(max=cap)


def printed_weights(winner: Tensor, losers: Tensor) -> Tensor:
    """1 / (r_w − r_l) as printed: infinite where rewards are equal."""
    return 1 / (winner[:, None] - losers)


def s_dpo(
    winner: Tensor,
    losers: Tensor,
    mask: Tensor,
    weights: Tensor,
    margin: float,
    log_prob: Tensor,
    keep: float,
) -> Tensor:
    """The loss of each list, f32[B].

    Args:
        winner: r̂_w f32[B]. losers: r̂_l f32[B, M]. mask: bool[B, M], false on padding; a row has one at least.
        weights: w_l f32[B, M]. margin: δ. log_prob: log π(i_w|x) f32[B]. keep: α.
    """
    apart = weights.masked_fill(~mask, 0) * (losers - winner[:, None] + margin)
    lost = apart.masked_fill(~mask, -torch.inf).logsumexp(dim=1)
    return F.softplus(lost) - keep * log_prob  # −log σ(−z) = softplus(z)


def printed(
    winner: Tensor,
    losers: Tensor,
    mask: Tensor,
    weights: Tensor,
    margin: float,
    log_prob: Tensor,
    keep: float,
) -> Tensor:
    """The printed loss of each list, f32[B]; arguments as for :func:`s_dpo`."""
    apart = weights.masked_fill(~mask, 0) * (winner[:, None] - losers - margin).clamp(min=0)
    won = apart.masked_fill(~mask, -torch.inf).logsumexp(dim=1)
    return -F.logsigmoid(won) + keep * log_prob
