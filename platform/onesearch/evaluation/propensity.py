"""What a log with propensities says of another ranking: inverse propensity weighting.

θ(k) = (1 + k)^−η is how likely the place k is looked at (places count from 0; beyond :data:`SEEN` nobody
looks). A logged item of propensity p, that a ranking puts at place k', counts

    w = θ(k') / (θ(k) · p)           where it was no exploration (p ≥ ½): it stands at its own place k only
    w = θ(k') / (p · Σ_places θ)     where it was (p < ½): it may stand at any place, at each as likely

which is how :mod:`onesearch.serving.exploration` shows things; weights are cut at ``clip``. IPS, Σ w·click /
searches, estimates the clicks a search of the ranking; SNIPS, Σ w·click / Σ w, its clicks a look, which is
steadier. Both hold as far as a click depends on the item and on being looked at alone, and as far as every
item had a chance to be shown: of what a log never shows it says nothing.

η comes from the log: among what was shown by exploration, which no ranking put where it stood, clicks fall
with the place as looking does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onesearch.evaluation.metrics import bootstrap

SEEN = 20
CLIP = 50.0
FADE = 1.0
"""η where the log explores too little to tell: clicks halve from the first place to the second."""
_EXPLORED, _ENOUGH_CLICKS = 0.5, 50
_FADES = np.arange(0.0, 2.01, 0.05)


@dataclass(frozen=True)
class Logged:
    """What one logged search showed.

    Attributes:
        items: i32[n], item numbers; below 0 where the catalogue lacks them. position: i32[n], from 0.
        propensity: f32[n], in (0, 1]. clicked, ordered: bool[n].
    """

    items: np.ndarray
    position: np.ndarray
    propensity: np.ndarray
    clicked: np.ndarray
    ordered: np.ndarray


def fade(searches: Sequence[Logged]) -> tuple[float, int]:
    """η, and how many explored clicks it was found by; :data:`FADE` below 50."""
    if not searches:
        return FADE, 0
    propensity = np.concatenate([one.propensity for one in searches])
    explored = propensity < _EXPLORED
    place = np.concatenate([one.position for one in searches])[explored]
    clicked = np.concatenate([one.clicked for one in searches])[explored]
    clicks = int(clicked.sum())
    if clicks < _ENOUGH_CLICKS:
        return FADE, clicks
    logs = np.log1p(place)
    # Poisson's likelihood with rate c·(1 + k)^−η, c at its best for each η.
    fits = [-eta * logs[clicked].sum() - clicks * np.log(np.exp(-eta * logs).sum()) for eta in _FADES]
    return float(_FADES[int(np.argmax(fits))]), clicks


def weighted(
    searches: Sequence[Logged], ranked: np.ndarray, eta: float, clip: float = CLIP
) -> dict[str, Any]:
    """The estimates for rankings i32[S, K] of the same searches.

    Returns:
        ``clicks`` and ``orders``: IPS a search, with ``_low`` and ``_high`` (95 %, bootstrap over searches);
        ``click_rate``: SNIPS; ``effective``: effective sample size of the weights, (Σ w)² / Σ w²;
        ``weighed``: how many logged items the rankings show at all; ``clipped``: share of those whose weight
        was cut.
    """
    sums = np.zeros((len(searches), 2))
    weights: list[np.ndarray] = []
    cut = 0
    for row, (one, ranking) in enumerate(zip(searches, ranked[:, :SEEN], strict=True)):
        place = _places(one.items, ranking)
        shown = place >= 0
        chance = one.propensity[shown].astype(np.float64)
        looks = np.where(
            chance < _EXPLORED,
            float(((1.0 + one.position) ** -eta).sum()),
            (1.0 + one.position[shown]) ** -eta,
        )
        weight = (1.0 + place[shown]) ** -eta / np.maximum(chance * looks, 1e-9)
        cut += int((weight > clip).sum())
        weight = np.minimum(weight, clip)
        sums[row] = weight @ one.clicked[shown], weight @ one.ordered[shown]
        weights.append(weight)
    every = np.concatenate([np.zeros(0), *weights])
    clicks, orders = bootstrap(sums) if len(sums) else (None, None)
    told: dict[str, Any] = {}
    for name, estimate in (("clicks", clicks), ("orders", orders)):
        if estimate is not None:
            told |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    total = float(every.sum())
    told["click_rate"] = float(sums[:, 0].sum()) / total if total else 0.0
    told["effective"] = total**2 / float((every**2).sum()) if total else 0.0
    rounded = {key: round(value, 5) for key, value in told.items()}
    return rounded | {"weighed": len(every), "clipped": round(cut / max(1, len(every)), 5)}


def _places(items: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Where a ranking shows items i32[n], i64[n]; -1 where it does not."""
    same = (items[:, None] == ranking) & (items[:, None] >= 0)
    return np.where(same.any(axis=1), same.argmax(axis=1), -1)
