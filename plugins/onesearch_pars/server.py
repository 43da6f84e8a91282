"""The serving half of the relevance reward: numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates, RewardServer
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex
from pydantic import BaseModel

from onesearch_pars.artifact import ARRAYS, Fitted
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.features import FEATURES, PARTS, FeatureMaker
from onesearch_pars.newcomers import NO_TEXTS, Texts, carried

_PART_OF = np.array([[feature.part == part for part in PARTS] for feature in FEATURES], dtype=np.float32)


class RelevanceServer(RewardServer):
    """Scores candidates by a weighted sum of features, told by part."""

    parts = PARTS

    def __init__(
        self, fitted: Fitted, maker: FeatureMaker, config: RelevanceConfig, texts: Texts = NO_TEXTS
    ) -> None:
        """``texts`` are those that ``fitted`` got while serving."""
        self._fitted, self._maker, self._config, self._texts = fitted, maker, config, texts
        self._weights_by_part = fitted.weights[:, None] * _PART_OF

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open what the learner exported, over the catalogue of ``context``."""
        fitted, index = Fitted.load(folder), context.index
        settings = config if isinstance(config, RelevanceConfig) else RelevanceConfig()
        texts = Texts.of(index.newcomers)
        try:
            fitted = carried(fitted, texts, index, settings)
        except ArtifactError as error:
            raise ArtifactError(f"{folder / ARRAYS}: {error}") from error
        return cls._over(index, fitted, settings, texts)

    def renewed(self, context: ServingContext) -> Self:
        """Over another generation: words of new items come in."""
        index, texts = context.index, Texts.of(context.index.newcomers)
        fitted = carried(self._fitted, texts.beside(self._texts), index, self._config)
        return self._over(index, fitted, self._config, texts)

    @classmethod
    def _over(cls, index: CatalogueIndex, fitted: Fitted, config: RelevanceConfig, texts: Texts) -> Self:
        return cls(fitted, fitted.maker(index), config, texts)

    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Totals f32[B, K] (-inf on padding) and parts f32[B, K, 9] that sum to them (0 on padding)."""
        parts = self._maker.features(queries, query_vecs, states, candidates) @ self._weights_by_part
        totals = np.where(candidates.items >= 0, parts.sum(axis=2), np.float32(-np.inf))
        return totals.astype(np.float32), parts
