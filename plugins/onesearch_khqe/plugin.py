"""What KHQE offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_khqe.config import KhqeConfig


@hookimpl
def tokenizer() -> Sequence[Offer]:
    """Offer the keyword-enhanced hierarchical tokenizer."""
    return [
        Offer(
            name="khqe",
            config=KhqeConfig,
            learner="onesearch_khqe.learner:KhqeLearner",
            server="onesearch_khqe.server:KhqeServer",
            quick={
                "dim": 32,
                "buckets": 4096,
                "alignment": {"epochs": 2, "batch": 64, "pseudo_queries": 2000, "max_steps": 20},
            },
            summary="keywords + aligned embedding → three residual k-means codes and two OPQ codes",
        )
    ]
