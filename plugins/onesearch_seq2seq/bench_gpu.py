"""Searches on a GPU, beside one another in one run: ``onesearch bench decode --gpu``.

TensorRT's engine and torch's run the same static graph, so what differs is who runs it. The processor's
float32 search says what the lists should be. Random weights, as in :mod:`onesearch_seq2seq.bench`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onesearch.contracts import Prompt, SearchResult
from onesearch.index import LiveTree
from onesearch.progress import Progress

from onesearch_seq2seq import devices
from onesearch_seq2seq.bench_peers import transformers_engines
from onesearch_seq2seq.bench_world import TEXT, Question, asked_of, opened, random_network
from onesearch_seq2seq.config import GpuConfig, Seq2SeqConfig
from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.graphs import Precision
from onesearch_seq2seq.server import Seq2SeqServer
from onesearch_seq2seq.static_engine import StaticEngine
from onesearch_seq2seq.torch_program import TorchDevice

_TOP = 10
_WARM_UP = 3
_PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
_SLOW_ROUNDS = 3

Ask = Callable[[Question], np.ndarray]
"""Queries → the leaves found, i32[B, K]."""


def timed(
    sizes: Sequence[str],
    beams: Sequence[int],
    live: LiveTree,
    batches: Sequence[int],
    tokens: int,
    repeats: int,
    threads: int,
    peers: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Time every engine that can run here.

    Returns:
        ``rows``: engine, size, beams, batch, items, constrained, p50_ms and p99_ms of a whole batch,
        queries_per_s (the best of the batches is saturation), illegal, same_10 (share of the processor's
        first ten that are found). ``left_out``: what did not run, and why. ``gpu``: its name. ``build_s``:
        seconds from weights to a graph that has answered once, by engine.
    """
    on_gpu = torch.cuda.is_available()
    left_out: dict[str, str] = {}
    if not on_gpu:
        left_out["torch-cuda-graph"] = left_out["transformers"] = "no GPU: torch sees none"
    try:
        devices.of("tensorrt", Path())
    except devices.NoDeviceError as error:
        left_out["tensorrt"] = str(error)
    rows: list[dict[str, Any]] = []
    built: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, progress.task("decoding", len(sizes) * len(beams)) as task:
        for size in sizes:
            model, config = random_network(size)
            path = Path(folder) / size
            export(model, config.model_copy(update={"engine": "torch"}), path, "fp32")
            for width in beams:
                for batch in batches:
                    question = partial(_questions, live, tokens, batch, repeats + _WARM_UP)
                    plain = _ask(opened(path, live, threads, config), live, width, model.dims.width)
                    expected = [plain(one) for one in question()]
                    for name, make in _engines(
                        size, path, config, live, width, batch, threads, left_out, peers
                    ):
                        began = time.perf_counter()
                        ask = make()
                        ask(next(iter(question())))
                        built[f"{name}, {size}, {width} beams, batch {batch}"] = time.perf_counter() - began
                        rows.append(
                            {"engine": name, "size": size, "beams": width, "batch": batch}
                            | _measured(ask, question(), expected, live)
                        )
                task.advance(1, f"{size}, {width} beams")
    return {
        "rows": rows,
        "left_out": left_out,
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "build_s": {name: round(seconds, 1) for name, seconds in built.items()},
    }


def _questions(live: LiveTree, tokens: int, batch: int, count: int) -> list[Question]:
    random = np.random.default_rng(7)
    vectors = live.vectors[-1].astype(np.float32)
    return [asked_of(vectors, tokens, random, batch) for _ in range(count)]


def _engines(
    size: str,
    path: Path,
    config: Seq2SeqConfig,
    live: LiveTree,
    width: int,
    batch: int,
    threads: int,
    left_out: dict[str, str],
    peers: bool,
) -> list[tuple[str, Callable[[], Ask]]]:
    """Names, and how to make each engine that can run here."""

    def server(engine: str, precision: Precision, recording: bool = True) -> Ask:
        gpu = GpuConfig(precision=precision, beams=(width,), batch=batch, prefixes=0)  # type: ignore[arg-type]
        made = opened(path, live, threads, config.model_copy(update={"engine": engine, "gpu": gpu}))
        if not recording and isinstance(made.engine, StaticEngine):
            made.engine.device = TorchDevice(recording=False)
        return _ask(made, live, width, config.dimensions.width)

    on_gpu = torch.cuda.is_available()
    found: list[tuple[str, Callable[[], Ask]]] = []
    if "tensorrt" not in left_out:
        found += [(f"tensorrt-{one}", partial(server, "tensorrt", one)) for one in _PRECISIONS]
    if on_gpu:
        found += [(f"torch-cuda-graph-{one}", partial(server, "torch", one)) for one in _PRECISIONS]
        found.append(("torch-fp16", partial(server, "torch", "fp16", False)))
    elif batch == 1:
        found.append(("torch-fp32 (processor)", partial(server, "torch", "fp32")))
    if peers and on_gpu and batch == 1:
        found.append(("transformers", partial(_transformers, size, live, width, threads, path)))
    return found


def _ask(server: Seq2SeqServer, live: LiveTree, beams: int, wide: int) -> Ask:
    def ask(question: Question) -> np.ndarray:
        nothing = np.zeros((len(question.ids), 0, wide), np.float32)
        prompt = Prompt(question.ids, np.ones(question.ids.shape, bool), nothing)
        found: SearchResult = server.search(prompt, question.vector, live, beams)
        return found.leaves

    return ask


def _transformers(size: str, live: LiveTree, beams: int, threads: int, folder: Path) -> Ask:
    [generate] = transformers_engines(size, live.tree, TEXT, threads, folder, "cuda").values()
    return lambda question: live.tree.find_leaves(generate(question, beams))[None]


def _measured(
    ask: Ask, questions: Sequence[Question], expected: Sequence[np.ndarray], live: LiveTree
) -> dict[str, Any]:
    times: list[float] = []
    shared: list[float] = []
    illegal: list[float] = []
    for number, (question, wanted) in enumerate(zip(questions, expected, strict=True)):
        if len(times) >= _SLOW_ROUNDS and np.median(times) > 0.4:
            break
        began = time.perf_counter()
        found = ask(question)
        took = time.perf_counter() - began
        if number < _WARM_UP:
            continue
        times.append(took)
        for ours, theirs in zip(found, wanted, strict=True):
            first = theirs[:_TOP][theirs[:_TOP] >= 0]
            shared.append(len(np.intersect1d(ours[:_TOP], first)) / max(len(first), 1))
            illegal.append(float((ours < 0).sum()) / len(ours) if live.tree.leaf_count >= len(ours) else 0.0)
    batch = len(expected[0])
    return {
        "items": len(live.tree.leaf_items),
        "constrained": True,
        "p50_ms": round(float(np.median(times)) * 1000, 3),
        "p99_ms": round(float(np.percentile(times, 99)) * 1000, 3),
        "queries_per_s": round(batch / float(np.median(times)), 1),
        "illegal": round(float(np.mean(illegal)), 4),
        "same_10": round(float(np.mean(shared)), 4),
        "queries": batch * len(times),
    }
