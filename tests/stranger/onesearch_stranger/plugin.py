"""What is offered. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts import Offer
from onesearch.hookspecs import hookimpl
from pydantic import BaseModel, ConfigDict, Field


class CheapFirst(BaseModel):
    """Settings of the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0), description="What a halved price may be worth, in nats; fitting picks one."
    )


@hookimpl
def reward() -> Sequence[Offer]:
    """Offer a reward that likes low prices."""
    return [
        Offer(
            name="cheap-first",
            config=CheapFirst,
            learner="onesearch_stranger.cheap_first:CheapFirstLearner",
            server="onesearch_stranger.cheap_first:CheapFirstServer",
            summary="the generator's order, cheaper items first",
        )
    ]
