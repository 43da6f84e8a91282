"""The user encoder's contract: shopper state and query → prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onesearch.contracts.offers import Learner, Server
from onesearch.progress import Progress
from onesearch.shoppers.state import ShopperState

if TYPE_CHECKING:
    import torch

    from onesearch.data.store import Store

__all__ = ["Prompt", "RawPrompt", "ShopperState", "UserEncoderLearner", "UserEncoderServer"]


@dataclass(frozen=True)
class RawPrompt:
    """A prompt before anything learnt: what training stores and the learnt module reads.

    Attributes:
        ids: i32[B, T], in the vocabulary's id space, padded with 0 on the right.
        mask: bool[B, T], true where a token is.
        history: f32[B, F, D], vectors that sum a shopper's history up; F may be 0.
        history_mask: bool[B, F], false where a vector has nothing to say (it is 0 then).
    """

    ids: np.ndarray
    mask: np.ndarray
    history: np.ndarray
    history_mask: np.ndarray


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

    def module(self, dim: int, width: int) -> torch.nn.Module | None:
        """What is learnt together with the generator in the personalisation stage; None: nothing.

        A module that maps ``history`` f32[B, F, D] and ``history_mask`` bool[B, F] to prefix vectors
        f32[B, P, width], for D = ``dim``, width = the generator's. The same object at every call, made from
        the seed at the first; :meth:`save` and :meth:`export` write what it has become. Until it has been
        trained, :meth:`export` leaves it out and the server's prefix is empty (P = 0).
        """
        return None


class UserEncoderServer(Server):
    """Builds prompts."""

    @abstractmethod
    def raw(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> RawPrompt:
        """Everything of B prompts that is not learnt: training and serving both come through here.

        Args:
            states: what was known of each shopper just before the request.
            queries: what they typed. query_sids: i32[B, L], the queries' own SIDs (never the target's).
            stand_ins: item numbers i32[n] most clicked for each query at that moment, best first, which stand
                in for a cold shopper's behaviour; None: those that the encoder learnt from the whole log.
        """

    @abstractmethod
    def features(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> Prompt:
        """Prompts of B requests: :meth:`raw`, and what is learnt applied to it."""

    def explain(
        self, states: Sequence[ShopperState], queries: Sequence[str], query_sids: np.ndarray
    ) -> list[dict[str, Any]]:
        """How each shopper is seen, for people: JSON objects; empty where there is nothing to say.

        Keys that the command line knows: ``user_id_tokens`` (name → printed SID), ``recent`` (list of
        {query, item_id, sid}, oldest first), ``stand_ins`` (list of {item_id, sid}), ``interests`` (list of
        {name, weight}, what weighs in the long-term vectors).
        """
        return [{} for _ in queries]
