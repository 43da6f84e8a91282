"""Small random worlds: a catalogue with its tree, a network of random weights, and its logits for the
reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import Prompt, ServingContext
from onesearch.index import CatalogueIndex, LiveTree
from onesearch.training.examples import Examples, Ragged, SidTask, TextTask
from onesearch.vocabulary import EOS, QUERY, Vocabulary
from onesearch_seq2seq.config import GpuConfig, Seq2SeqConfig
from onesearch_seq2seq.exporting import export
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.native import build, library
from onesearch_seq2seq.server import Seq2SeqServer
from onesearch_seq2seq.shape import Shape

DIM, TEXT = 12, 40
torch.set_num_threads(1)


def make_index(sids: np.ndarray, levels: tuple[int, ...], seed: int = 0) -> CatalogueIndex:
    random = np.random.default_rng(seed)
    count = len(sids)
    vectors = random.normal(size=(count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(count)],
            "title": [f"thing {n}" for n in range(count)],
            "category": [["things"]] * count,
            "brand": ["maker"] * count,
            "price": [float(n) for n in range(count)],
            "in_stock": [True] * count,
        }
    )
    return CatalogueIndex.build(items, sids, vectors, random.integers(1, 6, count).astype(np.float32), levels)


def random_sids(levels: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """Skewed codes, so that some prefixes are wide and some have a single leaf."""
    random = np.random.default_rng(seed)
    return np.stack([(random.random(count) ** 2 * size).astype(np.int32) for size in levels], axis=1)


@dataclass
class Network:
    """A network of random weights with its servers, one a precision."""

    model: Seq2Seq
    config: Seq2SeqConfig
    folder: Path

    def server(
        self, precision: str, index: CatalogueIndex, engine: str = "auto", beams: int = 24, /, **gpu: object
    ) -> Seq2SeqServer:
        """``static`` runs the graphs that TensorRT compiles under ONNX Runtime; they have ``beams``."""
        if engine == "native":
            _need_library()
        folder = self.folder / precision
        if not folder.exists():
            with_weights = self.config.model_copy(update={"engine": "torch"})
            export(self.model, with_weights, folder, precision)  # type: ignore[arg-type]
        vocabulary = SimpleNamespace(levels=self.model.shape.levels)
        context = ServingContext(folder, vocabulary, index, Runtime(threads=1))  # type: ignore[arg-type]
        settings = GpuConfig(**{"precision": "fp32", "beams": (beams,), "batch": 2, **gpu})
        kind = "torch" if engine == "static" else engine
        config = self.config.model_copy(update={"engine": kind, "gpu": settings})
        server = Seq2SeqServer.open(folder, context, config)
        if engine == "static":
            server.engine.device = OnnxDevice()
            server.engine.make_room(index.live)
        return server

    def logits(self, live: LiveTree, ids: np.ndarray, query: np.ndarray, weights: np.ndarray, prefix=None):
        """The reference's logits for one prompt i32[T] and query vector f32[D]."""
        model, tree = self.model, live.tree
        prefix = None if prefix is None else torch.from_numpy(prefix[None])
        with torch.no_grad():
            memory, bias = model.encode(
                torch.from_numpy(ids[None].astype(np.int64)),
                torch.ones(1, len(ids), dtype=torch.bool),
                prefix,
            )

        def prefixes(depth: int, nodes: np.ndarray) -> np.ndarray:
            codes = np.zeros((len(nodes), depth), np.int64)
            for level in range(depth - 1, -1, -1):
                codes[:, level] = tree.code[level][nodes]
                nodes = np.searchsorted(tree.first_child[level], nodes, side="right") - 1
            return codes

        def logits(depth: int, nodes: np.ndarray) -> list[np.ndarray]:
            codes = torch.from_numpy(np.pad(prefixes(depth, nodes), ((0, 0), (0, 1))))
            with torch.no_grad():
                inputs = model.sid_inputs(codes)
                states = model.decode(inputs, memory.expand(len(nodes), -1, -1), bias)[:, depth]
                heads = model.heads[depth](states).numpy()
                steers = model.steer[depth](states).numpy() if len(model.steer) else None
            out = []
            for row, node in enumerate(nodes):
                children = np.arange(*tree.first_child[depth][node : node + 2])
                vectors = live.node_vectors(depth)[children].astype(np.float32)
                mass = live.log_mass[depth][children].astype(np.float32)
                logit = weights[0, depth] * heads[row][tree.code[depth][children]]
                if steers is not None:
                    logit = logit + weights[1, depth] * (vectors @ model.keys.detach().numpy()) @ steers[row]
                logit = logit + weights[2, depth] * vectors @ query
                out.append(logit + weights[3, depth] * np.where(np.isfinite(mass), mass, 0))
            return out

        return logits


class OnnxProgram:
    """A static graph under ONNX Runtime."""

    def __init__(self, graph) -> None:
        self.model = onnx.shape_inference.infer_shapes(graph.model(), strict_mode=True, data_prop=True)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(self.model.SerializeToString(), options)
        self.inputs = {value.name for value in self.session.get_inputs()}

    def run(self, request, structure, masses):
        feeds = {**request, **structure, **masses}
        names = [value.name for value in self.session.get_outputs()]
        found = self.session.run(names, {name: feeds[name] for name in self.inputs})
        return dict(zip(names, found, strict=True))


class OnnxDevice:
    """Runs the very graphs that TensorRT compiles where there is no GPU."""

    name, rebuilds = "onnx-static", True

    def resident(self, array):
        return array

    def program(self, graph):
        return OnnxProgram(graph)


def _need_library() -> None:
    """Skip where there is no compiler to build the native library, fail where it is of older sources."""
    try:
        library.library()
    except library.LibraryError as error:
        pytest.skip(str(error))
    if build.fingerprint().encode() not in build.LIBRARY.read_bytes():
        pytest.fail("the native library is out of date: make native")


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Callable[..., Network]:
    """``network(levels, steer_rank=4, speaking=None)``: a network of random weights, made once a session."""
    made: dict[tuple, Network] = {}

    def make(levels: tuple[int, ...], steer_rank: int = 4, speaking: int | None = None) -> Network:
        key = (levels, steer_rank, speaking)
        if key not in made:
            torch.manual_seed(len(made))
            config = Seq2SeqConfig(size="tiny", steer_rank=steer_rank, head_rank=(0, 0, 6))
            model = Seq2Seq(Shape(TEXT + sum(levels), TEXT, levels, DIM), config).eval()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "heads" in name or "steer" in name:
                        parameter.normal_(std=0.2)
                    elif parameter.dim() > 1:
                        parameter.normal_(std=max(1, parameter.shape[-1]) ** -0.5)
                served = [0.7, 1.3, 5.0, 0.6, 8.0, 0.3]
                model.served.copy_(torch.tensor(served)[:, None] * torch.linspace(1, 1.5, len(levels)))
                if speaking is not None:
                    model.served[:2, speaking:] = 0  # the network has a say in the first levels only
            made[key] = Network(model, config, tmp_path_factory.mktemp("network"))
        return made[key]

    return make


@pytest.fixture(scope="session")
def make_prompt() -> Callable[..., Prompt]:
    """``make_prompt(rows, prefix=0)``: ragged rows of ids as a prompt."""

    def make(rows: list[list[int]], prefix: np.ndarray | None = None) -> Prompt:
        ids, mask = Ragged.of(rows), np.zeros(0)
        width = max(len(row) for row in rows)
        table = np.zeros((len(rows), width), np.int32)
        mask = np.zeros((len(rows), width), bool)
        for at in range(len(rows)):
            table[at, : len(ids.row(at))] = ids.row(at)
            mask[at, : len(ids.row(at))] = True
        return Prompt(table, mask, np.zeros((len(rows), 0, 64), np.float32) if prefix is None else prefix)

    return make


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """The builders above, for tests that want other sizes."""
    return SimpleNamespace(make_index=make_index, random_sids=random_sids, dim=DIM, text=TEXT)


@pytest.fixture(scope="session")
def examples() -> Examples:
    """A learnable toy: the words of a prompt name its target; the query vectors are near the target's."""
    levels, count, asked = (8, 6, 4), 90, 700
    index = make_index(random_sids(levels, count, 1), levels)
    random = np.random.default_rng(5)
    vocabulary = Vocabulary.train([f"thing {n}" for n in range(count)], levels, size=330)
    target = random.integers(0, count, asked)
    vectors = index.vectors[target].astype(np.float32) + random.normal(size=(asked, DIM)) * 0.3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    leaves = index.live.tree.find_leaves(index.sids)
    words = vocabulary.text_ids([f"thing {n}" for n in range(count)], 8)
    held_out = random.random(asked) < 0.2
    to_sid = SidTask(
        "query text → item SID",
        Ragged.of([[QUERY, *words[t]] for t in target]),
        np.arange(asked, dtype=np.int32),
        leaves[target],
        np.ones(asked, np.float32),
        held_out,
    )
    without_prior = replace(
        to_sid, name="item text → SID", vector=np.full(asked, -1, np.int32), held_out=np.zeros(asked, bool)
    )
    to_text = TextTask(
        "SID → item text",
        Ragged.of([vocabulary.sid_ids(sid).tolist() for sid in index.sids]),
        Ragged.of([[*ids, EOS] for ids in words]),
        np.ones(count, np.float32),
    )
    share = {"query text → item SID": 0.7, "item text → SID": 0.2}
    return Examples(
        vocabulary, index.live, vectors.astype(np.float16), (to_sid, without_prior), (to_text,), share
    )
