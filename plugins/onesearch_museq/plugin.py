"""What Mu-Seq offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_museq.config import PassThroughConfig


@hookimpl
def user_encoder() -> Sequence[Offer]:
    """Offer the pass-through user encoder: the query's text and SID, nothing of the shopper."""
    return [
        Offer(
            name="passthrough",
            config=PassThroughConfig,
            learner="onesearch_museq.learner:PassThroughLearner",
            server="onesearch_museq.server:PassThroughServer",
            summary="the query's text and semantic ID; nothing of the shopper",
        )
    ]
