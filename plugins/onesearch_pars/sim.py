"""The three towers, fitted and judged: on impressions, or, without any, on the gains of lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.progress import Progress
from onesearch.training.pairs import normalise_queries

from onesearch_pars.baseline import click_baseline
from onesearch_pars.config import ParsConfig
from onesearch_pars.measures import auc, calibration, consistency, table_error
from onesearch_pars.samples import Rows
from onesearch_pars.towers import TOWERS, Towers, fit_towers, predict

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

ENOUGH_IMPRESSIONS, ENOUGH_CLICKS, ENOUGH_ORDERS = 500, 30, 30
"""What a log must hold for the towers (and, of orders, for CVR and CTCVR to count) to be worth anything."""
_HELD_SHARE, _VALID_SHARE, _LEAST_HELD = 0.2, 0.1, 30


@dataclass(frozen=True)
class Parted:
    """Which rows are learnt from, stop the training, and judge it: i64 each, none in two of them."""

    train: np.ndarray
    valid: np.ndarray
    held: np.ndarray


def parted(impressions: Impressions, lists: RankedLists) -> Parted:
    """Part impressions so that neither towers nor λ are judged by what they know.

    Held out is what the lists are judged by: where the lists' queries stand in the log as known pairs (a
    split by time), every search after the newest of those pairs; else every search of one of the lists'
    queries. Where that leaves fewer than :data:`_LEAST_HELD` searches, the newest fifth is held out. The
    newest tenth of the rest stops the training.
    """
    queries = set(normalise_queries(lists.queries))
    newest = lists.pairs["last_ts"].drop_nulls().max() if "last_ts" in lists.pairs.columns else None
    recurring = bool(queries) and lists.pairs["query"].is_in(list(queries)).any()
    if recurring and newest is not None:
        held = impressions.times > newest.timestamp()  # type: ignore[union-attr]
    else:
        ours = np.array([query in queries for query in impressions.queries], bool)
        held = ours[impressions.query] if len(ours) else np.zeros(0, bool)
    count = len(held)
    if held.sum() < _LEAST_HELD or held.sum() > count / 2:
        held = np.arange(count) >= int(count * (1 - _HELD_SHARE))
    rest = np.flatnonzero(~held)
    stops = np.zeros(count, bool)
    stops[rest[int(len(rest) * (1 - _VALID_SHARE)) :]] = True
    of_row = impressions.request
    return Parted(
        np.flatnonzero((~held & ~stops)[of_row]), np.flatnonzero(stops[of_row]), np.flatnonzero(held[of_row])
    )


def fit_on_impressions(
    rows: Rows, parts: Parted, vectors: np.ndarray, config: ParsConfig, progress: Progress
) -> tuple[Towers, Towers, dict[str, Any]]:
    """Towers that know nothing of the held-out rows, towers of all rows for as many epochs, and figures.

    Returns:
        Figures, of the held-out rows: ``auc`` by tower (as if all stood first), ``auc_placed``,
        ``baseline_auc`` of LightGBM's CTR, ``calibration`` and ``calibration_error`` by tower,
        ``consistency`` of CTCVR with CTR·CVR; and how much there was to learn from.
    """
    first, curve = fit_towers(rows, parts.train, parts.valid, vectors, config.towers, progress)
    rates, placed = (predict(first, rows, parts.held, vectors, stood) for stood in (False, True))
    clicked, ordered = rows.clicked[parts.held] > 0, rows.ordered[parts.held] > 0
    every = np.ones(len(clicked), bool)
    labels = {"ctr": (every, clicked), "cvr": (clicked, ordered), "ctcvr": (every, ordered)}
    told: dict[str, Any] = {"auc": {}, "auc_placed": {}, "calibration": {}, "calibration_error": {}}
    for at, (name, (among, label)) in enumerate(labels.items()):
        told["auc"][name] = auc(rates[among, at], label[among])
        told["auc_placed"][name] = auc(placed[among, at], label[among])
        table = calibration(placed[among, at], label[among])
        told["calibration"][name], told["calibration_error"][name] = table, table_error(table)
    if config.baseline:
        with progress.task("fitting LightGBM beside the towers"):
            scores = click_baseline(rows, parts.train, parts.valid, parts.held)
        told["baseline_auc"] = None if scores is None else auc(scores, clicked)
    best = min(curve, key=lambda entry: sum(entry.get(name, 0.0) for name in TOWERS))
    told |= {
        "consistency": consistency(rates),
        "impressions": len(rows),
        "clicks": int(rows.clicked.sum()),
        "orders": int(rows.ordered.sum()),
        "held_out": len(parts.held),
        "epochs": int(best["epoch"]),
        "curve": curve,
    }
    whole = config.towers.model_copy(update={"epochs": int(best["epoch"])})
    nothing = np.zeros(0, np.int64)
    final, _ = fit_towers(rows, np.arange(len(rows)), nothing, vectors, whole, progress)
    return first, final, told


def fit_on_lists(
    rows: Rows, group: np.ndarray, vectors: np.ndarray, config: ParsConfig, progress: Progress, folds: int = 2
) -> tuple[np.ndarray, Towers, dict[str, Any]]:
    """Rates f32[M, 3] of rows by towers that know nothing of their queries, towers of all rows, and figures.

    ``group`` i64[R] is the query of each request of the rows. The gains stand for clicks.
    """
    own = group[rows.request]
    rates = np.zeros((len(rows), len(TOWERS)), np.float32)
    nothing, epochs = np.zeros(0, np.int64), []
    for fold in range(folds):
        held, rest = np.flatnonzero(own % folds == fold), np.flatnonzero(own % folds != fold)
        if not len(held) or not len(rest):
            continue
        model, curve = fit_towers(rows, rest, held, vectors, config.towers, progress)
        rates[held] = predict(model, rows, held, vectors)
        epochs.append(min(curve, key=lambda entry: entry[TOWERS[0]])["epoch"])
    most = round(float(np.mean(epochs))) if epochs else config.towers.epochs
    whole = config.towers.model_copy(update={"epochs": max(1, most)})
    final, _ = fit_towers(rows, np.arange(len(rows)), nothing, vectors, whole, progress)
    told = {
        "auc": {"ctr": auc(rates[:, 0], rows.clicked > 0)},
        "candidates": len(rows),
        "good": int((rows.clicked > 0).sum()),
        "epochs": whole.epochs,
    }
    return rates, final, told
