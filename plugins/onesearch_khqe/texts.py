"""All texts that an alignment reads, encoded once: n-gram ids and the frozen model's vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from onesearch.training.examples import Ragged
from safetensors.numpy import load_file, save_file

from onesearch_khqe.base_model import BaseModel
from onesearch_khqe.ngrams import NgramHasher

CACHE_FROM = 1_000
"""Fewer texts than this are encoded faster than they are looked up."""


class TextTable:
    """Different texts by number.

    Attributes:
        texts: the texts.
        grams: n-gram ids of each (empty rows when no n-gram part is used).
        base: f16[R, d], the frozen model's vectors; None when there is no such model.
    """

    def __init__(
        self,
        hasher: NgramHasher | None,
        model: BaseModel | None,
        cache: Path | None = None,
        exact: bool = False,
    ) -> None:
        """``cache``: folder that keeps what was encoded, so that a resumed run encodes nothing twice.
        ``exact``: the model computes in f32, not in bf16."""
        self._exact = exact
        self._hasher = hasher
        self._model = model
        self._cache = cache
        self._number: dict[str, int] = {}
        self.texts: list[str] = []
        self.grams = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
        self.base: np.ndarray | None = None if model is None else np.zeros((0, model.dim), np.float16)

    def add(self, texts: Iterable[str]) -> np.ndarray:
        """Number of each text, i64; texts that are new are encoded."""
        rows: list[int] = []
        new: list[str] = []
        for text in texts:
            number = self._number.setdefault(text, len(self._number))
            if number == len(self.texts) + len(new):
                new.append(text)
            rows.append(number)
        if new:
            self._extend(new)
        return np.array(rows, dtype=np.int64)

    def _extend(self, new: Sequence[str]) -> None:
        self.texts.extend(new)
        hasher, model = self._hasher, self._model
        if hasher is not None:
            more = self._cached("grams", f"{hasher.buckets}", new, lambda: _arrays(hasher.bag(new)))
            self.grams = Ragged(
                np.concatenate([self.grams.values, more["values"]]),
                np.concatenate([self.grams.offsets, more["offsets"][1:] + self.grams.offsets[-1]]),
            )
        if model is not None:
            assert self.base is not None
            more = self._cached(
                "base", model.name, new, lambda: {"vectors": model.encode(new, exact=self._exact)}
            )
            self.base = np.concatenate([self.base, more["vectors"]])

    def _cached(
        self, what: str, by: str, texts: Sequence[str], make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        if self._cache is None or len(texts) < CACHE_FROM:
            return make()
        digest = hashlib.blake2b(by.encode(), digest_size=12)
        for text in texts:
            digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        path = self._cache / f"{what}-{digest.hexdigest()}.safetensors"
        if path.exists():
            return load_file(path)
        arrays = make()
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(arrays, partial)
        partial.replace(path)
        return arrays

    def bags(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """N-gram ids i64 of the rows one after the other, and where each row starts, i64[R]."""
        starts, ends = self.grams.offsets[rows], self.grams.offsets[rows + 1]
        counts = ends - starts
        offsets = np.cumsum(counts) - counts
        at = np.repeat(starts - offsets, counts) + np.arange(counts.sum())
        return self.grams.values[at].astype(np.int64), offsets


def _arrays(ragged: Ragged) -> dict[str, np.ndarray]:
    return {"values": ragged.values, "offsets": ragged.offsets}
