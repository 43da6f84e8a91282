"""``onesearch bench towers``: the three towers on the day after the log, beside a simple baseline.

Simulated shoppers of a demo store search on the next day, a release answers, and what they click and order
is held against what the towers of a ``pars`` release say of it: whether the probabilities are true, and
whether they tell what is clicked from what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from onesearch.compiling.runtime import Runtime
from onesearch.data.simulation import SimulatedShoppers
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.arms import Arm, Asked, Releases
from onesearch.figures import new_figure, write_png
from onesearch.progress import Progress, SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog
from onesearch.training.attribution import exposures
from onesearch.training.impressions import Impressions, impressions_of
from onesearch.training.split import slice_start

from onesearch_pars.baseline import click_baseline
from onesearch_pars.measures import (
    auc,
    auc_change,
    auc_within,
    calibration,
    consistency,
    table_error,
    told,
)
from onesearch_pars.pars_learner import ParsLearner
from onesearch_pars.samples import Rows, impression_rows
from onesearch_pars.space import FeatureSpace

TOWERS = ("ctr", "cvr", "ctcvr")
_VALID = 0.1
_BATCH = 256


def run(
    release: Path,
    store: Path,
    shown_by: Path | None = None,
    seeds: int = 3,
    searches: int = 2_000,
    plot: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Towers of a release on the simulated day after the log: AUC beside LightGBM, and calibration.

    Args:
        release: a release with the reward pars.
        store: the simulated shop that it was trained on.
        shown_by: the release that answers on that day; the release itself without it.
        seeds: draws of requests and luck.
        searches: requests of each seed.
        plot: where a picture of predicted against observed rates goes (PNG).

    Returns:
        ``rows``: {``tower``, ``rows``, ``positives``, ``auc`` (as if all stood first), ``auc_placed``,
        ``auc_within`` (as ``auc``, of the pairs that stood at the same place alone, which no guess of the
        place helps), ``calibration_error``}, and for clicks LightGBM on counters and similarity, which is
        told no places but in ``auc_placed``, and the same asked as the towers are: as if all stood first.
        ``over_lightgbm``, by how much the AUC of the CTR tower is above it (``change``, ``low``, ``high``, a
        paired bootstrap over searches): see ``_Theirs.below``; ``calibration``: tables by tower, in tenths
        of the predictions; ``consistency`` of CTCVR with CTR·CVR; ``searches``; ``simulated``.
    """
    import torch

    torch.set_num_threads(2)
    progress = progress or SilentProgress()
    opened, shop = Release.open(release), Store.open(store)
    learner = opened.learner("reward")
    if not isinstance(learner, ParsLearner) or learner.towers is None:
        raise UsageError(f'{release}: its reward has no towers; train one with [reward] name = "pars"')
    shoppers = SimulatedShoppers.open(shop)
    answering = opened if shown_by is None else Release.open(shown_by)
    log = EventLog.of_store(shop)
    events = _next_day(shoppers, answering, log, seeds, searches, progress)
    asked = _impressions(shop, events, opened, log, progress)
    ours = _rows(asked, opened, learner, progress)
    return _figures(ours, asked, opened, learner, plot, progress)


def _next_day(
    shoppers: SimulatedShoppers,
    release: Release,
    log: EventLog,
    seeds: int,
    searches: int,
    progress: Progress,
) -> pl.DataFrame:
    """What shoppers do on the day after the log with the release's answers."""
    arms = Releases([Arm("", release)], Runtime(threads=release.config.serving.threads))
    ids = release.index.items["item_id"].to_list()
    parts = []
    for seed in range(seeds):
        requests = shoppers.requests(searches, seed)
        moments = np.array([int(one.ts.timestamp()) for one in requests.requests], np.int64)
        states = log.states_before([one.user_id for one in requests.requests], moments)
        answers = arms.answer(Asked([one.query for one in requests.requests], states), progress)[""]
        lists = [[ids[at] for at in row if at >= 0] for row in answers.shown.tolist()]
        parts.append(shoppers.act(requests, lists, seed, release.name).events)
    return pl.concat(parts)


def _impressions(
    shop: Store, events: pl.DataFrame, release: Release, log: EventLog, progress: Progress
) -> Impressions:
    """The log and the day after it, as a reward learns from them."""
    columns = events.columns
    logged = shop.interactions().select(columns).collect().cast(events.schema)
    tokenizer = Pipeline.of_release(release).tokenizer

    def embed(texts: list[str]) -> np.ndarray:
        parts = [tokenizer.embed(texts[at : at + _BATCH], "query") for at in range(0, len(texts), _BATCH)]
        return np.concatenate(parts).astype(np.float32)

    with progress.task("joining what was shown and what came of it"):
        return impressions_of(
            exposures(pl.concat([logged, events])),
            shop.items(),
            shop.relevance().collect(),
            embed,
            log.states_before,
            half_life_days=release.config.training.half_life_days,
            learnt_until=slice_start(shop),
        )


@dataclass(frozen=True)
class _Told:
    """Rows of all impressions, and which requests are of the log and of the day after it."""

    rows: Rows
    logged: np.ndarray
    next_day: np.ndarray


def _rows(asked: Impressions, release: Release, learner: ParsLearner, progress: Progress) -> _Told:
    assert learner.fitted is not None, "a learner that was loaded is fitted"
    own, index = learner.fitted.listwise, release.index
    rows = impression_rows(
        asked, own.maker(index), own.tastes, FeatureSpace(index.items, index.vectors), progress
    )
    midnight = (int(asked.times.max()) // 86_400) * 86_400
    later = asked.times >= midnight
    return _Told(rows, np.flatnonzero(~later), np.flatnonzero(later))


def _figures(
    found: _Told,
    asked: Impressions,
    release: Release,
    learner: ParsLearner,
    plot: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    from onesearch_pars.towers import FittedTowers, predict

    assert learner.towers is not None
    rows, vectors = found.rows, release.index.vectors
    model = FittedTowers.of_arrays(learner.towers, learner.settings.towers)
    first, placed = (predict(model, rows, found.next_day, vectors, stood) for stood in (False, True))
    held = rows.of(found.next_day)
    place = rows.place[held]
    clicked, ordered = rows.clicked[held] > 0, rows.ordered[held] > 0
    shown = np.ones(len(held), bool)
    labels = {"ctr": (shown, clicked), "cvr": (clicked, ordered), "ctcvr": (shown, ordered)}
    told_rows: list[dict[str, Any]] = []
    tables: dict[str, list[dict[str, float]]] = {}
    for at, (tower, (among, label)) in enumerate(labels.items()):
        tables[tower] = calibration(placed[among, at], label[among])
        told_rows.append(
            {
                "tower": tower,
                "rows": int(among.sum()),
                "positives": int(label[among].sum()),
                "auc": auc(first[among, at], label[among]),
                "auc_placed": auc(placed[among, at], label[among]),
                "auc_within": auc_within(first[among, at], label[among], place[among]),
                "calibration_error": table_error(tables[tower]),
            }
        )
    stop = int(len(found.logged) * (1 - _VALID))
    train, valid = rows.of(found.logged[:stop]), rows.of(found.logged[stop:])
    over: dict[str, dict[str, float]] = {}
    with progress.task("fitting LightGBM beside the towers"):
        plain, knowing = (click_baseline(rows, train, valid, stood) for stood in (False, True))
    if plain is not None and knowing is not None:
        theirs = _Theirs(plain.score(rows, held), knowing.score(rows, held), knowing.score(rows, held, True))
        told_rows += theirs.rows(clicked, place)
        group = np.repeat(np.arange(len(found.next_day)), rows.counts[found.next_day])
        with progress.task("comparing the CTR tower with LightGBM"):
            over = theirs.below(first[:, 0], placed[:, 0], clicked, place, group)
    if plot is not None:
        draw(tables, plot, f"{release.name}: the simulated day after the log")
    answer = {
        "rows": told_rows,
        "over_lightgbm": over,
        "calibration": tables,
        "consistency": consistency(placed),
    }
    return {**told(answer), "searches": len(found.next_day), "simulated": True}


@dataclass(frozen=True)
class _Theirs:
    """What LightGBM says of N impressions, f64[N] each.

    Attributes:
        plain: learnt without places. placed: learnt with them and told them.
        first: learnt with them, asked as the towers are: as if all stood first.
    """

    plain: np.ndarray
    placed: np.ndarray
    first: np.ndarray

    def rows(self, clicked: np.ndarray, place: np.ndarray) -> list[dict[str, Any]]:
        """Rows of the table."""
        common = {"rows": len(clicked), "positives": int(clicked.sum())}
        return [
            {
                "tower": "LightGBM, clicks",
                **common,
                "auc": auc(self.plain, clicked),
                "auc_placed": auc(self.placed, clicked),
                "auc_within": auc_within(self.plain, clicked, place),
                "calibration_error": table_error(calibration(self.placed, clicked)),
            },
            {
                "tower": "LightGBM, clicks, as if all stood first",
                **common,
                "auc": auc(self.first, clicked),
                "auc_placed": auc(self.placed, clicked),
                "auc_within": auc_within(self.first, clicked, place),
                "calibration_error": table_error(calibration(self.placed, clicked)),
            },
        ]

    def below(
        self,
        first: np.ndarray,
        placed: np.ndarray,
        clicked: np.ndarray,
        place: np.ndarray,
        group: np.ndarray,
    ) -> dict[str, dict[str, float]]:
        """By how much the tower's AUC, asked for the ``first`` place and ``placed``, is above theirs.

        ``without places``: LightGBM never knew places, the tower is asked for the first. ``placed``: both are
        told. ``as if first``: both learnt with places and are asked for the first. ``within place``: as
        ``without places``, by pairs that stood at the same place alone; ``within place, as if first`` and
        ``within place, placed`` likewise.
        """
        pairs = {"without places": (first, self.plain), "as if first": (first, self.first)}
        pairs["placed"] = (placed, self.placed)
        over = {name: auc_change(ours, theirs, clicked, group) for name, (ours, theirs) in pairs.items()}
        for name, (ours, theirs) in pairs.items():
            within = "within place" if name == "without places" else f"within place, {name}"
            over[within] = auc_change(ours, theirs, clicked, group, place)
        return over


def draw(tables: dict[str, list[dict[str, float]]], path: Path, title: str) -> Path:
    """Write a PNG: a panel a tower, observed against predicted rates, tenth by tenth, both logarithmic."""
    figure = new_figure(11, 3.9)
    panels = np.atleast_1d(figure.subplots(1, len(tables)))
    for axis, (tower, table) in zip(panels, tables.items(), strict=True):
        _panel(axis, tower, table)
    panels[0].set_ylabel("observed rate")
    figure.suptitle(f"{title} (tenths of the predictions, 95 % intervals)", fontsize=11, x=0.01, ha="left")
    return write_png(figure, path)


def _panel(axis: Any, tower: str, table: Sequence[dict[str, float]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    predicted = np.array([entry["predicted"] for entry in table])
    observed = np.array([entry["observed"] for entry in table])
    count = np.array([entry["rows"] for entry in table])
    # Wilson's interval: of few positives as well.
    middle = (observed + 1.92 / count) / (1 + 3.84 / count)
    half = 1.96 / (1 + 3.84 / count) * np.sqrt(observed * (1 - observed) / count + 0.96 / count**2)
    low, high = np.maximum(middle - half, 1e-9), middle + half
    least = min(float(predicted.min()), float(low[observed > 0].min(initial=1.0)))
    edges = [least / 1.3, max(float(predicted.max()), float(high.max())) * 1.2]
    axis.plot(edges, edges, color="#8a8f98", linewidth=1, linestyle="--")
    axis.vlines(predicted, low, high, color="#0b6e4f", alpha=0.45, linewidth=2)
    seen = observed > 0
    axis.plot(predicted[seen], observed[seen], "o", color="#0b6e4f", markersize=5)
    axis.set(xscale="log", yscale="log", xlim=edges, ylim=edges, xlabel="predicted rate")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        side.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        side.set_minor_formatter(NullFormatter())
    axis.set_title(f"{tower.upper()}, {int(count.sum()):,} rows", fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
