"""The codebooks of a release in the space of its embeddings: what codes stand for, for every component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from onesearch.errors import ArtifactError

FILE = "codebooks.safetensors"
_CHUNK = 8_192


@dataclass(frozen=True)
class Codebooks:
    """Additive codebooks: an embedding is about the sum of its codes' centroids.

    Attributes:
        levels: f32[K_ℓ, D] for each SID level.
    """

    levels: tuple[np.ndarray, ...]

    @property
    def dim(self) -> int:
        """Dimension D of the embeddings."""
        return int(self.levels[0].shape[1])

    @cached_property
    def _halves(self) -> tuple[np.ndarray, ...]:
        return tuple(0.5 * np.square(level).sum(axis=1) for level in self.levels)

    def vectors(self, sids: np.ndarray, depth: int | None = None) -> np.ndarray:
        """Σ of the centroids of the first ``depth`` codes (default: all) of SIDs i32[B, L] → f32[B, D]."""
        used = self.levels[:depth]
        total = used[0][sids[:, 0]].astype(np.float32)
        for level, book in enumerate(used[1:], start=1):
            total += book[sids[:, level]]
        return total

    def quantise(self, vectors: np.ndarray) -> np.ndarray:
        """Embeddings f32[B, D] → SIDs i32[B, L]: the nearest code, level by level, of what is left."""
        return self.nearest(vectors, 1)[..., 0]

    def nearest(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """The ``count`` nearest codes of each level, i32[B, L, count], nearest first.

        What is left for the next level is what the nearest code leaves. Where a level has fewer codes, the
        last one is repeated.
        """
        codes = np.zeros((len(vectors), len(self.levels), count), np.int32)
        for start in range(0, len(vectors), _CHUNK):
            rest = np.array(vectors[start : start + _CHUNK], dtype=np.float32)
            for level, (book, half) in enumerate(zip(self.levels, self._halves, strict=True)):
                scores = rest @ book.T - half
                found = (
                    scores.argmax(axis=1)[:, None]
                    if count == 1
                    else np.argsort(-scores, axis=1, kind="stable")[:, :count]
                )
                codes[start : start + _CHUNK, level, : found.shape[1]] = found
                codes[start : start + _CHUNK, level, found.shape[1] :] = found[:, -1:]
                rest -= book[found[:, 0]]
        return codes

    def save(self, folder: Path) -> None:
        """Write :data:`FILE`."""
        folder.mkdir(parents=True, exist_ok=True)
        levels = {f"level.{at}": np.ascontiguousarray(level) for at, level in enumerate(self.levels)}
        save_file(levels, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Codebooks:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        path = folder / FILE
        try:
            arrays = load_file(path)
            return cls.of([arrays[f"level.{at}"] for at in range(len(arrays))])
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path}: not codebooks ({error})") from error

    @classmethod
    def of(cls, levels: Sequence[np.ndarray]) -> Codebooks:
        """From arrays of one dimension D. Raises ValueError where they differ."""
        if len({level.shape[1] for level in levels}) != 1:
            raise ValueError(f"codebooks of shapes {[level.shape for level in levels]}")
        return cls(tuple(np.asarray(level, dtype=np.float32) for level in levels))
