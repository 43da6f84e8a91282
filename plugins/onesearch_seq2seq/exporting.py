"""Writes what the server opens: the search graph and a few arrays beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from onesearch_seq2seq.checkpoints import write_json
from onesearch_seq2seq.config import ON_DEVICES, Seq2SeqConfig
from onesearch_seq2seq.graphs import Precision
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.native import packing
from onesearch_seq2seq.native import weights as native_weights
from onesearch_seq2seq.search_graph import build_search_graph
from onesearch_seq2seq.static_engine import StoredNetwork

FORMAT = 1


def export(model: Seq2Seq, config: Seq2SeqConfig, folder: Path, precision: Precision | None = None) -> None:
    """Write ``search.onnx`` and, for the native library, ``native.safetensors``; ``arrays.safetensors``
    (weights of the parts, keys) and ``generator.json``; and, where the engine chosen builds its own graphs,
    all weights in float32 (``network.safetensors``)."""
    folder.mkdir(parents=True, exist_ok=True)
    precision = precision or config.precision
    weights = {name: tensor.detach().cpu().float().numpy() for name, tensor in model.state_dict().items()}
    graph = build_search_graph(
        weights, model.shape, model.dims, config.steer_rank, model.post_norm, precision
    )
    graph.save(folder / "search.onnx")
    native_weights.save(
        folder / "native.safetensors",
        packing.pack(model, weights, precision),
        packing.dimensions(model, config.steer_rank),
    )
    arrays = {"served": weights["served"], "keys": weights["keys"]}
    network: dict[str, Any] | None = None
    if config.engine in ON_DEVICES:
        stored = StoredNetwork(weights, model.shape, config.size, config.steer_rank, model.post_norm)
        network = stored.save(folder)
    partial = folder / "arrays.partial"
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
    partial.replace(folder / "arrays.safetensors")
    about = {
        "format": FORMAT,
        "levels": list(model.shape.levels),
        "vector": model.shape.vector,
        "width": model.dims.width,
        "prompt_limit": config.prompt_limit,
        "precision": precision,
        "native": True,
        "network": network,
    }
    write_json(folder / "generator.json", about)
