"""The tokenizer's contract: text → keywords, embedding, semantic ID."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from onesearch.contracts.offers import Learner, Server
from onesearch.progress import Progress

if TYPE_CHECKING:
    from onesearch.codebooks import Codebooks
    from onesearch.data.store import Store

TextRole = Literal["query", "item"]


@dataclass(frozen=True)
class Keyword:
    """A keyword found in a text: its surface form and which of the 18 attribute types it is of."""

    text: str
    attribute: str


class TokenizerLearner(Learner):
    """Learns codebooks and the keyword pool; encodes the whole catalogue."""

    levels: tuple[int, ...]
    """Codebook size of each SID level, known after :meth:`fit`, e.g. (4096, 1024, 512, 256, 256)."""
    dim: int
    """Dimension D of the embedding."""

    @abstractmethod
    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit on a store's items and logs, resumable from ``work``; return the report's figures for JSON."""

    @abstractmethod
    def encode_items(self, items: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """SIDs i32[N, L] and fused normalised embeddings e° f32[N, D] of catalogue rows (frozen codebooks).

        For the items the tokenizer was fitted on these are the collision-aware assigned SIDs; for others the
        same rule against the frozen codebooks.
        """

    @abstractmethod
    def codebooks(self) -> Codebooks:
        """What the codes stand for: an item's e° is about the sum of its codes' centroids."""

    @abstractmethod
    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """Fused, L2-normalised embeddings e° f32[B, D]."""

    @abstractmethod
    def encode(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """SIDs i32[B, L] of texts, by plain nearest codes."""


class TokenizerServer(Server):
    """Serves keywords, embeddings and SIDs of query texts."""

    levels: tuple[int, ...]
    dim: int

    @abstractmethod
    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        """Keywords of each text: longest matches, left to right."""

    @abstractmethod
    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """Fused, L2-normalised embeddings e° f32[B, D]: equal to the learner's within 1e-3 (int8: 2e-2)."""

    @abstractmethod
    def quantise(self, vectors: np.ndarray) -> np.ndarray:
        """SIDs i32[B, L] of embeddings f32[B, D], nearest code level by level."""

    def embed_items(self, items: pl.DataFrame) -> np.ndarray:
        """e° f32[N, D] of catalogue rows that were not there when the tokenizer was fitted: as the learner's
        ``encode_items`` has them, within the bounds of :meth:`embed`.

        ``items`` has the columns of the store's items. Here: of the titles alone.
        """
        return self.embed(items["title"].to_list(), "item")

    def assign(self, vectors: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """SIDs i32[N, L] for new items by the frozen codebooks; live items have the SIDs i32[M, L].

        Here: the nearest codes, whoever has them; a tokenizer may give each item one that nobody has.
        """
        return self.quantise(vectors)

    @abstractmethod
    def describe(self, sid: Sequence[int]) -> list[str]:
        """What each code of a SID means: keywords typical of the items that carry it, one string a level."""
