"""Products in int8: exact on every x86 processor, and a row's result is that row's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onesearch.compiling.runtime import Runtime
from onesearch_seq2seq.graphs import Graph, linear, quantised_columns

KINDS = ("normal", "one sign", "spiky")


def columns(kind: str, n: int, m: int = 33) -> np.ndarray:
    random = np.random.default_rng(n)
    found = random.normal(size=(n, m)).astype(np.float32)
    if kind == "one sign":
        return np.abs(found)
    return np.where(random.random((n, m)) < 0.1, found * 20, found) if kind == "spiky" else found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 7, 64, 256])
def test_no_pair_of_weights_can_saturate(kind, n):
    values = columns(kind, n)
    quantised, scale = quantised_columns(values)
    assert quantised.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == (33,)
    assert (np.abs(quantised * scale - values) < scale * 0.501).all()
    pairs = np.pad(quantised.astype(int), ((0, n % 2), (0, 0))).reshape(-1, 2, 33)
    for sign in (1, -1):
        assert (255 * np.maximum(sign * pairs, 0).sum(axis=1)).max() < 2**15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
@pytest.mark.parametrize("n", [1, 7, 64, 256])
def test_integer_products_are_exact_on_this_processor(kind, rows, n, tmp_path):
    quantised, _ = quantised_columns(columns(kind, n))
    graph = Graph("product")
    left = graph.input("left", np.uint8, ["M", n])
    graph.output(graph.MatMulInteger(left, quantised), "product", np.int32, ["M", 33])
    graph.save(tmp_path / "product.onnx")
    values = np.random.default_rng(rows).choice([0, 1, 128, 255, 255, 255], (rows, n)).astype(np.uint8)
    found = Runtime(1).session(tmp_path / "product.onnx").run({"left": values})["product"]
    np.testing.assert_array_equal(found, values.astype(int) @ quantised.astype(int))


def product(folder: Path, weight: np.ndarray, bias: np.ndarray | None, value: np.ndarray, **settings):
    graph = Graph("linear")
    name = graph.input("value", np.float32, ["B", "A", weight.shape[1]])
    result = linear(graph, name, weight, bias, **settings)
    graph.output(result, "result", np.float32, ["B", "A", len(weight)])
    graph.save(folder / "linear.onnx")
    return Runtime(1).session(folder / "linear.onnx").run({"value": value})["result"]


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_int8_is_near_and_a_row_does_not_see_the_others(positive, with_bias, tmp_path):
    random = np.random.default_rng(0)
    weight = random.normal(size=(48, 64)).astype(np.float32) / 8
    bias = random.normal(size=48).astype(np.float32) if with_bias else None
    value = random.normal(size=(3, 5, 64)).astype(np.float32)
    value[1] *= 1000
    value[2, 1] = 0
    value = np.maximum(value, 0) if positive else value
    found = product(tmp_path, weight, bias, value, precision="int8", positive=positive)
    exact = product(tmp_path, weight, bias, value, precision="fp32")
    size = np.abs(value).max(axis=-1, keepdims=True)
    assert (np.abs(found - exact) <= 0.02 * size).all(), "a hundredth of a row's largest number, and rounding"
    for at in range(3):
        alone = product(tmp_path, weight, bias, value[at : at + 1], precision="int8", positive=positive)
        np.testing.assert_array_equal(alone[0], found[at])
    np.testing.assert_array_equal(found[2, 1], np.zeros(48, np.float32) if bias is None else bias)
