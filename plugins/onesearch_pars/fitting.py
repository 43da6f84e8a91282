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
    features: np.ndarray,
    mask: np.ndarray,
    gain: np.ndarray,
    defaults: np.ndarray,
    l2: float,
    times: np.ndarray | None = None,
) -> FittedWeights:
    """Fit weights of features f32[Q, K, F].

    Args:
        features: of each candidate. mask: bool[Q, K], false on padding. gain: f32[Q, K].
        defaults: f64[F], kept by a feature that never varies within a list.
        l2: pull of the standardised weights towards the defaults.
        times: f32[Q], how often each list counts; once without it. Lists without gain teach nothing.
    """
    from scipy.optimize import minimize  # learning only

    gain = np.where(mask, gain, 0.0)
    useful = gain.any(axis=1)
    features, mask, gain = features[useful], mask[useful], gain[useful]
    if not len(features):
        return FittedWeights(defaults.astype(np.float32), float("nan"), float("nan"))
    counts = np.ones(len(features)) if times is None else times[useful].astype(np.float64)
    weight = (counts / counts.sum()).astype(np.float32)[:, None]
    inside = mask[..., None]
    centre = np.where(inside, features, 0).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    centred = np.where(inside, features - centre[:, None], np.float32(0)).astype(np.float32)
    spread = np.sqrt(np.square(centred, dtype=np.float64).sum((0, 1)) / mask.sum())
    varies = spread > 1e-6
    scale = np.where(varies, spread, 1.0)
    rows = (centred / scale).astype(np.float32).reshape(-1, features.shape[2])
    target = (gain / gain.sum(axis=1, keepdims=True)).astype(np.float32)
    start = np.maximum(defaults * scale, 0.0)

    def loss(weights: np.ndarray, pull: float = l2) -> tuple[float, np.ndarray]:
        logits = np.where(mask, (rows @ weights.astype(np.float32)).reshape(mask.shape), -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1, keepdims=True)
        fit = -(weight * target * np.where(mask, logits - np.log(total), 0)).sum()
        slope = (weight * (odds / total - target)).ravel() @ rows
        away = weights - start
        return float(fit + pull * (away**2).sum()), (slope + 2 * pull * away).astype(np.float64)

    bounds = [(0.0, None)] * len(start)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x
    weights = np.where(varies, found / scale, defaults)
    return FittedWeights(weights.astype(np.float32), loss(start, 0.0)[0], loss(found, 0.0)[0])
