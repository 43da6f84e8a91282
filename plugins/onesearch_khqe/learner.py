"""The learning half: keyword pool, aligned embedding, codebooks, SIDs of the catalogue."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import polars as pl
import torch
from onesearch.codebooks import Codebooks as FullCodebooks
from onesearch.contracts.tokenizer import TextRole, TokenizerLearner
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.progress import Progress
from onesearch.training.split import tokenizer_pairs
from pydantic import BaseModel as Settings
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from onesearch_khqe.alignment import Alignment
from onesearch_khqe.artifacts import FORMAT, read_arrays, read_json, read_meta, write_arrays, write_json
from onesearch_khqe.base_model import BaseModel
from onesearch_khqe.codebooks import Codebooks
from onesearch_khqe.collisions import assign_last_codes
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.encoders import TextEncoder
from onesearch_khqe.extractors import make_extractor
from onesearch_khqe.fusion import fuse
from onesearch_khqe.items import item_texts, structured_keywords, text_keys
from onesearch_khqe.meanings import meanings_of
from onesearch_khqe.mining import mine_pool, page_views
from onesearch_khqe.ngrams import NgramHasher
from onesearch_khqe.pool import KeywordPool
from onesearch_khqe.quantiser import encode_catalogue
from onesearch_khqe.report import figures_of, write_report
from onesearch_khqe.samples import split_pairs
from onesearch_khqe.selection import KeywordSelection
from onesearch_khqe.streaming import fit_within_memory
from onesearch_khqe.texts import TextTable

if TYPE_CHECKING:
    from onesearch.data.store import Store


class KhqeLearner(TokenizerLearner):
    """Keyword-enhanced hierarchical quantisation encoding."""

    Config: ClassVar[type[Settings]] = KhqeConfig

    def __init__(self, config: Settings) -> None:
        super().__init__(config)
        self.settings = cast(KhqeConfig, config)
        self.extractor = make_extractor(self.settings)
        self.report: dict[str, Any] = {}
        self._model: BaseModel | None = None
        self._encoder: TextEncoder | None = None

    # ---- fitting

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Fit on a store; resumes from ``work`` when store and settings are the same as there.

        Writes the report to ``work/report`` and returns its figures.
        """
        settings = self.settings
        clock = Clock()
        vectors = self.fit_vectors(store, work, progress, clock)
        with clock.measure("codebooks"):
            self._fit_codebooks(vectors, work, progress)
        with clock.measure("sids"):
            plain, residuals = encode_catalogue(self.books, vectors, settings.quantiser)
            assigned = assign_last_codes(self.books, plain, residuals)
            self._sids = assigned.sids if settings.quantiser.collision_aware else plain
        self._vectors = vectors.astype(np.float16)
        self._meanings = meanings_of(self._sids, self.levels, self.item_entries, self.pool)
        with clock.measure("report"):
            self.report = figures_of(self, vectors, plain, assigned)
            self.report["seconds"] = clock.seconds
            write_report(self.report, work / "report")
        return self.report

    def fit_vectors(
        self, store: Store, work: Path, progress: Progress, clock: Clock | None = None
    ) -> np.ndarray:
        """The first half of :meth:`fit`: keyword pool, aligned embedding, e° of all items f32[N, D]."""
        settings = self.settings
        self._claim(work, store.fingerprint())
        clock = clock or Clock()
        items = store.items()
        if not len(items):
            raise OneSearchError("the tokenizer cannot be fitted on an empty catalogue")
        texts = item_texts(items, settings.detail_words)
        self._ids, self._keys = items["item_id"].to_list(), text_keys(texts)
        pairs = tokenizer_pairs(store, settings.relevant_grade)
        learn, self.held_out = split_pairs(pairs, settings.held_out)
        self._queries = learn["query"].unique(maintain_order=True).to_list()
        with clock.measure("keywords"):
            found = self._fit_pool(items, texts, learn, work, progress)
            self.item_entries = self._entries(found, texts)
        with clock.measure("alignment"):
            table = self._fit_encoder(items, texts, learn, work, progress)
        with clock.measure("vectors"):
            assert self._encoder is not None
            self._raw = self._encoder.embed(table, table.add(texts), "item")
        return self.fused_vectors(settings.fusion)

    def item_vectors(self) -> np.ndarray:
        """e of the items just fitted, f32[N, D], before fusion."""
        return self._raw

    def fused_vectors(self, share: float) -> np.ndarray:
        """e° of the items just fitted, f32[N, D], for a given share of their keywords."""
        return fuse(self._raw, self._keyword_vectors, self.item_entries, share)

    def fused_queries(self, queries: Sequence[str], share: float) -> np.ndarray:
        """e° of queries, f32[B, D], for a given share of their keywords."""
        entries = self._selection.of_keywords(self.extractor.keywords(queries))
        return fuse(self._embed_raw(queries, "query"), self._keyword_vectors, entries, share)

    def _claim(self, work: Path, fingerprint: str) -> None:
        """Empty the work folder unless it is of the same store and settings."""
        key = hashlib.sha256(f"{FORMAT} {fingerprint} {self.settings.model_dump_json()}".encode()).hexdigest()
        mark = work / "key"
        if not (mark.exists() and mark.read_text(encoding="utf-8") == key):
            # Answers of a model and encoded texts are kept: they are looked up by content.
            for path in work.glob("*") if work.exists() else ():
                if path.name in KEPT or path.name.startswith(("grams-", "base-")):
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            work.mkdir(parents=True, exist_ok=True)
            mark.write_text(key, encoding="utf-8")

    def _fit_pool(
        self, items: pl.DataFrame, texts: list[str], learn: pl.DataFrame, work: Path, progress: Progress
    ) -> list[list[tuple[str, str]]]:
        views = np.zeros(len(items), np.int64)
        seen = page_views(learn)
        np.add.at(views, seen["item"].to_numpy(), seen["views"].to_numpy())
        found = self.extractor.read_items(items, texts, views.tolist(), work, progress)
        self.pool = mine_pool(found, items["title"].to_list(), learn, self.settings.keywords)
        self._take_pool()
        return found

    def _take_pool(self) -> None:
        self.extractor.use(self.pool)
        self._selection = KeywordSelection(self.pool, self.settings.keywords.per_text)
        self._keyword_vectors = np.zeros((0, 0), np.float32)

    def _entries(self, found: Sequence[Sequence[tuple[str, str]]], texts: Sequence[str]) -> list[list[int]]:
        """Pool entries of items: those of their structured (or asked for) keywords, else of the matches in
        their text."""
        bare = [row for row, keywords in enumerate(found) if not keywords]
        matched = self._selection.of_keywords(self.extractor.keywords([texts[row] for row in bare]))
        entries = [self._selection.entries(text for text, _ in keywords) for keywords in found]
        for row, own in zip(bare, matched, strict=True):
            entries[row] = own
        return entries

    def _table(
        self, cache: Path | None = None, progress: Progress | None = None, exact: bool = False
    ) -> TextTable:
        wants_grams = self.settings.encoder != "sentence-transformers"
        hasher = NgramHasher(self.settings.buckets) if wants_grams else None
        if self.settings.encoder != "ngram" and self._model is None:
            self._model = BaseModel(self.settings.model, progress)
        return TextTable(hasher, self._model, cache, exact)

    def _fit_encoder(
        self,
        items: pl.DataFrame,
        texts: list[str],
        learn: pl.DataFrame,
        work: Path,
        progress: Progress,
    ) -> TextTable:
        table = self._table(work, progress)
        torch.manual_seed(self.settings.seed)
        self._encoder = TextEncoder(self.settings, 0 if self._model is None else self._model.dim)
        titles = items["title"].to_list()
        alignment = Alignment(self._encoder, table, texts, titles, learn, self.held_out, self.settings)
        self.aligned = alignment.fit(work, progress)
        self._keyword_vectors = self._encoder.embed(table, table.add(self.pool.texts), "query")
        return table

    def _fit_codebooks(self, vectors: np.ndarray, work: Path, progress: Progress) -> None:
        path = work / "codebooks.safetensors"
        if path.exists():
            self.books = Codebooks.load(path)
        else:
            points, settings = vectors, self.settings
            if settings.quantiser.fit_on == "items+queries" and self._queries:
                points = np.concatenate([vectors, self.fused_queries(self._queries, settings.fusion)])
            self.books = fit_within_memory(points, settings.quantiser, settings.seed, len(vectors), progress)
            partial = path.with_suffix(".partial")
            self.books.save(partial)
            partial.replace(path)
        self.levels = self.books.levels
        self.dim = self.books.dim

    # ---- using

    def _embed_raw(self, texts: Sequence[str], role: TextRole) -> np.ndarray:
        assert self._encoder is not None
        table = self._table(exact=len(texts) <= EXACT)
        return self._encoder.embed(table, table.add(texts), role)

    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """Fused, L2-normalised embeddings e° f32[B, D]."""
        entries = self._selection.of_keywords(self.extractor.keywords(texts))
        return fuse(self._embed_raw(texts, role), self._keyword_vectors, entries, self.settings.fusion)

    def codebooks(self) -> FullCodebooks:
        """Every level's centroids in the space of the embeddings; OPQ's are rotated back."""
        return FullCodebooks.of(self.books.full)

    def encode(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        """SIDs i32[B, L] of texts, by plain nearest codes."""
        return self.books.encode(self.embed(texts, role))

    def encode_items(self, items: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """SIDs i32[N, L] and e° f32[N, D] of catalogue rows, by the frozen codebooks.

        An item of the fitted catalogue whose text has not changed keeps its SID. The others are encoded and,
        when the assignment is collision-aware, given the nearest SIDs that nobody has, jointly for the rows
        of this call.
        """
        texts = item_texts(items, self.settings.detail_words)
        known = {item: row for row, item in enumerate(self._ids)}
        rows = np.array([known.get(item, -1) for item in items["item_id"].to_list()], dtype=np.int64)
        same = rows >= 0
        same[same] = self._keys[rows[same]] == text_keys(texts)[same]
        sids = np.zeros((len(items), len(self.levels)), np.int32)
        vectors = np.zeros((len(items), self.dim), np.float32)
        sids[same], vectors[same] = self._sids[rows[same]], self._vectors[rows[same]]
        new = np.flatnonzero(~same)
        if len(new):
            own = [texts[row] for row in new.tolist()]
            entries = self._entries(structured_keywords(items[new.tolist()]), own)
            raw = self._embed_raw(own, "item")
            vectors[new] = fuse(raw, self._keyword_vectors, entries, self.settings.fusion)
            sids[new], residuals = self.books.encode_with_residuals(vectors[new])
            if self.settings.quantiser.collision_aware:
                sids[new] = assign_last_codes(self.books, sids[new], residuals, self._sids).sids
        return sids, vectors

    # ---- files

    def save(self, folder: Path) -> None:
        """Write
        ``meta.json, pool.json, encoder.safetensors, codebooks.safetensors, items.safetensors, …``."""
        assert self._encoder is not None, "fit or load comes first"
        folder.mkdir(parents=True, exist_ok=True)
        base = 0 if self._encoder.heads is None else self._encoder.dim - self._ngram_dim
        # How long it took is not part of what was learnt: equal fits are equal files.
        report = {name: value for name, value in self.report.items() if name != "seconds"}
        write_json(folder / "meta.json", {"format": FORMAT, "base_dim": base, "report": report})
        self.pool.save(folder / "pool.json")
        save_file(
            {name: value.contiguous() for name, value in self._encoder.state_dict().items()},
            folder / "encoder.safetensors",
        )
        self.books.save(folder / "codebooks.safetensors")
        arrays = {"sids": self._sids, "vectors": self._vectors, "keys": self._keys}
        arrays["keywords"] = self._keyword_vectors.astype(np.float32)
        write_arrays(folder / "items.safetensors", arrays)
        write_json(folder / "items.json", self._ids)
        write_json(folder / "meanings.json", self._meanings)

    @property
    def _ngram_dim(self) -> int:
        return 0 if self.settings.encoder == "sentence-transformers" else self.settings.dim

    @classmethod
    def load(cls, folder: Path, config: Settings) -> Self:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        learner = cls(config)
        meta = read_meta(folder / "meta.json")
        learner.report = meta.get("report", {})
        learner.pool = KeywordPool.load(folder / "pool.json")
        learner._take_pool()
        learner.books = Codebooks.load(folder / "codebooks.safetensors")
        learner.levels, learner.dim = learner.books.levels, learner.books.dim
        learner._sids, learner._vectors, learner._keys, learner._keyword_vectors = read_arrays(
            folder / "items.safetensors", "sids", "vectors", "keys", "keywords"
        )
        learner._ids = read_json(folder / "items.json")
        learner._meanings = read_json(folder / "meanings.json")
        path = folder / "encoder.safetensors"
        learner._encoder = TextEncoder(learner.settings, int(meta.get("base_dim", 0)))
        try:
            learner._encoder.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ArtifactError(f"{path}: does not fit the configuration ({reason})") from error
        return learner

    def export(self, folder: Path) -> None:
        """Write what :class:`~onesearch_khqe.server.KhqeServer` opens."""
        assert self._encoder is not None, "fit or load comes first"
        folder.mkdir(parents=True, exist_ok=True)
        self.pool.save(folder / "pool.json")
        self.books.save(folder / "codebooks.safetensors")
        write_arrays(folder / "keywords.safetensors", {"vectors": self._keyword_vectors.astype(np.float16)})
        write_json(folder / "meanings.json", self._meanings)
        base: dict[str, Any] | None = None
        if self._encoder.ngram is not None:
            table = self._encoder.ngram.table().astype(np.float16)
            write_arrays(folder / "ngrams.safetensors", {"table": table})
        if self._encoder.heads is not None:
            self._table()
            assert self._model is not None
            base = self._model.export(
                folder / "base.onnx", folder / "base_tokenizer.json", self._encoder.heads
            )
        meta = {
            "format": FORMAT,
            "ngram": self._encoder.ngram is not None,
            "base": base,
            "mix": float(torch.sigmoid(self._encoder.mix.detach())),
            "fusion": self.settings.fusion,
        }
        write_json(folder / "meta.json", meta)


KEPT = frozenset({"multimodal.jsonl"})
EXACT = 4_096
"""So many texts are embedded in f32, as serving does; more of them faster."""


class Clock:
    """Seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
