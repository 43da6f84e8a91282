"""Weights from lists: list-wise softmax regression.

For a list with candidates' features x_k and gains g_k, ``p_k = softmax(w·x_k)`` and
``L = -Σ_k (g_k / Σ_j g_j)·ln p_k``; averaged over lists, plus ``l2·|w - w_default|²`` on standardised
features, w ≥ 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FittedWeights:
    """Weights of raw features f32[F], and the loss before (defaults) and after."""

    weights: np.ndarray
    loss_default: float
    loss: float


def fit_weights(
    features: np.ndarray, mask: np.ndarray, gain: np.ndarray, defaults: np.ndarray, l2: float
) -> FittedWeights:
    """Fit weights of features f32[Q, K, F]; ``mask`` bool[Q, K] is false on padding; ``gain`` f32[Q, K].

    Lists without gain teach nothing and are left out. A feature that never varies within a list keeps its
    default.
    """
    from scipy.optimize import minimize  # learning only

    useful = (np.where(mask, gain, 0) > 0).any(axis=1)
    features, mask, gain = features[useful], mask[useful], np.where(mask, gain, 0.0)[useful]
    if not len(features):
        return FittedWeights(defaults.astype(np.float32), float("nan"), float("nan"))
    count = mask.sum(axis=1, keepdims=True)
    centred = features - (np.where(mask[..., None], features, 0).sum(1) / count)[:, None]
    centred = np.where(mask[..., None], centred, 0).astype(np.float32)
    spread = np.sqrt((centred.astype(np.float64) ** 2).sum((0, 1)) / mask.sum())
    varies = spread > 1e-6
    scale = np.where(varies, spread, 1.0)
    scaled = (centred / scale).astype(np.float32)
    target = (gain / gain.sum(axis=1, keepdims=True)).astype(np.float32)
    start = np.maximum(defaults * scale, 0.0)

    def loss(weights: np.ndarray, pull: float = l2) -> tuple[float, np.ndarray]:
        logits = np.where(mask, scaled @ weights.astype(np.float32), -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1, keepdims=True)
        fit = -(target * np.where(mask, logits - np.log(total), 0)).sum() / len(scaled)
        slope = np.einsum("qk,qkf->f", odds / total - target, scaled) / len(scaled)
        away = weights - start
        return float(fit + pull * (away**2).sum()), (slope + 2 * pull * away).astype(np.float64)

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(start)).x
    weights = np.where(varies, found / scale, defaults)
    return FittedWeights(weights.astype(np.float32), loss(start, 0.0)[0], loss(found, 0.0)[0])
