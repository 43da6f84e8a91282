"""The serving half: keywords, embeddings and SIDs of query texts, with numpy and ONNX Runtime only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import polars as pl
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.tokenizer import Keyword, TextRole, TokenizerServer
from onesearch.errors import ArtifactError, UsageError
from onesearch.vocabulary import pad
from pydantic import BaseModel
from tokenizers import Tokenizer

from onesearch_khqe.artifacts import map_array, read_json, read_meta
from onesearch_khqe.codebooks import Codebooks
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.extractors import make_extractor
from onesearch_khqe.fusion import fuse, normalised
from onesearch_khqe.items import item_texts, structured_keywords
from onesearch_khqe.newcomers import free_sids
from onesearch_khqe.ngrams import NgramHasher
from onesearch_khqe.pool import KeywordPool
from onesearch_khqe.selection import KeywordSelection


class KhqeServer(TokenizerServer):
    """Reads what :meth:`~onesearch_khqe.learner.KhqeLearner.export` wrote."""

    def __init__(self, folder: Path, runtime: Runtime, config: KhqeConfig) -> None:
        meta = read_meta(folder / "meta.json")
        self.config = config
        self.codebooks = Codebooks.load(folder / "codebooks.safetensors")
        self.levels = self.codebooks.levels
        self.dim = self.codebooks.dim
        self.pool = KeywordPool.load(folder / "pool.json")
        self._fusion = float(meta["fusion"])
        self._keyword_vectors = map_array(folder / "keywords.safetensors", "vectors")
        if len(self._keyword_vectors) != len(self.pool):
            raise ArtifactError(
                f"{folder / 'keywords.safetensors'}: {len(self._keyword_vectors)} vectors "
                f"for {len(self.pool)} keywords"
            )
        self._selection = KeywordSelection(self.pool, config.keywords.per_text)
        self.extractor = make_extractor(config)
        self.extractor.use(self.pool)
        self._meanings: list[list[str]] = read_json(folder / "meanings.json")
        self._encoder = ServingEncoder(folder, meta, runtime)

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open what the learner exported. Raises ArtifactError naming the file that does not fit."""
        return cls(folder, context.runtime, cast(KhqeConfig, config))

    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        """Keywords of each text: longest matches, left to right."""
        return self.extractor.keywords(texts)

    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """Fused, normalised embeddings e° f32[B, D]."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        vectors = self._encoder.embed(texts, role)
        if not self._fusion:
            return vectors
        entries = self._selection.of_keywords(self.keywords(texts))
        return fuse(vectors, self._keyword_vectors, entries, self._fusion)

    def quantise(self, vectors: np.ndarray) -> np.ndarray:
        """SIDs i32[B, L] of embeddings f32[B, D]: the nearest code, level by level."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise UsageError(f"vectors of shape {vectors.shape} do not fit dimension {self.dim}")
        return self.codebooks.encode(vectors)

    def embed_items(self, items: pl.DataFrame) -> np.ndarray:
        """e° f32[N, D] of catalogue rows, of all that the learner reads of them."""
        texts = item_texts(items, self.config.detail_words)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        vectors = self._encoder.embed(texts, "item")
        if not self._fusion:
            return vectors
        found = structured_keywords(items)
        entries = [self._selection.entries(text for text, _ in keywords) for keywords in found]
        bare = [row for row, keywords in enumerate(found) if not keywords]
        matched = self._selection.of_keywords(self.keywords([texts[row] for row in bare]))
        for row, own in zip(bare, matched, strict=True):
            entries[row] = own
        return fuse(vectors, self._keyword_vectors, entries, self._fusion)

    def assign(self, vectors: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """SIDs i32[N, L] for new items; where the assignment is collision-aware, ones that nobody has."""
        sids, residuals = self.codebooks.encode_with_residuals(vectors)
        if not self.config.quantiser.collision_aware:
            return sids
        return free_sids(self.codebooks, sids, residuals, taken)

    def describe(self, sid: Sequence[int]) -> list[str]:
        """The keywords typical of the items that carry each code, one string a level; empty where there are
        none."""
        return [
            self._meanings[level][code] if 0 <= code < len(self._meanings[level]) else ""
            for level, code in enumerate(sid)
        ]


class ServingEncoder:
    """Texts → e, from the n-gram table, the exported graph of the frozen model, or both."""

    def __init__(self, folder: Path, meta: dict[str, Any], runtime: Runtime) -> None:
        self._hasher: NgramHasher | None = None
        self._graph: Any = None
        if meta["ngram"]:
            self._table = map_array(folder / "ngrams.safetensors", "table")
            self._hasher = NgramHasher(len(self._table))
        if meta["base"]:
            self._base = meta["base"]
            self._graph = runtime.session(folder / "base.onnx")
            path = folder / "base_tokenizer.json"
            try:
                self._tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises plain Exception
                raise ArtifactError(f"{path}: not a text tokenizer ({error})") from error
            self._tokenizer.enable_truncation(int(self._base["limit"]))
        self._mix = float(meta["mix"])

    def embed(self, texts: Sequence[str], role: TextRole) -> np.ndarray:
        """Normalised embeddings f32[B, D]."""
        ngram = None if self._hasher is None else normalised(np.stack([self._sum(text) for text in texts]))
        base = None if self._graph is None else self._run(texts, role)
        if ngram is None or base is None:
            return cast(np.ndarray, base if ngram is None else ngram)
        return np.concatenate([ngram * self._mix**0.5, base * (1 - self._mix) ** 0.5], axis=1)

    def _sum(self, text: str) -> np.ndarray:
        assert self._hasher is not None
        return cast(np.ndarray, self._table[self._hasher.ids(text)].sum(0, dtype=np.float32))

    def _run(self, texts: Sequence[str], role: TextRole) -> np.ndarray:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        ids, mask = pad(rows)
        if self._base["pad"]:
            ids[~mask] = self._base["pad"]
        feeds = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros(ids.shape, np.int64),
        }
        return cast(np.ndarray, self._graph.run({name: feeds[name] for name in self._base["inputs"]})[role])
