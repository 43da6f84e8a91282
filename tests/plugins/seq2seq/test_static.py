"""Static graphs and the engine that fills requests up to them. That they find what the reference finds is in
test_search.py; on a GPU they have not run yet."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onesearch.compiling.tensorrt import TensorRT
from onesearch.errors import ArtifactError
from onesearch.index import Filters
from onesearch_seq2seq import devices
from onesearch_seq2seq.reference import leaf_log_probs, reference_search
from onesearch_seq2seq.sizes import Sizes, fits, padded, room_for, rows_for
from onesearch_seq2seq.static_graph import build_static_graph

LEVELS = (6, 5, 4, 3, 3)
FIELDS = ("leaves", "log_probs", "dropped", "dropped_mass", "branches")
# What onnx-tensorrt's table of operators lists, of what static graphs use.
KNOWN = {
    "Add", "And", "Cast", "Concat", "CumSum", "Div", "Equal", "Exp", "Expand", "Gather", "GatherElements",
    "Gelu", "Greater", "Identity", "IsInf", "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "MatMul", "Max", "Mul", "Not", "Or", "ReduceMax", "ReduceSum", "Relu", "Reshape", "ScatterElements",
    "Slice", "Softmax", "Split", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


@pytest.fixture(scope="module")
def index(world):
    return world.make_index(world.random_sids(LEVELS, 120, 5), LEVELS)


@pytest.fixture(scope="module")
def ask(make_prompt, world):
    """Five queries of different lengths, with prefixes."""
    random = np.random.default_rng(1)
    rows = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11], [4, 4], [12]]
    prompt = make_prompt(rows, random.normal(size=(5, 2, 64)).astype(np.float32))
    queries = random.normal(size=(5, world.dim)).astype(np.float32)
    return prompt, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def assert_close(found, expected, tolerance=2e-4):
    for field in FIELDS:
        ours, theirs = getattr(found, field), getattr(expected, field)
        if ours.dtype == np.int32:
            np.testing.assert_array_equal(ours, theirs, field)
        else:
            np.testing.assert_allclose(ours, theirs, atol=tolerance, err_msg=field)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_graph_is_static_and_of_known_operators(precision, network, index):
    net = network(LEVELS)
    sizes = Sizes(2, 16, 2, 24, room_for(index.live.tree), rows_for(index.live.tree, 24, 4096))
    weights = {name: tensor.numpy() for name, tensor in net.model.state_dict().items()}
    shape, dims = net.model.shape, net.model.dims
    graph = build_static_graph(weights, shape, dims, 4, net.model.post_norm, precision, sizes)
    model = onnx.shape_inference.infer_shapes(
        graph.model(), check_type=True, strict_mode=True, data_prop=True
    )
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= KNOWN
    assert {node.domain for node in model.graph.node} == {""}
    shapes = {value.name: value.type.tensor_type for value in (*model.graph.value_info, *model.graph.output)}
    for node in model.graph.node:
        for name in node.output:
            assert all(dim.HasField("dim_value") for dim in shapes[name].shape.dim), (node.op_type, name)
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in model.graph.initializer}
    tops = [node for node in model.graph.node if node.op_type == "TopK"]
    assert len(tops) == len(LEVELS) and all(constants[node.input[1]] == 24 for node in tops)
    half = {"fp32": 0, "fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    products = [shapes[node.output[0]].elem_type for node in model.graph.node if node.op_type == "MatMul"]
    assert (half in products) == bool(half) and onnx.TensorProto.FLOAT in products


def test_sizes_follow_the_tree(index, world):
    tree = index.live.tree
    room = room_for(tree)
    assert fits(tree, room) and room[0] == LEVELS[0] and (np.array(tree.node_counts) <= room).all()
    assert not fits(tree, (*room[:-1], tree.leaf_count - 1))
    wide = world.make_index(np.stack(np.meshgrid(np.arange(4), np.arange(300)), -1).reshape(-1, 2), (4, 300))
    # 300 children are 19 rows: 18 beyond the one that each beam has.
    assert rows_for(wide.live.tree, 4, 65_536) == (76,)
    assert rows_for(wide.live.tree, 4, 1_024) == (64,)
    arrays = padded(index.live, room, np.eye(world.dim, 4, dtype=np.float32))
    assert arrays["first_child_2"].shape == (room[1] + 1,)
    assert (np.diff(arrays["first_child_2"])[tree.node_counts[1] :] == 0).all(), "sentinels have no children"


def test_batches_and_widths_are_filled_up(network, index, ask):
    prompt, queries = ask
    server = network(LEVELS).server("fp32", index, "torch", batch=2)
    plain = network(LEVELS).server("fp32", index, "onnx")
    for beams in (24, 10):  # five queries by twos; ten beams by the graph for 24
        found = server.search(prompt, queries, index.live, beams)
        exact = (
            network(LEVELS).server("fp32", index, "torch", beams).search(prompt, queries, index.live, beams)
        )
        assert_close(exact, plain.search(prompt, queries, index.live, beams))
        assert found.leaves.shape == (5, beams)
        better = found.log_probs >= exact.log_probs - 1e-5
        assert better.all(), "a wider search finds no less"
        assert (found.dropped >= found.log_probs.min(axis=1) - 10).all()
    assert {sizes.batch for sizes in server.engine._programs} == {1, 2}


def test_what_is_past_the_beams_counts_as_dropped(network, index, ask):
    prompt, queries = ask
    server = network(LEVELS).server("fp32", index, "torch", 24)
    whole, cut = (server.search(prompt, queries, index.live, beams) for beams in (24, 6))
    np.testing.assert_array_equal(cut.leaves, whole.leaves[:, :6])
    np.testing.assert_allclose(cut.dropped, np.maximum(whole.dropped, whole.log_probs[:, 6]), atol=1e-6)
    rest = np.logaddexp(whole.dropped_mass, np.logaddexp.reduce(whole.log_probs[:, 6:], axis=1))
    np.testing.assert_allclose(cut.dropped_mass, rest, atol=1e-5)


@pytest.mark.parametrize("engine", ["static", "torch"])
def test_beams_without_room_are_dropped_with_their_mass(engine, network, world, make_prompt):
    levels = (4, 300)
    index = world.make_index(np.stack(np.meshgrid(np.arange(4), np.arange(300)), -1).reshape(-1, 2), levels)
    net = network(levels)
    query = np.random.default_rng(3).normal(size=(1, world.dim)).astype(np.float32)
    server = net.server("fp32", index, engine, 4, candidates=1_024)
    found = server.search(make_prompt([[1, 2]]), query, index.live, 4)
    logits = net.logits(index.live, np.array([1, 2]), query[0], server.weights["guided"])
    whole, every = reference_search(index.live, logits, 4), leaf_log_probs(index.live, logits)
    roots = np.logaddexp.reduceat(every, index.live.tree.first_child[1][:-1])
    assert found.branches.tolist() == [[4, 900]], "three of four beams have room"
    cut = roots.min()
    np.testing.assert_allclose(found.dropped[0], max(whole.dropped[0], cut), atol=1e-4)
    gone = np.setdiff1d(np.arange(1200), found.leaves[0])
    np.testing.assert_allclose(found.dropped_mass[0], np.logaddexp.reduce(every[gone]), atol=1e-4)
    best = np.argsort(-every)[:4]
    for k in range(1, 5):
        if found.log_probs[0, k - 1] >= found.dropped[0] + 1e-4:
            assert set(best[:k].tolist()) == set(found.leaves[0, :k].tolist())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_finds_nearly_the_same(precision, network, index, ask):
    prompt, queries = ask
    plain = network(LEVELS).server("fp32", index, "onnx").search(prompt, queries, index.live, 24)
    server = network(LEVELS).server("fp32", index, "torch", precision=precision)
    server.engine.tokens = 8  # processors are slow at bf16
    found = server.search(prompt, queries, index.live, 24)
    shared = [len(np.intersect1d(a[:10], b[:10])) for a, b in zip(found.leaves, plain.leaves, strict=True)]
    assert min(shared) >= 8
    np.testing.assert_allclose(found.log_probs[:, 0], plain.log_probs[:, 0], atol=0.3)


def test_what_there_is_no_room_for_the_other_engine_does(network, index, ask, world, make_prompt):
    prompt, queries = ask
    server = network(LEVELS).server("fp32", index, "torch", 8, prefixes=1)
    plain = network(LEVELS).server("fp32", index)
    two_vectors = server.search(prompt, queries, index.live, 8)
    assert_close(two_vectors, plain.search(prompt, queries, index.live, 8))
    short = make_prompt([[1, 2]])
    wide = server.search(short, queries[:1], index.live, 50)
    assert_close(wide, plain.search(short, queries[:1], index.live, 50))
    assert not server.engine._programs


def test_a_catalogue_that_outgrows_the_graphs(network, index, world, make_prompt, ask, caplog):
    grown = world.make_index(world.random_sids(LEVELS, 900, 6), LEVELS)
    prompt, queries = make_prompt([[1, 2, 3]]), ask[1][:1]
    server = network(LEVELS).server("fp32", index, "torch", 8)
    server.search(prompt, queries, index.live, 8)
    assert not fits(grown.live.tree, server.engine._nodes)
    expected = network(LEVELS).server("fp32", grown).search(prompt, queries, grown.live, 8)
    assert_close(server.search(prompt, queries, grown.live, 8), expected)
    assert fits(grown.live.tree, server.engine._nodes), "torch builds anew"
    server.engine.make_room(index.live)
    server.engine.device.rebuilds = False
    with caplog.at_level(logging.WARNING):
        assert_close(server.search(prompt, queries, grown.live, 8), expected)
    assert "outgrown" in caplog.text


def test_filters_after_filters(network, index, ask):
    prompt, queries = ask
    server = network(LEVELS).server("fp32", index, "torch")
    plain = network(LEVELS).server("fp32", index, "onnx")
    for filters in (Filters(min_price=110), Filters(), Filters(min_price=119)):
        tree = index.tree_for(filters)
        assert_close(server.search(prompt, queries, tree, 24), plain.search(prompt, queries, tree, 24))
    assert len(server.engine.bound.masses) == 3 and len(server.engine.bound.trees) == 1


def test_tensorrt_beside_the_release(network, index, ask, fake_gpu, monkeypatch, tmp_path):
    """The engine as it is on a GPU, over the stand-ins."""
    monkeypatch.setattr(devices, "TensorRT", lambda: TensorRT(fake_gpu.trt, fake_gpu.cuda))
    monkeypatch.setenv("ONESEARCH_ENGINES", str(tmp_path))
    prompt, queries = ask
    server = network(LEVELS).server("fp32", index, "tensorrt", 24)
    assert server.engine.name == "tensorrt"
    assert len(fake_gpu.builds) == 2 and len(list(tmp_path.glob("*.plan"))) == 2, "built before requests come"
    plain = network(LEVELS).server("fp32", index, "onnx")
    for tree in (index.live, index.tree_for(Filters(min_price=100)), index.live):
        assert_close(server.search(prompt, queries, tree, 24), plain.search(prompt, queries, tree, 24))
    again = network(LEVELS).server("fp32", index, "tensorrt", 24)
    assert len(fake_gpu.builds) == 2, "and read by the next start"
    assert_close(again.search(prompt, queries, index.live, 24), plain.search(prompt, queries, index.live, 24))


def test_without_a_gpu_the_processor_searches(network, index, ask, caplog):
    with caplog.at_level(logging.WARNING):
        server = network(LEVELS).server("fp32", index, "tensorrt")
    assert 'engine = "tensorrt"' in caplog.text and "searching on the processor" in caplog.text
    assert server.engine.name in ("native", "onnx")
    assert (server.search(*ask, index.live, 5).leaves >= 0).all()


def test_a_release_without_the_weights_says_what_to_do(network, index, tmp_path):
    from onesearch_seq2seq.exporting import export

    net = network(LEVELS)
    net.server("fp32", index)
    export(net.model, net.config, tmp_path / "fp32", "fp32")
    assert not (tmp_path / "fp32" / "network.safetensors").exists()
    other = type(net)(net.model, net.config, tmp_path)
    with pytest.raises(ArtifactError, match=r'network.safetensors: not there, and engine = "torch"'):
        other.server("fp32", index, "torch")
