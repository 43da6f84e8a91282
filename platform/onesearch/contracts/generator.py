"""The generator's contract: prompt → semantic IDs of live items, with log-probabilities and a certificate."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onesearch.contracts.offers import Learner, Server
from onesearch.contracts.user_encoder import Prompt
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

if TYPE_CHECKING:
    import torch

    from onesearch.index import LiveTree
    from onesearch.training.examples import Examples
    from onesearch.training.preferences import Preferences

Stage = Literal["alignment", "cooccurrence", "personalisation", "refresh"]
"""Supervised training; ``refresh`` is personalisation continued from a release, on a newer log."""
Phase = Literal["phase_1", "phase_2"]
"""Preference learning: reward-guided, and from interactions alone."""
Guide = Literal["guided", "generator", "prior_only"]


@dataclass(frozen=True)
class SearchResult:
    """What a search found, best first.

    Attributes:
        leaves: i32[B, K], the leaf of the prefix tree (row of ``tree.leaf_sids``); -1 past the last one.
        log_probs: f32[B, K], non-increasing; -inf past the last one.
        dropped: f32[B], the best log-probability among all prefixes that the search cut (-inf: none). The
            first k results are exact (no wider beam could change them) when ``log_probs[:, k-1] >= dropped``.
        dropped_mass: f32[B], log of the summed probability of all prefixes cut: at most
            ``floor(exp(dropped_mass - log_probs[:, k-1]))`` SIDs can be missing from the top k.
        branches: i32[B, L], legal branches looked at, level by level.
        widths: i32[B], beams that each query took; None: all that it was given.
    """

    leaves: np.ndarray
    log_probs: np.ndarray
    dropped: np.ndarray
    dropped_mass: np.ndarray
    branches: np.ndarray
    widths: np.ndarray | None = None


@dataclass(frozen=True)
class Origin:
    """A generator as supervised training left it, with the user module trained along: what preference
    learning tells its distance from."""

    learner: GeneratorLearner
    user_module: torch.nn.Module | None = None


class GeneratorLearner(Learner):
    """Learns p(SID | prompt) over the legal children of each prefix."""

    prefix_width: int = 0
    """Width d of the prefix vectors that the network reads; 0: it reads none."""
    learns_preferences: bool = False
    """Whether it has a :meth:`prefer`; without one, training passes the phases of preferences over."""

    @abstractmethod
    def fit(
        self,
        stage: Stage,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: torch.nn.Module | None = None,
    ) -> dict[str, Any]:
        """Run one SFT stage, resumable from checkpoints in ``work``; return curves and figures.

        ``user_module`` maps the histories of the examples to prefix vectors (see
        :meth:`onesearch.contracts.user_encoder.UserEncoderLearner.module`). It is trained along, stands in
        the same checkpoints, and holds its best weights when the stage ends.
        """

    def prefer(
        self,
        phase: Phase,
        preferences: Preferences,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: torch.nn.Module | None = None,
        origin: Origin | None = None,
    ) -> dict[str, Any]:
        """Run one phase of preference learning, resumable from checkpoints in ``work``; return curves and
        figures.

        The reference is the network as it is when the phase begins. Called where
        :attr:`learns_preferences` is true.

        Args:
            phase: whose settings to use.
            preferences: ranked lists over the leaves of the examples' tree; those held out say when to stop.
            examples: held-out examples of supervised training (and the tree): what must not be forgotten.
            user_module: as for :meth:`fit`.
            origin: what supervised training ended with; None: the network as it is.

        Figures that the platform knows: ``kl`` (nats a prompt, from the reference), ``kl_origin`` (from the
        origin), ``held_out_nll`` and ``held_out_nll_before`` (nats a path), ``stopped_by``.
        """
        raise OneSearchError(f"{type(self).__name__} does not learn preferences")


class GeneratorServer(Server):
    """Searches the live tree."""

    @abstractmethod
    def search(
        self,
        prompt: Prompt,
        query_vec: np.ndarray,
        tree: LiveTree,
        beams: int,
        guide: Guide = "guided",
        certify: int = 0,
    ) -> SearchResult:
        """The best SIDs for B prompts, K = ``beams`` at most.

        ``query_vec`` f32[B, D] is the fused, normalised e_q°. ``tree`` holds the live arrays, already
        narrowed by the request's filters. ``guide`` switches parts of the score off for evaluation:
        ``generator`` leaves the prior out, ``prior_only`` the network.

        With ``certify`` a search may begin with fewer beams, and widen up to ``beams`` only until its best
        ``certify`` results are proven exact. What it returns is what a search of the width that it ended
        with returns. A generator that cannot widen takes all beams.
        """
