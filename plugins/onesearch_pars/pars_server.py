"""The serving half of the reward of PARS: numpy and one small graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from onesearch.compiling.runtime import Session
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates, RewardServer
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex
from onesearch.training.pairs import normalise_queries
from pydantic import BaseModel

from onesearch_pars.artifact import PARS_ARRAYS, FittedPars
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.features import FeatureMaker
from onesearch_pars.newcomers import NO_TEXTS, Texts, carried, counted
from onesearch_pars.samples import MATCHING_COLUMNS, RELEVANT_COLUMNS, TASTE_COLUMNS
from onesearch_pars.space import FeatureSpace, log_popularity, stacked
from onesearch_pars.tower_graph import FILE as GRAPH
from onesearch_pars.tuning import PARTS, RELEVANCE_FACTOR


class ParsServer(RewardServer):
    """``R = λ1·CTR + λ2·CVR + λ3·CTCVR + 10·λ4·S_rel + λ5·listwise``, told by part."""

    parts = PARTS

    def __init__(
        self,
        fitted: FittedPars,
        maker: FeatureMaker,
        space: FeatureSpace,
        popularity: np.ndarray,
        towers: Session | None,
        config: RelevanceConfig,
        texts: Texts = NO_TEXTS,
    ) -> None:
        """``popularity`` f32[N]; ``towers`` None: there are none, and their parts are 0; ``texts`` are those
        that ``fitted`` got while serving."""
        self._config, self._texts = config, texts
        self._fitted, self._maker, self._space, self._towers = fitted, maker, space, towers
        self._log_popularity = log_popularity(popularity)
        factors = np.where(np.array(PARTS) == "relevance", RELEVANCE_FACTOR, 1.0)
        self._weights = (fitted.lambdas * factors).astype(np.float32)
        self._asks_towers = towers is not None and bool(self._weights[:3].any())

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open what the learner exported, over the catalogue of ``context``."""
        fitted, index = FittedPars.load(folder), context.index
        settings = config if isinstance(config, RelevanceConfig) else RelevanceConfig()
        texts = Texts.of(index.newcomers)
        if len(fitted.listwise.fields.title) != len(fitted.counts.alone):
            raise ArtifactError(f"{folder / PARS_ARRAYS}: counts and words are of different catalogues")
        try:
            fitted = _carried(fitted, texts, index, settings)
        except ArtifactError as error:
            raise ArtifactError(f"{folder / PARS_ARRAYS}: {error}") from error
        towers = context.runtime.session(folder / GRAPH) if fitted.towers else None
        return cls._over(index, fitted, towers, settings, texts)

    def renewed(self, context: ServingContext) -> Self:
        """Over another generation: words of new items come in, the towers are shared."""
        index, texts = context.index, Texts.of(context.index.newcomers)
        fitted = _carried(self._fitted, texts.beside(self._texts), index, self._config)
        return self._over(index, fitted, self._towers, self._config, texts)

    @classmethod
    def _over(
        cls,
        index: CatalogueIndex,
        fitted: FittedPars,
        towers: Session | None,
        config: RelevanceConfig,
        texts: Texts,
    ) -> Self:
        maker = fitted.listwise.maker(index)
        space = FeatureSpace(index.items, index.vectors, index.keys)
        return cls(fitted, maker, space, index.popularity, towers, config, texts)

    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Totals f32[B, K] (-inf on padding) and parts f32[B, K, 5] that sum to them (0 on padding)."""
        real = candidates.items >= 0
        features = self._maker.features(queries, query_vecs, states, candidates)
        parts = np.zeros((*real.shape, len(PARTS)), np.float32)
        if self._asks_towers and real.any():
            parts[..., :3] = self._rates(queries, query_vecs, states, candidates.items, features)
        parts[..., 3] = self._fitted.relevance(features[..., RELEVANT_COLUMNS])
        parts[..., 4] = features @ self._fitted.listwise.weights
        parts *= self._weights
        parts[~real] = 0
        totals = np.where(real, parts.sum(axis=2), np.float32(-np.inf))
        return totals.astype(np.float32), parts

    def _rates(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        items: np.ndarray,
        features: np.ndarray,
    ) -> np.ndarray:
        """CTR, CVR and CTCVR f32[B, K, 3]."""
        assert self._towers is not None
        views, vectors, scalars = [], [], []
        for row, query in enumerate(normalise_queries(queries)):
            real = items[row] >= 0
            own = items[row, real]
            history = self._space.history(query_vecs[row], states[row], self._fitted.similar)
            views.append(history.views)
            vectors.append(self._space.vectors(own))
            scalars.append(
                self._space.scalars(
                    features[row, real][:, MATCHING_COLUMNS],
                    features[row, real][:, TASTE_COLUMNS],
                    history,
                    own,
                    vectors[-1],
                    self._log_popularity[own],
                    self._fitted.counts.of(query, own),
                    self._fitted.counts.alone[own],
                )
            )
        width = items.shape[1]
        feeds = {
            "views": np.stack(views),
            "vectors": stacked(vectors, width),
            "scalars": stacked(scalars, width),
        }
        return self._towers.run(feeds)["rates"]


def _carried(fitted: FittedPars, new: Texts, index: CatalogueIndex, config: RelevanceConfig) -> FittedPars:
    """A fitted reward for all items of an index. Raises ArtifactError where nothing is told of new ones."""
    listwise = carried(fitted.listwise, new, index, config)
    return replace(fitted, listwise=listwise, counts=counted(fitted.counts, index))
