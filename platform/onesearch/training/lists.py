"""Candidate lists with judgements: what a reward learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.index import Candidates
from onesearch.shoppers.state import ShopperState


@dataclass(frozen=True)
class RankedLists:
    """The generator's own lists for queries it was not trained on, with what is known of each candidate.

    Attributes:
        queries: Q query texts.
        query_vecs: f32[Q, D], e° of each.
        candidates: what the beams reached, [Q, K].
        gain: f32[Q, K], how good each candidate is for the query, or for this shopper and query where
            shoppers are known (grade in [0, 1], or clicks and orders weighed); 0 where nothing is known.
        pairs: every logged or judged pair that may be used as evidence (query, item number, clicks, orders,
            grade), without those of the held-out queries where that would leak. Where events carry times,
            lists whose gain comes from after a moment and pairs from before it teach what that is worth.
        items: the catalogue (item number order).
        siblings: the other components' exported folders, by role.
        states: of the shopper who asked, as of just before; unknown ones where none are given.
        serving_pairs: every pair there is, held-out queries included: what the server may use as evidence
            once the weights are fitted; None: the same as ``pairs``.
    """

    queries: list[str]
    query_vecs: np.ndarray
    candidates: Candidates
    gain: np.ndarray
    pairs: pl.DataFrame
    items: pl.DataFrame
    vectors: np.ndarray
    popularity: np.ndarray
    siblings: dict[str, Path]
    serving_pairs: pl.DataFrame | None = None
    states: Sequence[ShopperState] = ()

    def __post_init__(self) -> None:
        if not self.states:
            object.__setattr__(self, "states", (ShopperState(),) * len(self.queries))
