"""The three towers, fitted and judged: on impressions, or, without any, on the gains of lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from onesearch.progress import Progress
from onesearch.training.pairs import normalise_queries

from onesearch_pars.baseline import click_baseline
from onesearch_pars.config import ParsConfig
from onesearch_pars.exposed import looks
from onesearch_pars.measures import auc, calibration, consistency, table_error
from onesearch_pars.samples import Rows
from onesearch_pars.towers import TOWERS, FittedTowers, best_epoch, fit_towers, predict

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

ENOUGH_IMPRESSIONS, ENOUGH_CLICKS, ENOUGH_ORDERS = 500, 30, 30
"""What a log must hold for the towers (and, of orders, for CVR and CTCVR to count) to be worth anything."""
_HELD_SHARE, _VALID_SHARE, _LEAST_HELD = 0.2, 0.1, 30


@dataclass(frozen=True)
class Parted:
    """Which searches are learnt from, stop the training, and judge it: i64 each, none in two of them.

    ``fold`` i64 is the part, 0 or 1, of each that judges (:func:`fold_of`).
    """

    train: np.ndarray
    valid: np.ndarray
    held: np.ndarray
    fold: np.ndarray


FOLDS = 2


def fold_of(query: str) -> int:
    """The part of what is held out that a normalised query belongs to."""
    return crc32(query.encode("utf-8", "surrogatepass")) % FOLDS


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
    judging = np.flatnonzero(held)
    fold = np.array([fold_of(impressions.queries[at]) for at in impressions.query[judging]], np.int64)
    return Parted(np.flatnonzero(~held & ~stops), np.flatnonzero(stops), judging, fold)


def fit_on_impressions(
    rows: Rows, parts: Parted, vectors: np.ndarray, config: ParsConfig, progress: Progress
) -> tuple[list[FittedTowers], FittedTowers, dict[str, Any]]:
    """Towers that know nothing of one part of the held-out rows, for each; towers of all rows; and figures.

    The towers that judge a part learn from the other: only what is held out is fresh, and who never saw how
    similar query and item are cannot be asked about it.

    Returns:
        Figures, of the held-out rows: ``auc`` by tower (as if all stood first), ``auc_placed``,
        ``baseline_auc`` of LightGBM's CTR, ``calibration`` and ``calibration_error`` by tower,
        ``consistency`` of CTCVR with CTR·CVR, ``looks`` (:func:`~onesearch_pars.exposed.looks`); and how much
        there was to learn from.
    """
    models, curves = [], []
    held, owner = rows.of(parts.held), np.repeat(parts.fold, rows.counts[parts.held])
    rates, placed = (np.zeros((len(held), len(TOWERS)), np.float32) for _ in range(2))
    counted: dict[str, np.ndarray] = {}
    for fold in range(FOLDS):
        others, own = parts.held[parts.fold != fold], parts.held[parts.fold == fold]
        train = np.sort(np.concatenate([parts.train, others]))
        model, curve = fit_towers(rows, train, parts.valid, vectors, config.towers, progress)
        for found, stood in ((rates, False), (placed, True)):
            found[owner == fold] = predict(model, rows, own, vectors, stood)
        if config.baseline and len(own):
            with progress.task("fitting LightGBM beside the towers"):
                _add_baseline(counted, rows, train, parts.valid, own, owner == fold)
        models.append(model)
        curves.append(curve)
    clicked, ordered = rows.clicked[held] > 0, rows.ordered[held] > 0
    shown = np.ones(len(clicked), bool)
    labels = {"ctr": (shown, clicked), "cvr": (clicked, ordered), "ctcvr": (shown, ordered)}
    told: dict[str, Any] = {"auc": {}, "auc_placed": {}, "calibration": {}, "calibration_error": {}}
    for at, (name, (among, label)) in enumerate(labels.items()):
        told["auc"][name] = auc(rates[among, at], label[among])
        told["auc_placed"][name] = auc(placed[among, at], label[among])
        table = calibration(placed[among, at], label[among])
        told["calibration"][name], told["calibration_error"][name] = table, table_error(table)
    for name, scores in counted.items():
        told[name] = auc(scores, clicked)
    epochs = round(float(np.mean([best_epoch(curve) for curve in curves])))
    trees = round(float(np.mean([model.rounds for model in models])))
    told |= {
        "consistency": consistency(rates),
        "looks": looks(rates[:, 0], placed[:, 0], rows.place[held]),
        "impressions": len(rows),
        "clicks": int(rows.clicked.sum()),
        "orders": int(rows.ordered.sum()),
        "held_out": len(held),
        "epochs": epochs,
        "trees": trees,
        "curve": curves[0],
    }
    whole = config.towers.model_copy(update={"epochs": epochs, "trees": trees})
    every = np.arange(len(rows.counts))
    final, _ = fit_towers(rows, every, np.zeros(0, np.int64), vectors, whole, progress)
    return models, final, told


def _add_baseline(
    found: dict[str, np.ndarray],
    rows: Rows,
    train: np.ndarray,
    valid: np.ndarray,
    own: np.ndarray,
    at: np.ndarray,
) -> None:
    """Put the baseline's scores of some held-out searches where they belong."""
    for name, stood in (("baseline_auc", False), ("baseline_auc_placed", True)):
        baseline = click_baseline(rows, rows.of(train), rows.of(valid), stood)
        if baseline is not None:
            found.setdefault(name, np.zeros(len(at)))[at] = baseline.score(rows, rows.of(own))


def fit_on_lists(
    rows: Rows, group: np.ndarray, vectors: np.ndarray, config: ParsConfig, progress: Progress, folds: int = 2
) -> tuple[np.ndarray, FittedTowers, dict[str, Any]]:
    """Rates f32[M, 3] of rows by towers that know nothing of their queries, towers of all rows, and figures.

    ``group`` i64[R] is the query of each request of the rows. The gains stand for clicks.
    """
    rates = np.zeros((len(rows), len(TOWERS)), np.float32)
    epochs, trees = [], []
    for fold in range(folds):
        held, rest = np.flatnonzero(group % folds == fold), np.flatnonzero(group % folds != fold)
        if len(held) and len(rest):
            model, curve = fit_towers(rows, rest, held, vectors, config.towers, progress)
            rates[rows.of(held)] = predict(model, rows, held, vectors)
            epochs.append(best_epoch(curve))
            trees.append(model.rounds)
    most = round(float(np.mean(epochs))) if epochs else config.towers.epochs
    enough = round(float(np.mean(trees))) if trees else config.towers.trees
    whole = config.towers.model_copy(update={"epochs": max(1, most), "trees": enough})
    every = np.arange(len(rows.counts))
    final, _ = fit_towers(rows, every, np.zeros(0, np.int64), vectors, whole, progress)
    told = {
        "auc": {"ctr": auc(rates[:, 0], rows.clicked > 0)},
        "candidates": len(rows),
        "good": int((rows.clicked > 0).sum()),
        "epochs": whole.epochs,
    }
    return rates, final, told
