"""What PARS offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_pars.config import ParsConfig, RelevanceConfig


@hookimpl
def reward() -> Sequence[Offer]:
    """Offer the relevance reward, and the one of PARS that adds three towers and knows the shopper."""
    return [
        Offer(
            name="relevance",
            config=RelevanceConfig,
            learner="onesearch_pars.learner:RelevanceLearner",
            server="onesearch_pars.server:RelevanceServer",
            summary="words, similarity, generator, popularity and logged evidence, weighed list-wise",
        ),
        Offer(
            name="pars",
            config=ParsConfig,
            learner="onesearch_pars.pars_learner:ParsLearner",
            server="onesearch_pars.pars_server:ParsServer",
            summary="click, order and both by three towers that know the shopper, relevance, list-wise score",
            quick={
                "baseline": False,
                "towers": {"trees": 10, "epochs": 2, "hidden": 16, "rank": 4, "tower": 4},
            },
        ),
    ]
