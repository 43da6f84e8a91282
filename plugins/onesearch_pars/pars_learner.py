"""The learning half of the reward of PARS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from onesearch.contracts.reward import RewardLearner
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from onesearch.shoppers.tastes import Tastes
from onesearch.training.counters import COUNTS
from onesearch.training.pairs import normalise_queries
from pydantic import BaseModel

from onesearch_pars.artifact import Fitted, FittedPars, read_arrays, write_arrays
from onesearch_pars.config import ParsConfig
from onesearch_pars.counts import Counts
from onesearch_pars.exposed import Exposed
from onesearch_pars.features import RELEVANT, FeatureMaker
from onesearch_pars.listwise import ListwiseFit, fit_listwise, make_fields, make_maker, serving_evidence
from onesearch_pars.measures import ndcg, told
from onesearch_pars.samples import RELEVANT_COLUMNS, Rows, impression_rows, known_counts, list_rows
from onesearch_pars.score import Judged, Relevance, fit_relevance
from onesearch_pars.space import FeatureSpace
from onesearch_pars.tower_graph import FILE as GRAPH
from onesearch_pars.tower_graph import write_graph
from onesearch_pars.tuning import (
    ALONE,
    PARTS,
    RELEVANCE_FACTOR,
    Lists,
    cross_validated,
    tune,
    untuned,
    weights_of,
)

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists

TOWERS_FILE = "towers.safetensors"
Source = Literal["impressions", "lists", "relevance"]
_NOTES = {
    "impressions": "towers learn from impressions",
    "lists": "no impressions to learn from: CTR learns from the gains of lists, CVR and CTCVR are left out",
    "relevance": "no clicks to learn from: the order is that of the relevance reward",
}
_UNJUDGED = "; the embeddings learnt from the lists' answers, so λ are the defaults instead of tuned ones"


@dataclass(frozen=True)
class _Towers:
    """What became of the towers.

    Attributes:
        arrays: of the towers to serve; None: there are none.
        rates: f32[M, 3], of the tuning lists' candidates, by towers that do not know the lists' answers.
        figures: what is told of them. frozen: bool[5], parts that must not count.
        similar: whether they may be told how similar query and item are.
        judged: whether the embeddings do not know the lists' answers, so that the lists can judge the parts.
        note: what has to be said.
        exposed: what the lists' searches showed; None where nobody knows.
    """

    arrays: dict[str, np.ndarray] | None
    rates: np.ndarray
    figures: dict[str, Any]
    frozen: np.ndarray
    similar: bool = False
    judged: bool = True
    note: str = ""
    exposed: Exposed | None = None

    @classmethod
    def none(cls, mask: np.ndarray) -> _Towers:
        """No towers, for lists of candidates bool[Q, K]."""
        rates = np.zeros((int(mask.sum()), 3), np.float32)
        return cls(None, rates, {}, np.array([True, True, True, True, False]))


class ParsLearner(RewardLearner):
    """Fits list-wise score, relevance, three towers and λ."""

    Config = ParsConfig
    reads_impressions = True

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.settings = ParsConfig.model_validate(config.model_dump())
        self.fitted: FittedPars | None = None
        self.towers: dict[str, np.ndarray] | None = None

    def fit(
        self, lists: RankedLists, work: Path, progress: Progress, impressions: Impressions | None = None
    ) -> dict[str, Any]:
        """Fit and judge.

        The towers learn from impressions; where there are none, or too few, from the gains of the lists;
        where nothing was ever clicked, not at all, and the order is that of the relevance reward. ``source``
        and ``note`` of the figures say which.

        Args:
            lists: as for every reward; λ are tuned on them.
            work: unused; a fit takes minutes.
            progress: told.
            impressions: the log (:func:`onesearch.training.impressions.impressions_of`).

        Returns:
            Figures: those of the relevance reward; ``relevance``, see
            :func:`~onesearch_pars.score.fit_relevance`; ``towers``, see :mod:`onesearch_pars.sim`;
            ``lambdas``, ``mu`` and ``tuned``; ``relevance_of_first_ten``, mean S_rel by ``listwise`` and
            ``reward``; ``ndcg_10`` of the held-out lists' gains, of ``generator``, ``listwise`` and
            ``reward`` (both cross-validated over queries).
        """
        settings = self.settings
        analyser, fields = make_fields(lists, settings, progress)
        tastes = Tastes.build(lists.items)
        maker = make_maker(lists, analyser, fields, tastes)
        listwise = fit_listwise(lists, maker, settings.l2, progress)
        space = FeatureSpace(lists.items, lists.vectors)
        chosen = self._chosen(lists)
        features = listwise.features[listwise.like[chosen]]
        mask = lists.candidates.items[chosen] >= 0
        with progress.task("fitting relevance"):
            judged = _judged(lists, chosen, features, maker, impressions)
            relevance, quality = fit_relevance(judged, features[mask][:, RELEVANT_COLUMNS], settings.l2)
        source = _source(lists, impressions)
        found = _Towers.none(mask)
        if source == "impressions" and impressions is not None:
            seen = impression_rows(impressions, maker, tastes, space, progress)
            found = self._towers_of_log(lists, chosen, features, space, impressions, seen, progress)
        elif source == "lists":
            found = self._towers_of_lists(lists, chosen, features, space, progress)
        self.towers = found.arrays
        tuning = _tuning_lists(lists, chosen, listwise, relevance, features, found)
        lambdas, tuned, reached = self._lambdas(tuning, found, progress)
        evidence = serving_evidence(lists)
        kept = Fitted(settings.language, listwise.weights, fields, evidence, tastes)
        counts = _serving_counts(lists, impressions if source == "impressions" else None)
        self.fitted = FittedPars(kept, relevance, counts, lambdas, self.towers is not None, found.similar)
        return told(
            {
                **listwise.figures,
                "source": source,
                "note": _NOTES[source] + found.note + ("" if found.judged else _UNJUDGED),
                "relevance": quality,
                "towers": found.figures,
                **tuned,
                "ndcg_10": {
                    "generator": ndcg(lists.candidates.log_probs[chosen], tuning.gain, mask),
                    "listwise": ndcg(tuning.parts[..., -1], tuning.gain, mask),
                    "reward": reached,
                },
            }
        )

    def _chosen(self, lists: RankedLists) -> np.ndarray:
        """Lists to tune on, i64: those with a gain, at most so many, drawn by the seed."""
        useful = np.flatnonzero((lists.gain > 0).any(axis=1))
        useful = useful if len(useful) else np.arange(len(lists.queries))
        if len(useful) > self.settings.tuning_lists:
            random = np.random.default_rng([self.settings.towers.seed, 0x7C])
            useful = random.choice(useful, self.settings.tuning_lists, replace=False)
        return np.sort(useful)

    def _towers_of_log(
        self,
        lists: RankedLists,
        chosen: np.ndarray,
        features: np.ndarray,
        space: FeatureSpace,
        impressions: Impressions,
        seen: Rows,
        progress: Progress,
    ) -> _Towers:
        from onesearch_pars.sim import (
            ENOUGH_IMPRESSIONS,
            ENOUGH_ORDERS,
            fit_on_impressions,
            fold_of,
            parted,
            recurring,
        )
        from onesearch_pars.towers import predict

        similar = bool(seen.counts[impressions.fresh].sum() >= ENOUGH_IMPRESSIONS)
        parts = parted(impressions, lists)
        models, final, figures = fit_on_impressions(seen, parts, lists.vectors, self.settings, progress)
        rows = list_rows(lists, chosen, features, space, similar, progress)
        rates = np.zeros((len(rows), 3), np.float32)
        fold = np.array([fold_of(query) for query in normalise_queries([lists.queries[at] for at in chosen])])
        for number, model in enumerate(models):
            own = np.flatnonzero(fold == number)
            rates[rows.of(own)] = predict(model, rows, own, lists.vectors)
        few = figures["orders"] < ENOUGH_ORDERS
        note = "" if similar else "; they do not know how similar query and item are, as no search is fresh"
        note += f"; {figures['orders']} orders are too few for CVR and CTCVR to count" if few else ""
        figures["similar"] = similar
        frozen = np.array([False, few, few, False, False])
        judged = similar or not recurring(lists)
        exposed = Exposed.of_searches(impressions, parts.held, np.array(figures["looks"]))
        return _Towers(final.arrays(), rates, figures, frozen, similar, judged, note, exposed)

    def _towers_of_lists(
        self,
        lists: RankedLists,
        chosen: np.ndarray,
        features: np.ndarray,
        space: FeatureSpace,
        progress: Progress,
    ) -> _Towers:
        from onesearch_pars.sim import fit_on_lists, recurring

        # Of searches that recur the embeddings know the answers; of queries held out they do not.
        similar = not recurring(lists)
        rows = list_rows(lists, chosen, features, space, similar, progress)
        group = np.unique(lists.queries, return_inverse=True)[1].reshape(-1)[chosen]
        rates, final, figures = fit_on_lists(rows, group, lists.vectors, self.settings, progress)
        figures["similar"] = similar
        frozen = np.array([False, True, True, False, False])
        return _Towers(final.arrays(), rates, figures, frozen, similar, judged=similar)

    def _lambdas(
        self, tuning: Lists, found: _Towers, progress: Progress
    ) -> tuple[np.ndarray, dict[str, Any], float]:
        """λ f32[5], what is told of them, and the NDCG@10 they reach."""
        given, frozen = self.settings.lambdas, found.frozen
        factors = np.where(np.array(PARTS) == "relevance", RELEVANCE_FACTOR, 1.0)
        spread = tuning.spreads()
        if given is None and found.judged:
            with progress.task("tuning λ"):
                mu, reached = tune(tuning, frozen), cross_validated(tuning, frozen)
        else:
            if given is None:
                mu = untuned(tuning, frozen)
            else:
                mu = np.where(frozen, 0.0, np.array(given) * factors * spread)
            reached = _mean(tuning.ndcg(weights_of(mu, spread)))
        # Alone it stays in its own units: the relevance reward itself.
        lambdas = weights_of(mu, spread) / factors if mu[:-1].any() else ALONE
        named = {"lambdas": lambdas, "mu": mu}
        said: dict[str, Any] = {
            name: dict(zip(PARTS, values.tolist(), strict=True)) for name, values in named.items()
        }
        said["relevance_of_first_ten"] = {
            "listwise": _mean(tuning.relevance(weights_of(ALONE, spread))),
            "reward": _mean(tuning.relevance(weights_of(mu, spread))),
        }
        return lambdas.astype(np.float32), said | {"tuned": given is None and found.judged}, reached

    def save(self, folder: Path) -> None:
        """Write ``pars.json``, ``pars.safetensors`` and, with towers, ``towers.safetensors``."""
        self._fitted().save(folder)
        if self.towers is not None:
            write_arrays(folder / TOWERS_FILE, self.towers)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        learner = cls(config)
        learner.fitted = FittedPars.load(folder)
        if learner.fitted.towers:
            learner.towers = read_arrays(folder / TOWERS_FILE)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``pars.json``, ``pars.safetensors`` and, with towers, ``towers.onnx``."""
        self._fitted().save(folder)
        if self.towers is not None:
            write_graph(self.towers, folder / GRAPH)

    def _fitted(self) -> FittedPars:
        if self.fitted is None:
            raise OneSearchError("the reward of PARS has to be fitted before it can be saved")
        return self.fitted


def _mean(each: np.ndarray) -> float:
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def _source(lists: RankedLists, impressions: Impressions | None) -> Source:
    from onesearch_pars.sim import ENOUGH_CLICKS, ENOUGH_IMPRESSIONS

    if impressions is not None:
        enough = len(impressions) >= ENOUGH_IMPRESSIONS and impressions.clicked.sum() >= ENOUGH_CLICKS
        if enough and not impressions.clicked.all():
            return "impressions"
    logged = [lists.pairs[name].sum() for name in ("clicks", "orders") if name in lists.pairs.columns]
    good = (lists.gain > 0) & (lists.candidates.items >= 0)
    return "lists" if sum(logged) > 0 and good.any(axis=1).sum() >= ENOUGH_CLICKS else "relevance"


def _judged(
    lists: RankedLists,
    chosen: np.ndarray,
    features: np.ndarray,
    maker: FeatureMaker,
    impressions: Impressions | None,
) -> Judged:
    """Judged pairs: those of the log's, and those among the lists' candidates.

    What stands in a list and was not judged counts as irrelevant, all of it together as much as what was
    judged there: judges see little of what a search could go wrong with. It counts for no figure, though.
    """
    parts = [_judged_candidates(lists, chosen, features)]
    if impressions is not None and len(impressions.grade):
        order = np.argsort(impressions.judged_query, kind="stable")
        query = impressions.judged_query[order]
        matching = [np.zeros((0, len(RELEVANT)), np.float32)]
        for rows in np.split(order, np.flatnonzero(np.diff(query)) + 1):
            at = impressions.judged_query[rows[0]]
            items = impressions.judged_item[rows]
            matching.append(maker.relevant(impressions.queries[at], impressions.query_vecs[at], items))
        weight = np.ones(len(order), np.float32)
        grade = impressions.grade[order]
        # Numbers of queries of the two sources must not meet.
        told_all = np.ones(len(order), bool)
        parts.append(Judged(np.concatenate(matching), grade, -1 - query.astype(np.int64), weight, told_all))
    return Judged(
        np.concatenate([part.matching for part in parts]),
        np.concatenate([part.grade for part in parts]),
        np.concatenate([part.query for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.judged for part in parts]),
    )


def _judged_candidates(lists: RankedLists, chosen: np.ndarray, features: np.ndarray) -> Judged:
    pairs = lists.pairs if lists.serving_pairs is None else lists.serving_pairs
    asked = np.unique(lists.queries, return_inverse=True)
    numbers, first = np.unique(asked[1].reshape(-1)[chosen], return_index=True)
    at = chosen[first]
    items = lists.candidates.items[at]
    if "grade" not in pairs.columns or not len(at):
        return Judged.none()
    names = pl.DataFrame({"query": [lists.queries[row] for row in at], "row": np.arange(len(at))})
    known = pairs.filter(pl.col("grade").is_not_null()).join(names, on="query", how="inner")
    grade = np.full(items.shape, np.nan, np.float32)
    for row, own in known.group_by("row"):
        table = dict(zip(own["item"].to_list(), own["grade"].to_list(), strict=True))
        grade[row[0]] = [table.get(item, np.nan) for item in items[row[0]].tolist()]
    real = items >= 0
    graded: np.ndarray = np.asarray(np.isfinite(grade))
    lists_judged = np.any(graded, axis=1, keepdims=True) & real
    others = (lists_judged & ~graded).sum(axis=1, keepdims=True)
    weight = np.where(graded, 1.0, graded.sum(axis=1, keepdims=True) / np.maximum(others, 1))
    rows, columns = np.nonzero(lists_judged)
    return Judged(
        features[first][rows, columns][:, RELEVANT_COLUMNS],
        np.nan_to_num(grade[rows, columns]),
        numbers[rows].astype(np.int64),
        weight[rows, columns].astype(np.float32),
        graded[rows, columns],
    )


def _tuning_lists(
    lists: RankedLists,
    chosen: np.ndarray,
    listwise: ListwiseFit,
    relevance: Relevance,
    features: np.ndarray,
    towers: _Towers,
) -> Lists:
    mask = lists.candidates.items[chosen] >= 0
    parts = np.zeros((*mask.shape, len(PARTS)), np.float32)
    parts[mask, :3] = towers.rates
    parts[mask, 3] = relevance(features[mask][:, RELEVANT_COLUMNS])
    parts[mask, 4] = listwise.scores[listwise.like[chosen]][mask]
    group = np.unique(lists.queries, return_inverse=True)[1].reshape(-1)[chosen]
    gain = np.where(mask, lists.gain[chosen], 0).astype(np.float32)
    if towers.exposed is None:
        return Lists(parts, gain, mask, group, mask, gain)
    queries = normalise_queries([lists.queries[row] for row in chosen])
    shown, times = towers.exposed.of(queries, lists.candidates.items[chosen])
    return Lists(parts, gain, mask, group, mask & (shown | (gain > 0)), gain * times)


def _serving_counts(lists: RankedLists, impressions: Impressions | None) -> Counts:
    if impressions is not None:
        return Counts.build(impressions.pair_counts.select("query", "item", *COUNTS), impressions.item_counts)
    pairs = lists.pairs if lists.serving_pairs is None else lists.serving_pairs
    return known_counts(pairs, len(lists.vectors))
