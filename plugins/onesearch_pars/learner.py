"""The learning half of the relevance reward."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from onesearch.contracts.reward import RewardLearner
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from onesearch.shoppers.tastes import Tastes
from pydantic import BaseModel

from onesearch_pars.artifact import Fitted
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.listwise import fit_listwise, make_fields, make_maker, serving_evidence

if TYPE_CHECKING:
    from onesearch.training.impressions import Impressions
    from onesearch.training.lists import RankedLists


class RelevanceLearner(RewardLearner):
    """Fits one weight a feature on the generator's own lists for queries that nothing was trained on."""

    Config = RelevanceConfig

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.settings = RelevanceConfig.model_validate(config.model_dump())
        self.fitted: Fitted | None = None

    def fit(
        self, lists: RankedLists, work: Path, progress: Progress, impressions: Impressions | None = None
    ) -> dict[str, Any]:
        """Fit and cross-validate; impressions are not looked at.

        Returns:
            Figures: the loss before and after, and recall among the first ten of what the beams reached, in
            the generator's order and (weights fitted on other queries) in the reward's.
        """
        analyser, fields = make_fields(lists, self.settings, progress)
        tastes = Tastes.build(lists.items)
        found = fit_listwise(lists, make_maker(lists, analyser, fields, tastes), self.settings.l2, progress)
        self.fitted = Fitted(self.settings.language, found.weights, fields, serving_evidence(lists), tastes)
        return found.figures

    def save(self, folder: Path) -> None:
        """Write the files of :mod:`onesearch_pars.artifact`."""
        if self.fitted is None:
            raise OneSearchError("the relevance reward has to be fitted before it can be saved")
        self.fitted.save(folder)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote."""
        learner = cls(config)
        learner.fitted = Fitted.load(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write the files of :mod:`onesearch_pars.artifact`; there is no graph."""
        self.save(folder)
