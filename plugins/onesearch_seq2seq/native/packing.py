"""Packs a network's weights for the native library. Only exporting needs this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onesearch.vocabulary import BOS

if TYPE_CHECKING:
    from onesearch_seq2seq.graphs import Precision
    from onesearch_seq2seq.model import Seq2Seq

LANES = 16


def pack(model: Seq2Seq, weights: Mapping[str, np.ndarray], precision: Precision) -> dict[str, np.ndarray]:
    """All arrays of a network's weights (by their names in its state), for the library."""
    packed: dict[str, np.ndarray] = {
        "tokens": weights["tokens.weight"],
        "encoder.positions": weights["encoder.positions.weight"],
        "decoder.positions": weights["decoder.positions.weight"],
    }
    scale = (model.dims.width // model.dims.heads) ** -0.5

    def matrix(name: str, *parts: str, first: float = 1.0) -> None:
        """One matrix of several linear maps one upon the other; ``first`` multiplies the first of them."""
        stacked = [weights[f"{part}.weight"] for part in parts]
        stacked[0] = stacked[0] * np.float32(first)
        packed.update(packed_matrix(name, np.concatenate(stacked), precision))
        if f"{parts[0]}.bias" in weights:
            biases = [weights[f"{part}.bias"] for part in parts]
            biases[0] = biases[0] * np.float32(first)
            packed[f"{name}.bias"] = _filled(np.concatenate(biases), 0)

    def norm(name: str) -> None:
        for part in ("weight", "bias"):
            if f"{name}.{part}" in weights:
                packed[f"{name}.{part}"] = weights[f"{name}.{part}"]

    for stack in ("encoder", "decoder"):
        norm(f"{stack}.input_norm")
        norm(f"{stack}.output_norm")
        for number in range(model.dims.layers):
            layer = f"{stack}.layers.{number}"
            for sublayer in ("attention_norm", "cross_norm", "feed_norm"):
                norm(f"{layer}.{sublayer}")
            matrix(f"{layer}.attention.qkv", f"{layer}.attention.q", f"{layer}.attention.kv", first=scale)
            matrix(f"{layer}.attention.out", f"{layer}.attention.out")
            if stack == "decoder":
                matrix(f"{layer}.cross.q", f"{layer}.cross.q", first=scale)
                matrix(f"{layer}.cross.kv", f"{layer}.cross.kv")
                matrix(f"{layer}.cross.out", f"{layer}.cross.out")
            matrix(f"{layer}.up", f"{layer}.up")
            matrix(f"{layer}.down", f"{layer}.down")
    steered = bool(weights["keys"].shape[1])
    for level in range(len(model.shape.levels)):
        # Only the legal children's rows of a head are ever read, and they decide the most: never 8 bits.
        head, whole = f"heads.{level}", f"heads.{level}.weight" in weights
        rows = weights[f"{head}.weight" if whole else f"{head}.up.weight"]
        kind = ("rows", np.float32) if precision == "fp32" else ("halves", np.float16)
        packed[f"{head}.{kind[0]}"] = _filled(rows, 1).astype(kind[1])
        packed[f"{head}.bias"] = weights[f"{head}.bias" if whole else f"{head}.up.bias"]
        if not whole:
            down = _filled(weights[f"{head}.down.weight"], 0)
            packed.update(packed_matrix(f"{head}.down", down, "fp32"))
        if steered:
            packed.update(packed_matrix(f"steer.{level}", weights[f"steer.{level}.weight"], "fp32"))
    if steered:
        packed.update(packed_matrix("keys", _filled(weights["keys"], 1), "fp32"))
    return {name: np.ascontiguousarray(array) for name, array in packed.items()}


def packed_matrix(name: str, weight: np.ndarray, precision: Precision) -> dict[str, np.ndarray]:
    """A matrix f32[outputs, inputs] by blocks: ``values`` f32[blocks, inputs, 16], or ``codes`` i8[blocks,
    inputs / 4, 16, 4] with the ``scale`` of each output and the ``sums`` of its codes."""
    weight = _filled(weight.astype(np.float32), 0)
    blocks, inputs = len(weight) // LANES, weight.shape[1]
    if precision == "fp32":
        return {f"{name}.values": weight.reshape(blocks, LANES, inputs).transpose(0, 2, 1)}
    codes, scale = quantised(weight)
    return {
        f"{name}.codes": codes.reshape(blocks, LANES, inputs // 4, 4).transpose(0, 2, 1, 3),
        f"{name}.scale": scale,
        f"{name}.sums": codes.sum(axis=1, dtype=np.int32),
    }


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes i8 of a matrix f32[outputs, inputs], and a scale f32 for each output.

    Where VNNI is missing, products of 8-bit codes are added in 16 bits, two by an instruction and two such
    sums by another: half as fast again as sums of 32 bits from the start. Activations are at most 255, so of
    the four weights that meet (inputs 8g + 0, 1, 4, 5 and 8g + 2, 3, 6, 7) those of one sign may sum up to
    128 (255 · 128 = 32,640). It costs less than it seems: the largest sum of four, of one sign, of a few
    hundred is some 1.5 times the largest weight.
    """
    fours = weight.reshape(len(weight), -1, 2, 2, 2)
    one_sign = np.maximum(np.maximum(fours, 0).sum(axis=(2, 4)), np.maximum(-fours, 0).sum(axis=(2, 4)))
    # Each of four codes may be rounded up by a half.
    scale = np.maximum(one_sign.max(axis=(1, 2)), 1e-12).astype(np.float32) / np.float32(126)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def _filled(array: np.ndarray, axis: int) -> np.ndarray:
    """With zeros up to a multiple of 16 along an axis."""
    missing = -array.shape[axis] % LANES
    return np.pad(array, [(0, missing if at == axis else 0) for at in range(array.ndim)])


def dimensions(model: Seq2Seq, steer_rank: int) -> dict[str, int]:
    """What the library must know beside the arrays."""
    return {
        "width": model.dims.width,
        "layers": model.dims.layers,
        "hidden": model.dims.hidden,
        "heads": model.dims.heads,
        "levels": len(model.shape.levels),
        "vector": model.shape.vector,
        "steer_rank": steer_rank,
        "start": BOS,
        "gelu": int(model.dims.activation == "gelu"),
        "post_norm": int(model.post_norm),
    }
