"""What Mu-Seq offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_museq.config import QUICK, MuSeqConfig, PassThroughConfig


@hookimpl
def user_encoder() -> Sequence[Offer]:
    """Offer Mu-Seq and, for shops without shoppers, the pass-through user encoder."""
    return [
        Offer(
            name="passthrough",
            config=PassThroughConfig,
            learner="onesearch_museq.passthrough:PassThroughLearner",
            server="onesearch_museq.passthrough:PassThroughServer",
            summary="the query's text and semantic ID; nothing of the shopper",
        ),
        Offer(
            name="museq",
            config=MuSeqConfig,
            learner="onesearch_museq.learner:MuSeqLearner",
            server="onesearch_museq.server:MuSeqServer",
            summary="shoppers seen three ways: an id from behaviour, recent pairs, long-term interests",
            quick=QUICK,
        ),
    ]
