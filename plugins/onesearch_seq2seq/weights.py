"""The weights of the score's parts, fitted on held-out queries by Newton's method.

At a level the log-probability of a path's child is that of a conditional logit: a softmax over the legal
children of a weighted sum of parts. Its log-likelihood is concave in the weights, and the levels do not share
any, so that the best weights of each level are found exactly and at once, with what the network learnt held
fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PARTS = ("head", "steer", "prior", "mass")
_NETWORK, _PRIOR = (0, 1, 2, 3), (2, 3)
_ITERATIONS, _RIDGE = 30, 1e-4
_NOISE = 1e-7  # nats an example
_SCALED = 200_000  # children that the parts' scales are measured on


@dataclass(frozen=True)
class Choices:
    """What one level offered on held-out examples.

    Attributes:
        parts: f32[M, 4], the unweighted parts of the live children's logits.
        starts: i64[A], where the children of each of the A choices begin; ascending.
        target: i64[A], which of the M the example's own child is.
        group: i64[A], the query an example is of (examples of one query go into the same fold).
        weight: f64[A].
    """

    parts: np.ndarray
    starts: np.ndarray
    target: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    def only(self, keep: np.ndarray) -> Choices:
        """The choices of a mask bool[A]."""
        counts = np.diff(np.append(self.starts, len(self.parts)))
        rows = np.repeat(keep, counts)
        kept = counts[keep]
        starts = np.cumsum(kept) - kept
        target = self.target[keep] - self.starts[keep] + starts
        return Choices(self.parts[rows], starts, target, self.group[keep], self.weight[keep])


def negative_log_likelihood(choices: Choices, weights: np.ndarray) -> float:
    """Weighted sum over the choices of -log p(own child), for weights f64[4]."""
    return _derivatives(choices.parts @ weights.astype(np.float32), choices, None)[0]


def fit_parts(choices: Choices, free: Sequence[int], start: np.ndarray | None = None) -> np.ndarray:
    """The non-negative weights f64[4] of least negative log-likelihood; parts that are not ``free`` weigh 0.

    ``start`` f64[4] is where the search begins; there is one minimum, so that it decides nothing but the
    time.
    """
    weights = np.zeros(len(PARTS))
    if not len(choices.starts):
        return weights
    columns = [part for part in free if float(np.ptp(choices.parts[:, part])) > 1e-9]
    while columns:
        used = np.ascontiguousarray(choices.parts[:, columns])
        sample = used[:: len(used) // _SCALED + 1]  # a scale need not be exact
        scale = np.maximum(sample.std(axis=0, dtype=np.float64), 1e-6)
        used *= (1 / scale).astype(np.float32)
        found = _newton(used, choices, np.zeros(len(columns)) if start is None else start[columns] * scale)
        if (found >= 0).all():
            weights[columns] = found / scale
            return weights
        del columns[int(np.argmin(found))]  # a part that would count against itself is left out
    return weights


def _newton(parts: np.ndarray, choices: Choices, weights: np.ndarray) -> np.ndarray:
    total = float(choices.weight.sum())
    ridge = _RIDGE * total
    loss, gradient, curvature = _derivatives(parts @ weights.astype(np.float32), choices, parts)
    for _ in range(_ITERATIONS):
        downhill = -(gradient + ridge * weights)
        step = np.linalg.solve(curvature + ridge * np.eye(len(weights)), downhill)
        if downhill @ step < _NOISE * total:
            break
        # Sums of float32 are known no better: a stricter search would halve its steps for nothing.
        slack = _NOISE * (total + loss)
        length = 1.0
        while length > 1e-4:
            tried = weights + length * step
            now = _derivatives(parts @ tried.astype(np.float32), choices, parts)
            if now[0] + ridge / 2 * tried @ tried <= loss + ridge / 2 * weights @ weights + slack:
                break
            length /= 2
        else:
            return weights
        weights, moved = tried, float(np.abs(length * step).max())
        loss, gradient, curvature = now
        if moved < 1e-4:
            break
    return weights


def _derivatives(
    logits: np.ndarray, choices: Choices, parts: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Negative log-likelihood, and, given parts f32[M, F], its gradient f64[F] and curvature f64[F, F]."""
    starts, weight = choices.starts, choices.weight
    counts = np.diff(np.append(starts, len(logits)))
    own = logits[choices.target]
    if len(counts) and (counts == counts[0]).all():
        # At the first level all have the same children, the most by far: a matrix is several times faster.
        table = logits.reshape(len(counts), -1)
        highest = table.max(axis=1)
        shares = np.exp(table - highest[:, None])
        sums = shares.sum(axis=1, dtype=np.float64)
    else:
        highest = np.maximum.reduceat(logits, starts)
        shares = np.exp(logits - np.repeat(highest, counts))
        sums = np.add.reduceat(shares, starts, dtype=np.float64)
    loss = float(weight @ (highest + np.log(sums) - own))
    if parts is None:
        return loss, np.zeros(0), np.zeros((0, 0))
    factor = (1 / sums).astype(np.float32)
    if shares.ndim == 2:
        shares *= factor[:, None]
        means = np.matmul(shares[:, None], parts.reshape(*shares.shape, -1))[:, 0].astype(np.float64)
        shares *= weight.astype(np.float32)[:, None]
    else:
        shares *= np.repeat(factor, counts)
        means = np.add.reduceat(shares[:, None] * parts, starts, axis=0, dtype=np.float64)
        shares *= np.repeat(weight.astype(np.float32), counts)
    gradient = weight @ (means - parts[choices.target])
    weighted = parts * shares.reshape(-1, 1)
    curvature = (weighted.T @ parts).astype(np.float64) - means.T @ (means * weight[:, None])
    return loss, gradient, curvature


@dataclass(frozen=True)
class Fitted:
    """What a fit found at one level.

    Attributes:
        guided: f64[4] of head, steer, prior and mass: what is served.
        alone: f64[4], the best of the prior and the mass without the network: what ``prior_only`` uses.
        guided_loss, alone_loss: cross-validated negative log-likelihoods (two folds of queries), sums.
    """

    guided: np.ndarray
    alone: np.ndarray
    guided_loss: float
    alone_loss: float


def fit_level(choices: Choices) -> Fitted:
    """Fit one level; the network keeps a weight only where it helps queries that the fit has not seen."""
    alone = fit_parts(choices, _PRIOR)
    if not len(choices.starts):
        return Fitted(alone, alone, 0.0, 0.0)
    start = fit_parts(choices, _NETWORK)
    fold = (choices.group * 2_654_435_761 >> 7) & 1 == 1
    losses = np.zeros(2)
    for half in (fold, ~fold):
        seen, unseen = choices.only(half), choices.only(~half)
        if not len(seen.starts) or not len(unseen.starts):
            continue
        for at, (free, near) in enumerate(((_NETWORK, start), (_PRIOR, alone))):
            losses[at] += negative_log_likelihood(unseen, fit_parts(seen, free, near))
    guided = start if losses[0] < losses[1] else alone
    return Fitted(guided, alone, float(min(losses)), float(losses[1]))
