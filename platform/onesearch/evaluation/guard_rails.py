"""Guard rails: whether first pages are one-sided, feed on popularity, or please a reward and nobody else."""

from __future__ import annotations

from typing import Any

import numpy as np

from onesearch.evaluation.metrics import Estimate, bootstrap, paired
from onesearch.index import CatalogueIndex

PAGE = 10
DIVERSITY = ("sids_1", "sids_2", "brands", "distance", "popularity")
JUDGED_BY = "NDCG@10"


class GuardRails:
    """Figures of first pages over one catalogue."""

    def __init__(self, index: CatalogueIndex) -> None:
        sids = index.sids.astype(np.int64)
        second = sids[:, 1] if sids.shape[1] > 1 else np.zeros(len(sids), np.int64)
        self._levels = (sids[:, 0], sids[:, 0] * (int(second.max(initial=0)) + 1) + second)
        self._vectors = index.vectors
        popularity = np.asarray(index.popularity, np.float64)
        # Mid-ranks: items of equal popularity have equal percentiles.
        _, at, counts = np.unique(popularity, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        self._percentile = ((ends - (counts + 1) / 2) / max(1, len(popularity) - 1))[at.reshape(-1)]
        brands = index.items["brand"].fill_null("").to_numpy() if "brand" in index.items.columns else None
        self._brand = None if brands is None else np.unique(brands, return_inverse=True)[1]
        self._nameless = None if brands is None else brands == ""

    def figures(self, ranked: np.ndarray, rows: np.ndarray | None = None) -> dict[str, float]:
        """Of the first ten of rankings i32[Q, ≥ 10] (-1 past the last).

        ``rows`` i64[S]: the ranking that each search has; each once without.

        Returns:
            Means over the searches that found anything, with 95 % intervals (``_low``, ``_high``): shares of
            different codes of level 1 and of levels 1 and 2 (``sids_1``, ``sids_2``) and of different brands
            among those that have one (``brands``); mean cosine distance of two items (``distance``); mean
            percentile of the items' popularity, 1 the most popular (``popularity``). Over all searches:
            ``coverage``, share of the catalogue that was on any first page, and ``gini`` of how often its
            items were: 0 where all were as often, 1 where one had every place.
        """
        pages = ranked[:, :PAGE]
        measured = np.array([self._page(page[page >= 0]) for page in pages]).reshape(-1, len(DIVERSITY))
        rows = np.arange(len(pages)) if rows is None else rows
        each = measured[rows]
        told: dict[str, float] = {}
        for at, name in enumerate(DIVERSITY):
            known = each[np.isfinite(each[:, at])][:, [at]]
            if len(known):
                told |= _flat(name, bootstrap(known)[0])
        shown = pages[rows]
        counts = np.bincount(shown[shown >= 0], minlength=len(self._percentile))
        told["coverage"] = round(float((counts > 0).mean()), 5) if len(counts) else 0.0
        told["gini"] = round(gini(counts), 5)
        return told

    def _page(self, items: np.ndarray) -> list[float]:
        """The figures of one page, NaN where it cannot tell."""
        count = len(items)
        if not count:
            return [np.nan] * len(DIVERSITY)
        shares = [len(np.unique(level[items])) / count for level in self._levels]
        brands = np.nan
        if self._brand is not None and self._nameless is not None:
            named = self._brand[items][~self._nameless[items]]
            brands = len(np.unique(named)) / len(named) if len(named) else np.nan
        vectors = self._vectors[items].astype(np.float64)
        alike = float((vectors @ vectors.T).sum() - (vectors**2).sum())
        distance = 1 - alike / (count * (count - 1)) if count > 1 else np.nan
        return [*shares, brands, distance, float(self._percentile[items].mean())]


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts i64[N]: 0 for equal ones (and for none at all), near 1 for a single one."""
    total = float(counts.sum())
    if not total:
        return 0.0
    rising = np.sort(counts).astype(np.float64)
    place = np.arange(1, len(rising) + 1)
    return float((2 * place - len(rising) - 1) @ rising / (len(rising) * total))


def reward_hacking(
    rewarded: np.ndarray,
    before: np.ndarray,
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Whether a reward went up while what it stands for went down.

    Args:
        rewarded, before: f64[S], mean reward of each search's first ten, after and before reranking.
        ours, theirs: metrics of the same searches, after and before.

    Returns:
        ``reward`` and ``quality`` (NDCG@10): mean differences with ``_low`` and ``_high``; ``hacked``: the
        reward's interval lies above 0 and the quality's below.
    """
    reward = bootstrap((rewarded - before)[:, None])[0]
    quality = paired(ours, theirs)[JUDGED_BY]
    told: dict[str, Any] = _flat("reward", reward) | _flat("quality", quality)
    return told | {"hacked": reward.low > 0 and quality.high < 0}


def _flat(name: str, estimate: Estimate) -> dict[str, float]:
    values = (estimate.value, estimate.low, estimate.high)
    return {f"{name}{end}": round(value, 5) for end, value in zip(("", "_low", "_high"), values, strict=True)}
