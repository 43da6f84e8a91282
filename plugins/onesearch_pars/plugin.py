"""What PARS offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_pars.config import RelevanceConfig


@hookimpl
def reward() -> Sequence[Offer]:
    """Offer the relevance reward: words, similarity, the generator's own score and logged evidence."""
    return [
        Offer(
            name="relevance",
            config=RelevanceConfig,
            learner="onesearch_pars.learner:RelevanceLearner",
            server="onesearch_pars.server:RelevanceServer",
            summary="words, similarity, generator, popularity and logged evidence, weighed list-wise",
        )
    ]
