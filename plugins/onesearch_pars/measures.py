"""What is told of a reward: how well it separates, whether its probabilities are true, how well it orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, ties half; NaN without both.

    Args:
        scores: f[M]. labels: bool[M].
    """
    return auc_within(scores, labels, _all_in_one(labels))


def auc_within(scores: np.ndarray, labels: np.ndarray, stratum: np.ndarray) -> float:
    """:func:`auc` over the pairs of one stratum alone, of all strata together; NaN without a pair.

    Args:
        scores: f[M]. labels: bool[M]. stratum: i[M], the place an item stood at, for example.
    """
    return _Ranked.of(scores, labels, _all_in_one(labels), stratum).auc(np.ones(1, np.int64))


def auc_change(
    scores: np.ndarray,
    others: np.ndarray,
    labels: np.ndarray,
    group: np.ndarray,
    stratum: np.ndarray | None = None,
    draws: int = 400,
    seed: int = 0,
) -> dict[str, float]:
    """How much higher the AUC of some scores is than that of others, with a 95 % interval.

    The interval is a paired bootstrap over groups: rows of one request are drawn together.

    Args:
        scores, others: f[M]. labels: bool[M]. group: i[M], from 0.
        stratum: i[M], of which the pairs of one alone count (:func:`auc_within`); all pairs without it.

    Returns:
        ``change``, ``low`` and ``high``; NaN without both kinds of labels.
    """
    stratum = _all_in_one(labels) if stratum is None else stratum
    sides = [_Ranked.of(one, labels, group, stratum) for one in (scores, others)]
    groups = int(group.max(initial=-1)) + 1
    random, found = np.random.default_rng(seed), np.zeros(draws)
    for draw in range(draws):
        times = np.bincount(random.integers(groups, size=groups), minlength=groups) if groups else group
        found[draw] = sides[0].auc(times) - sides[1].auc(times)
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else (np.nan, np.nan)
    once = np.ones(groups, np.int64)
    return {"change": sides[0].auc(once) - sides[1].auc(once), "low": float(low), "high": float(high)}


def _all_in_one(labels: np.ndarray) -> np.ndarray:
    return np.zeros(len(labels), np.int64)


@dataclass(frozen=True)
class _Ranked:
    """Rows by stratum and rising scores: their groups and labels, where each of the equal scores starts, and
    which of those starts a stratum."""

    group: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    strata: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, group: np.ndarray, stratum: np.ndarray) -> _Ranked:
        order = np.lexsort((scores, stratum))
        first = np.ones(len(order), bool)
        new = first.copy()
        new[1:] = np.diff(stratum[order]) != 0
        first[1:] = new[1:] | (np.diff(scores[order]) != 0)
        starts = np.flatnonzero(first)
        return cls(group[order], labels[order], starts, np.flatnonzero(new[starts]))

    def auc(self, times: np.ndarray) -> float:
        """AUC where each group counts so many times."""
        weight = times[self.group].astype(np.float64)
        if not len(weight):
            return float("nan")
        good, bad = (np.add.reduceat(weight * kind, self.starts) for kind in (self.labels, ~self.labels))
        goods, bads = (np.add.reduceat(kind, self.strata) for kind in (good, bad))
        pairs = float((goods * bads).sum())
        others = np.repeat(np.cumsum(bads) - bads, np.diff(np.append(self.strata, len(bad))))
        below = np.cumsum(bad) - others - bad / 2
        return float((good * below).sum() / pairs) if pairs else float("nan")


def calibration(predicted: np.ndarray, labels: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Predicted against observed rates, in bins of about equally many rows, from low to high predictions."""
    order = np.argsort(predicted, kind="stable")
    return [
        {
            "rows": len(rows),
            "predicted": float(predicted[rows].mean()),
            "observed": float(labels[rows].mean()),
        }
        for rows in np.array_split(order, bins)
        if len(rows)
    ]


def consistency(rates: np.ndarray) -> dict[str, float]:
    """How well CTCVR agrees with CTR · CVR over the entire space of impressions.

    Args:
        rates: f32[M, 3], predicted CTR, CVR, CTCVR.

    Returns:
        The means of both, and the correlation of their logarithms.
    """
    product, whole = rates[:, 0] * rates[:, 1], rates[:, 2]
    logs = np.log(np.maximum(np.stack([product, whole]), 1e-9))
    agree = (
        float(np.corrcoef(logs)[0, 1]) if len(rates) > 1 and (logs.std(axis=1) > 0).all() else float("nan")
    )
    return {
        "mean_ctr_cvr": float(product.mean()) if len(rates) else float("nan"),
        "mean_ctcvr": float(whole.mean()) if len(rates) else float("nan"),
        "correlation": agree,
    }


def ndcg_each(scores: np.ndarray, gain: np.ndarray, mask: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of each list, f64[Q]; NaN where a list has no gain.

    ``DCG = Σ_{places 1 … k} gain / log2(place + 1)``; ideal is the order by gain. Ties keep their order.

    Args:
        scores, gain: f[Q, K]. mask: bool[Q, K], false on padding.
    """
    gain = np.where(mask, gain, 0.0)
    first = np.argsort(-np.where(mask, scores, -np.inf), axis=1, kind="stable")[:, :k]
    discount = 1 / np.log2(np.arange(2, first.shape[1] + 2))
    reached = (np.take_along_axis(gain, first, axis=1) * discount).sum(axis=1)
    ideal = (-np.sort(-gain, axis=1)[:, :k] * discount).sum(axis=1)
    each: np.ndarray = np.divide(reached, ideal, out=np.full(len(gain), np.nan), where=ideal > 0)
    return each


def ndcg(
    scores: np.ndarray, gain: np.ndarray, mask: np.ndarray, times: np.ndarray | None = None, k: int = 10
) -> float:
    """Mean NDCG@k over lists that have any gain; NaN without one. ``times`` f[Q]: how often each counts."""
    each = ndcg_each(scores, gain, mask, k)
    useful = ~np.isnan(each)
    if not useful.any():
        return float("nan")
    return float(np.average(each[useful], weights=None if times is None else times[useful]))


def ragged_ndcg(scores: np.ndarray, gain: np.ndarray, group: np.ndarray, k: int = 10) -> float:
    """:func:`ndcg` of rows f[J] that ``group`` i[J] sorts into lists."""
    _, at = np.unique(group, return_inverse=True)
    if not len(at):
        return float("nan")
    order = np.argsort(at, kind="stable")
    counts = np.bincount(at)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(counts), int(counts.max()))
    ranked, good, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    ranked[at[order], place], good[at[order], place], mask[at[order], place] = (
        scores[order],
        gain[order],
        True,
    )
    return ndcg(ranked, good, mask, k=k)


def pairwise(scores: np.ndarray, grades: np.ndarray, group: np.ndarray) -> float:
    """Share of pairs of one group with different grades that the scores order as the grades do, ties half.

    Args:
        scores, grades: f[J]. group: i[J], e.g. the query.
    """
    right, pairs = 0.0, 0
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        apart = np.sign(grades[rows][:, None] - grades[rows])
        told = np.sign(scores[rows][:, None] - scores[rows])
        above = apart > 0
        right += float((told[above] > 0).sum() + 0.5 * (told[above] == 0).sum())
        pairs += int(above.sum())
    return right / pairs if pairs else float("nan")


def table_error(table: list[dict[str, float]]) -> float:
    """Mean absolute difference of predicted and observed rates, weighed by rows."""
    rows = np.array([entry["rows"] for entry in table])
    apart = np.array([abs(entry["predicted"] - entry["observed"]) for entry in table])
    return float((rows * apart).sum() / rows.sum()) if len(rows) else float("nan")


def told(value: Any) -> Any:
    """A number as JSON holds it: NaN becomes None, others keep six digits."""
    if isinstance(value, dict):
        return {key: told(one) for key, one in value.items()}
    if isinstance(value, list):
        return [told(one) for one in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{value:.6g}")
    return value
