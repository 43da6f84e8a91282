"""The fitted codebooks: residual k-means layers, then OPQ on what is left. numpy only; serving reads them
too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onesearch.errors import ArtifactError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

CHUNK = 8192
"""Vectors read at a time."""
ROWS = 1024
"""Vectors compared at a time: their scores stay in the cache."""


@dataclass(frozen=True)
class Codebooks:
    """Codebooks of a SID's levels.

    Attributes:
        layers: residual layers, f32[K, D] each.
        rotation: f32[D, D] of OPQ; a residual r is coded as ``r @ rotation``.
        parts: OPQ sub-spaces, f32[K, D / M] each; () without OPQ.
    """

    layers: tuple[np.ndarray, ...]
    rotation: np.ndarray
    parts: tuple[np.ndarray, ...] = ()

    @property
    def levels(self) -> tuple[int, ...]:
        """Codebook size of each level."""
        return tuple(len(book) for book in (*self.layers, *self.parts))

    @property
    def dim(self) -> int:
        """Dimension D of the vectors."""
        return int(self.layers[0].shape[1])

    @cached_property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return tuple(np.ascontiguousarray(book.T, np.float32) for book in (*self.layers, *self.parts))

    @cached_property
    def _halves(self) -> tuple[np.ndarray, ...]:
        return tuple(0.5 * np.square(book).sum(1) for book in (*self.layers, *self.parts))

    @cached_property
    def full(self) -> tuple[np.ndarray, ...]:
        """Every level's centroids in the space of the vectors, f32[K, D]: OPQ's are padded and rotated back,
        so that a SID's vector is the sum of its levels' centroids."""
        width = self.dim // max(1, len(self.parts))
        back = [part @ self.rotation.T[at * width : (at + 1) * width] for at, part in enumerate(self.parts)]
        return (*self.layers, *back)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """SIDs i32[N, L]: the nearest code, level by level."""
        return self.encode_with_residuals(vectors)[0]

    def encode_with_residuals(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs i32[N, L], and what the residual layers leave, f32[N, D] (before the rotation)."""
        sids = np.empty((len(vectors), len(self.levels)), dtype=np.int32)
        residuals = np.array(vectors, dtype=np.float32)
        rows = min(len(vectors), ROWS)
        scores = [np.empty((rows, size), np.float32) for size in self.levels]
        for start in range(0, len(vectors), ROWS):
            rest, codes = residuals[start : start + ROWS], sids[start : start + ROWS]
            for level, layer in enumerate(self.layers):
                codes[:, level] = self._nearest(rest, level, scores[level])
                rest -= layer[codes[:, level]]
            for at, part in enumerate(self._cut(rest)):
                level = len(self.layers) + at
                codes[:, level] = self._nearest(part, level, scores[level])
        return sids, residuals

    def _nearest(self, points: np.ndarray, level: int, room: np.ndarray) -> np.ndarray:
        """Code of each point at a level; scores ``c·x − ½‖c‖²`` are left in ``room``."""
        scores = np.matmul(points, self._columns[level], out=room[: len(points)])
        scores -= self._halves[level]
        return scores.argmax(1)

    def part_distances(self, residuals: np.ndarray) -> list[np.ndarray]:
        """Squared distances f32[N, K] of the residuals to the codes of each OPQ sub-space."""
        return [
            np.maximum(np.square(own).sum(1)[:, None] - 2 * (own @ part.T - half), 0)
            for own, part, half in zip(
                self._cut(residuals), self.parts, self._halves[len(self.layers) :], strict=True
            )
        ]

    def _cut(self, residuals: np.ndarray) -> list[np.ndarray]:
        if not self.parts:
            return []
        turned = residuals @ self.rotation
        width = self.dim // len(self.parts)
        return [
            np.ascontiguousarray(turned[:, at * width : (at + 1) * width]) for at in range(len(self.parts))
        ]

    def decode(self, sids: np.ndarray, levels: int | None = None) -> np.ndarray:
        """Vectors f32[N, D] that SIDs (their first ``levels`` codes) stand for."""
        books = self.full[:levels]
        out = np.zeros((len(sids), self.dim), dtype=np.float32)
        for level, book in enumerate(books):
            out += book[sids[:, level]]
        return out

    def distortion(self, vectors: np.ndarray, sids: np.ndarray, levels: int | None = None) -> float:
        """Mean squared distance between vectors and what their SIDs stand for."""
        total = 0.0
        for start in range(0, len(vectors), CHUNK):
            rows = slice(start, start + CHUNK)
            total += float(np.square(vectors[rows] - self.decode(sids[rows], levels)).sum())
        return total / max(1, len(vectors))

    def save(self, path: Path) -> None:
        """Write as safetensors: ``layer.0`` …, ``rotation``, ``part.0`` …."""
        tensors = {f"layer.{at}": layer for at, layer in enumerate(self.layers)}
        tensors |= {f"part.{at}": part for at, part in enumerate(self.parts)}
        tensors["rotation"] = self.rotation
        save_file({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Codebooks:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file."""
        try:
            tensors = load_file(path)
            layers = _numbered(tensors, "layer")
            parts = _numbered(tensors, "part")
            rotation = tensors["rotation"]
            dims = {layer.shape[1] for layer in layers} | {part.shape[1] * len(parts) for part in parts}
            if dims != {rotation.shape[0]}:
                raise ValueError(f"dimensions {sorted(dims)} and {rotation.shape[0]} do not fit")
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path}: not KHQE codebooks ({error})") from error
        return cls(layers, rotation, parts)


def _numbered(tensors: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    count = sum(1 for key in tensors if key.startswith(f"{name}."))
    return tuple(tensors[f"{name}.{at}"] for at in range(count))


def code_sizes(items: int, full: Sequence[int] = (4096, 1024, 512), at: int = 40_960) -> tuple[int, ...]:
    """Codes of the residual layers for a catalogue: the full sizes from ``at`` items on (ten items a code of
    the first layer), below ``full·items/at`` rounded to a power of two, at least 4."""
    if items >= at:
        return tuple(full)
    return tuple(max(4, 2 ** round(np.log2(max(1.0, size * items / at)))) for size in full)


def opq_sizes(items: int, parts: int = 2, full: int = 256) -> tuple[int, ...]:
    """Codes of the OPQ sub-spaces for a catalogue: 256, or an eighth of the items as a power of two, at least
    4."""
    return (min(full, max(4, 2 ** int(np.log2(max(1, items // 8))))),) * parts
