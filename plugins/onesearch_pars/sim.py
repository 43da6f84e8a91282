"""The three towers, fitted and judged: on impressions, or, without any, on the gains of lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.progress import Progress
from onesearch.training.pairs import normalise_queries

from onesearch_pars.baseline import click_baseline
from onesearch_pars.config import ParsConfig
from onesearch_pars.measures import auc, calibration, consistency, table_error
from onesearch_pars.samples import Rows
from onesearch_pars.towers import TOWERS, Towers, best_epoch, fit_towers, predict

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

ENOUGH_IMPRESSIONS, ENOUGH_CLICKS, ENOUGH_ORDERS = 500, 30, 30
"""What a log must hold for the towers (and, of orders, for CVR and CTCVR to count) to be worth anything."""
_HELD_SHARE, _VALID_SHARE, _LEAST_HELD = 0.2, 0.1, 30


@dataclass(frozen=True)
class Parted:
    """Which searches are learnt from, stop the training, and judge it: i64 each, none in two of them."""

    train: np.ndarray
    valid: np.ndarray
    held: np.ndarray


def recurring(lists: RankedLists) -> bool:
    """Whether the lists' queries stand among the known pairs: held out was a time, not the queries."""
    return bool(lists.pairs["query"].is_in(normalise_queries(set(lists.queries))).any())


def parted(impressions: Impressions, lists: RankedLists) -> Parted:
    """Part impressions so that neither towers nor λ are judged by what they know.

    Held out is what the lists are judged by: where the lists' queries stand in the log as known pairs (a
    split by time), every search after the newest of those pairs; else every search of one of the lists'
    queries. Where that leaves fewer than :data:`_LEAST_HELD` searches, the newest fifth is held out. The
    newest tenth of the rest stops the training.
    """
    newest = lists.pairs["last_ts"].drop_nulls().max() if "last_ts" in lists.pairs.columns else None
    if recurring(lists) and isinstance(newest, datetime):
        held = impressions.times > newest.timestamp()
    else:
        queries = set(normalise_queries(lists.queries))
        ours = np.array([query in queries for query in impressions.queries], bool)
        held = ours[impressions.query] if len(ours) else np.zeros(0, bool)
    count = len(held)
    if held.sum() < _LEAST_HELD or held.sum() > count / 2:
        held = np.arange(count) >= int(count * (1 - _HELD_SHARE))
    rest = np.flatnonzero(~held)
    stops = np.zeros(count, bool)
    stops[rest[int(len(rest) * (1 - _VALID_SHARE)) :]] = True
    return Parted(np.flatnonzero(~held & ~stops), np.flatnonzero(stops), np.flatnonzero(held))


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
    train, valid, held = (rows.of(requests) for requests in (parts.train, parts.valid, parts.held))
    clicked, ordered = rows.clicked[held] > 0, rows.ordered[held] > 0
    shown = np.ones(len(clicked), bool)
    labels = {"ctr": (shown, clicked), "cvr": (clicked, ordered), "ctcvr": (shown, ordered)}
    told: dict[str, Any] = {"auc": {}, "auc_placed": {}, "calibration": {}, "calibration_error": {}}
    for at, (name, (among, label)) in enumerate(labels.items()):
        told["auc"][name] = auc(rates[among, at], label[among])
        told["auc_placed"][name] = auc(placed[among, at], label[among])
        table = calibration(placed[among, at], label[among])
        told["calibration"][name], told["calibration_error"][name] = table, table_error(table)
    if config.baseline:
        with progress.task("fitting LightGBM beside the towers"):
            for name, stood in (("baseline_auc", False), ("baseline_auc_placed", True)):
                scores = click_baseline(rows, train, valid, held, stood)
                told[name] = None if scores is None else auc(scores, clicked)
    epochs = best_epoch(curve)
    told |= {
        "consistency": consistency(rates),
        "impressions": len(rows),
        "clicks": int(rows.clicked.sum()),
        "orders": int(rows.ordered.sum()),
        "held_out": len(held),
        "epochs": epochs,
        "curve": curve,
    }
    whole = config.towers.model_copy(update={"epochs": epochs})
    every = np.arange(len(rows.counts))
    final, _ = fit_towers(rows, every, np.zeros(0, np.int64), vectors, whole, progress)
    return first, final, told


def fit_on_lists(
    rows: Rows, group: np.ndarray, vectors: np.ndarray, config: ParsConfig, progress: Progress, folds: int = 2
) -> tuple[np.ndarray, Towers, dict[str, Any]]:
    """Rates f32[M, 3] of rows by towers that know nothing of their queries, towers of all rows, and figures.

    ``group`` i64[R] is the query of each request of the rows. The gains stand for clicks.
    """
    rates = np.zeros((len(rows), len(TOWERS)), np.float32)
    epochs = []
    for fold in range(folds):
        held, rest = np.flatnonzero(group % folds == fold), np.flatnonzero(group % folds != fold)
        if len(held) and len(rest):
            model, curve = fit_towers(rows, rest, held, vectors, config.towers, progress)
            rates[rows.of(held)] = predict(model, rows, held, vectors)
            epochs.append(best_epoch(curve))
    most = round(float(np.mean(epochs))) if epochs else config.towers.epochs
    whole = config.towers.model_copy(update={"epochs": max(1, most)})
    every = np.arange(len(rows.counts))
    final, _ = fit_towers(rows, every, np.zeros(0, np.int64), vectors, whole, progress)
    told = {
        "auc": {"ctr": auc(rates[:, 0], rows.clicked > 0)},
        "candidates": len(rows),
        "good": int((rows.clicked > 0).sum()),
        "epochs": whole.epochs,
    }
    return rates, final, told
