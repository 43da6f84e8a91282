"""Decoding beside its peers, in one run: ``onesearch bench decode``.

Networks have random weights: what is timed does not depend on what was learnt. The peers get networks of the
same sizes over the same vocabulary. Every round asks each engine once, so that a machine that drifts drifts
for all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import Prompt, SearchResult
from onesearch.errors import UsageError
from onesearch.index import LiveTree
from onesearch.progress import Progress, SilentProgress

from onesearch_seq2seq.bench_gpu import timed
from onesearch_seq2seq.bench_peers import PEERS
from onesearch_seq2seq.bench_world import (
    TEXT,
    Question,
    asked_of,
    opened,
    random_network,
    synthetic_tree,
)
from onesearch_seq2seq.config import GpuConfig
from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.graphs import Precision
from onesearch_seq2seq.native.engine import Account, NativeEngine
from onesearch_seq2seq.server import Seq2SeqServer

_SLOW_ROUNDS = 3  # of the peers that take half a second and more
_ENGINES: dict[str, tuple[tuple[Precision, str], ...]] = {
    "auto": (("int8", "auto"), ("fp32", "auto")),
    "onnx": (("int8", "onnx"),),
    "torch": (("fp32", "torch"),),
}


Engine = Callable[[Question, int], np.ndarray]
"""``engine(question, beams)`` → the SIDs found, i32[K, L]."""


def run(
    sizes: Sequence[str] = ("small",),
    beams: Sequence[int] = (128, 512),
    items: int = 54_667,
    tokens: int = 64,
    repeats: int = 20,
    threads: int = 2,
    peers: bool = True,
    engine: Sequence[str] = ("auto", "onnx"),
    gpu: bool = False,
    batch: Sequence[int] = (1, 8, 64),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time one query at a time on a synthetic catalogue.

    Args:
        sizes: sizes of the network: tiny, small, base.
        beams: beam widths.
        items: items of the catalogue.
        tokens: tokens of a prompt.
        repeats: queries timed.
        threads: threads of every engine.
        peers: time transformers and CTranslate2 beside it, where they are installed.
        engine: what of ours to time: auto (the native search where it runs, in int8 and fp32), onnx (the
            graph in int8), torch (the static graph in fp32, on the processor).
        gpu: time searches on a GPU instead: TensorRT, torch with and without CUDA graphs, transformers, at
            each batch size. What cannot run here is left out, and ``left_out`` says why.
        batch: queries searched at once, with --gpu.

    Returns:
        ``rows``: engine, size, beams, items, constrained, p50_ms, p99_ms, illegal (share of the SIDs found
        that no item has), certified (share of the queries whose top 10 is proven exact; None where an engine
        cannot tell), over_ctranslate2 (its median time over that of CTranslate2's int8, where that is
        there), cpu_ms and cpu_over_ctranslate2 (the same by the processor time of all threads, which other
        work on the machine changes less).
        ``phases``: for the native engines, a query's mean milliseconds in the encoder, at each step of the
        decoder and in all else (tree, heads, ranking), and the rows that went through the decoder.
        ``matmul_ms``: a product of 512 × 512 by 512 × 2048 in float32 in the same runtime, to compare
        machines by.
        With ``gpu`` see :func:`onesearch_seq2seq.bench_gpu.timed`.
    """
    progress = progress or SilentProgress()
    torch.set_num_threads(threads)
    live = synthetic_tree(items)
    if gpu:
        return timed(sizes, beams, live, batch, tokens, repeats, threads, peers, progress)
    if unknown := set(engine) - set(_ENGINES):
        raise UsageError(f"--engine {min(unknown)}: known are {', '.join(_ENGINES)}")
    random = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, progress.task("decoding", len(sizes) * len(beams)) as task:
        for size in sizes:
            kinds = [kind for name in engine for kind in _ENGINES[name]]
            engines, own = _own_engines(size, live, threads, Path(folder), kinds, beams)
            if peers:
                for make in PEERS:
                    engines.update(make(size, live.tree, TEXT, threads, Path(folder)))
            for width in beams:
                for one in own.values():
                    one.forget()
                rows += _time(engines, own, size, width, live, (tokens, repeats), random)
                phases += [one.phases(name, size, width) for name, one in own.items() if one.accounts]
                task.advance(1, f"{size}, {width} beams")
    return {"rows": rows, "phases": phases, "matmul_ms": _matmul_ms(threads), "threads": threads}


@dataclass
class _Own:
    """What a server of ours tells beside the SIDs: proofs, and where the time went (the native one)."""

    server: Seq2SeqServer
    certified: list[bool] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)

    def forget(self) -> None:
        self.certified.clear()
        self.accounts.clear()

    def engine(self, live: LiveTree, width: int) -> Engine:
        sids, nothing = live.tree.leaf_sids(), np.zeros((1, 0, width), np.float32)

        def search(question: Question, beams: int) -> np.ndarray:
            prompt = Prompt(question.ids, np.ones(question.ids.shape, bool), nothing)
            found: SearchResult = self.server.search(prompt, question.vector, live, beams)
            self.certified.append(bool(found.log_probs[0, min(9, beams - 1)] >= found.dropped[0]))
            if isinstance(self.server.engine, NativeEngine) and self.server.engine.account:
                self.accounts.append(self.server.engine.account)
            return sids[found.leaves[0][found.leaves[0] >= 0]]

        return search

    def phases(self, name: str, size: str, beams: int) -> dict[str, Any]:
        decoder, rows = (
            np.mean([getattr(one, kind) for one in self.accounts], axis=0) for kind in ("decoder", "rows")
        )
        return {
            "engine": name,
            "size": size,
            "beams": beams,
            "encoder_ms": round(float(np.mean([one.encoder for one in self.accounts])) * 1000, 3),
            "decoder_ms": [round(float(step) * 1000, 3) for step in decoder],
            "rest_ms": round(float(np.mean([one.rest for one in self.accounts])) * 1000, 3),
            "decoder_rows": [round(float(step), 1) for step in rows],
        }


def _own_engines(
    size: str,
    live: LiveTree,
    threads: int,
    folder: Path,
    kinds: Sequence[tuple[Precision, str]],
    beams: Sequence[int],
) -> tuple[dict[str, Engine], dict[str, _Own]]:
    """Ours by name, of the precisions and engines asked for."""
    model, config = random_network(size)
    gpu = GpuConfig(precision="fp32", beams=tuple(beams), batch=1, prefixes=0)
    own: dict[str, _Own] = {}
    for precision, engine in kinds:
        path = folder / f"{size}-{precision}"
        if not path.exists():
            export(model, config.model_copy(update={"engine": "torch"}), path, precision)
        server = opened(path, live, threads, config.model_copy(update={"engine": engine, "gpu": gpu}))
        used = "" if server.engine.name == "native" else f"{server.engine.name}-"
        own[f"onesearch-{used}{precision}"] = _Own(server)
    return {name: one.engine(live, model.dims.width) for name, one in own.items()}, own


def _time(
    engines: dict[str, Engine],
    own: dict[str, _Own],
    size: str,
    beams: int,
    live: LiveTree,
    asked: tuple[int, int],
    random: np.random.Generator,
) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in engines}
    used: dict[str, list[float]] = {name: [] for name in engines}
    illegal: dict[str, list[float]] = {name: [] for name in engines}
    tokens, repeats = asked
    leaf_vectors = live.vectors[-1].astype(np.float32)
    for number in range(repeats + 2):  # the first two warm up
        question = asked_of(leaf_vectors, tokens, random)
        for name, engine in engines.items():
            slow = times[name] and np.median(times[name]) > 0.4
            if slow and number > _SLOW_ROUNDS + 1:
                continue
            began, before = time.perf_counter(), time.process_time()
            found = engine(question, beams)
            took, spent = time.perf_counter() - began, time.process_time() - before
            if number > 1:
                times[name].append(took)
                used[name].append(spent)
                illegal[name].append(float((live.tree.find_leaves(found) < 0).mean()) if len(found) else 0.0)
    peer = times.get("ctranslate2-int8"), used.get("ctranslate2-int8")
    return [
        {
            "engine": name,
            "size": size,
            "beams": beams,
            "items": len(live.tree.leaf_items),
            "constrained": not name.startswith("ctranslate2"),
            "p50_ms": round(float(np.median(times[name])) * 1000, 2),
            "p99_ms": round(float(np.percentile(times[name], 99)) * 1000, 2),
            "illegal": round(float(np.mean(illegal[name])), 4),
            "certified": round(float(np.mean(own[name].certified[2:])), 3) if name in own else None,
            "over_ctranslate2": _ratio(times[name], peer[0]),
            "cpu_ms": round(float(np.median(used[name])) * 1000, 2),
            "cpu_over_ctranslate2": _ratio(used[name], peer[1]),
            "queries": len(times[name]),
        }
        for name in engines
    ]


def _ratio(own: list[float], peer: list[float] | None) -> float | None:
    return round(float(np.median(own) / np.median(peer)), 3) if peer else None


def _matmul_ms(threads: int) -> float:
    """Median time of one plain product (0.54 G multiply-adds) in ONNX Runtime."""
    from onesearch_seq2seq.graphs import Graph

    graph = Graph("matmul")
    left = graph.input("left", np.float32, [512, 512])
    graph.output(graph.MatMul(left, np.ones((512, 2048), np.float32)), "product", np.float32, [512, 2048])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matmul.onnx"
        graph.save(path)
        session = Runtime(threads).session(path)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            session.run({"left": np.ones((512, 512), np.float32)})
            times.append(time.perf_counter() - began)
    return round(float(np.median(times)) * 1000, 2)
