"""The user encoder's contract: shopper state and query → prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onesearch.contracts.offers import Learner, Server
from onesearch.progress import Progress

if TYPE_CHECKING:
    from onesearch.data.store import Store


@dataclass(frozen=True)
class ShopperState:
    """What is known of a shopper when a request arrives: oldest first; empty when unknown."""

    user_id: str = ""
    clicks: tuple[int, ...] = ()
    orders: tuple[int, ...] = ()
    queries: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """What the generator's encoder reads.

    Attributes:
        ids: i32[B, T], in the vocabulary's id space, padded with 0 on the right.
        mask: bool[B, T], true where a token is.
        prefix: f32[B, P, d] vectors put before the tokens; P may be 0.
    """

    ids: np.ndarray
    mask: np.ndarray
    prefix: np.ndarray


class UserEncoderLearner(Learner):
    """Learns whatever of the prompt is learnt; the pass-through one learns nothing."""

    @abstractmethod
    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit what does not need the generator; return figures for the report."""


class UserEncoderServer(Server):
    """Builds prompts."""

    @abstractmethod
    def features(
        self, states: Sequence[ShopperState], queries: Sequence[str], query_sids: np.ndarray
    ) -> Prompt:
        """Prompts of B requests. ``query_sids`` i32[B, L] are the queries' own SIDs (never the target's)."""
