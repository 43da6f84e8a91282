"""The native engine: the same bits whatever runs it, weights that cannot saturate, widening, its absence."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import ServingContext
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import Filters
from onesearch.lean_vectors import CODES, CodeGuide
from onesearch_seq2seq.native import build, library, weights
from onesearch_seq2seq.native.engine import NativeEngine
from onesearch_seq2seq.native.packing import packed_matrix
from onesearch_seq2seq.reference import reference_search
from onesearch_seq2seq.server import Seq2SeqServer

LEVELS = (6, 5, 4, 3, 3)
FIELDS = ("leaves", "log_probs", "dropped", "dropped_mass", "branches")
PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module")
def index(world):
    return world.make_index(world.random_sids(LEVELS, 120, 5), LEVELS)


@pytest.fixture(scope="module")
def ask(make_prompt, world):
    """Three queries of different lengths, with prefixes."""
    random = np.random.default_rng(1)
    prompt = make_prompt([[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]], random.normal(size=(3, 2, 64)))
    queries = random.normal(size=(3, world.dim)).astype(np.float32)
    return prompt, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def engine_of(network, index, precision, threads=1, instructions=""):
    net = network(LEVELS)
    served = net.server(precision, index, "native").weights["guided"]
    folder = net.folder / precision
    return NativeEngine(folder / "native.safetensors", threads, served, instructions), served


def searched(engine, served, ask, live, beams, rows=slice(None), **adaptive):
    prompt, queries = ask
    return engine.search(
        prompt.ids[rows],
        prompt.mask[rows],
        prompt.prefix[rows],
        queries[rows],
        live,
        beams,
        served,
        **adaptive,
    )


def assert_same(found, expected):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), field)


def lean(index):
    """The index with remainders in place of vectors of nodes, of widths that end in and between registers."""
    random = np.random.default_rng(2)
    dim = index.vectors.shape[1]
    centroids = tuple(random.normal(size=(size, dim)).astype(np.float16) for size in LEVELS)
    shapes = [(-(-dim // width), CODES, width) for width in (8, 16, 24)]
    books = tuple((0.5 * random.normal(size=shape)).astype(np.float16) for shape in shapes)
    return index.guided_by(CodeGuide(centroids, books))


def test_many_children_are_looked_up_and_score_the_same(network, world, ask):
    """Where a prefix has many children their remainders are added up from a table: near to what they are,
    and the same for any instruction set and number of threads."""
    levels, random = (3, 200, 90), np.random.default_rng(4)
    sids = np.stack([random.integers(0, size, 900) for size in levels], axis=1)
    sids[:200, 0], sids[200:400, :2] = 0, (1, 7)
    index = world.make_index(sids.astype(np.int32), levels)
    dim = index.vectors.shape[1]
    centroids = tuple(0.1 * random.normal(size=(size, dim)).astype(np.float16) for size in levels)
    books = tuple((0.2 * random.normal(size=(-(-dim // w), CODES, w))).astype(np.float16) for w in (8, 16))
    live = index.guided_by(CodeGuide(centroids, books)).live
    counts = [np.diff(first).max() for first in live.tree.first_child[1:]]
    assert min(counts) >= 64
    net = network(levels)
    served = net.server("fp32", index, "native").weights["guided"]
    path = net.folder / "fp32" / "native.safetensors"
    found = [
        searched(NativeEngine(path, threads, served, name), served, ask, live, 30)
        for name in library.instructions()
        for threads in (1, 3)
    ]
    for one in found[1:]:
        assert_same(one, found[0])
    prompt, queries = ask
    for row in range(len(queries)):
        logits = net.logits(live, prompt.ids[row][prompt.mask[row]], queries[row], served, prompt.prefix[row])
        expected = reference_search(live, logits, 30)
        np.testing.assert_allclose(found[0].log_probs[row], expected.log_probs[0], atol=5e-3)


@pytest.mark.parametrize("nodes", ["exact", "lean"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_instruction_set_gives_the_same_bits(precision, nodes, network, index, ask):
    index = lean(index) if nodes == "lean" else index
    names = library.instructions()
    assert names[0] == "plain"
    found = {}
    for name in names:
        engine, served = engine_of(network, index, precision, instructions=name)
        assert engine.instructions == name
        found[name] = [searched(engine, served, ask, index.live, beams) for beams in (3, 20)]
    for name in names[1:]:
        for one, plain in zip(found[name], found["plain"], strict=True):
            assert_same(one, plain)


def test_the_instruction_set_can_be_forced(monkeypatch, network, index):
    monkeypatch.setenv("ONESEARCH_NATIVE_INSTRUCTIONS", "plain")
    assert engine_of(network, index, "fp32")[0].instructions == "plain"
    monkeypatch.setenv("ONESEARCH_NATIVE_INSTRUCTIONS", "abacus")
    with pytest.raises(ArtifactError, match="abacus"):
        network(LEVELS).server("fp32", index, "native")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_neither_batch_nor_threads_change_a_bit(precision, threads, network, index, ask):
    one, served = engine_of(network, index, precision)
    many, _ = engine_of(network, index, precision, threads)
    together = searched(many, served, ask, index.live, 12)
    for at in range(3):
        alone = searched(one, served, ask, index.live, 12, slice(at, at + 1))
        shared = searched(many, served, ask, index.live, 12, slice(at, at + 1))
        assert_same(shared, alone)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(together, field)[at], getattr(alone, field)[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_padding_is_nothing(precision, network, index, ask):
    engine, served = engine_of(network, index, precision)
    prompt, queries = ask
    whole = searched(engine, served, ask, index.live, 9)
    for at, length in enumerate([7, 1, 3]):
        cut = engine.search(
            prompt.ids[at : at + 1, :length],
            prompt.mask[at : at + 1, :length],
            prompt.prefix[at : at + 1],
            queries[at : at + 1],
            index.live,
            9,
            served,
        )
        np.testing.assert_array_equal(cut.log_probs[0], whole.log_probs[at])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("first", [1, 3, 8])
def test_going_on_wider_finds_what_a_wider_search_finds(precision, first, network, index, ask):
    engine, served = engine_of(network, index, precision)
    for beams in (4, 30, 150):
        direct = searched(engine, served, ask, index.live, beams)
        # The 999th result is never proven, so that the search goes on to the end or till nothing is dropped.
        found = searched(engine, served, ask, index.live, beams, certify=999, first=first)
        # Where all was found, the search has not taken all beams, and no rows of -1 for them.
        taken = found.leaves.shape[1]
        assert taken == found.widths.max() and (direct.leaves[:, taken:] == -1).all()
        np.testing.assert_array_equal(found.leaves, direct.leaves[:, :taken])
        np.testing.assert_array_equal(found.log_probs, direct.log_probs[:, :taken])
        np.testing.assert_array_equal(found.dropped, direct.dropped)
        np.testing.assert_array_equal(found.branches, direct.branches)
        # What a narrower search scored, the direct one may have dropped unscored: one sum, by other terms.
        np.testing.assert_allclose(found.dropped_mass, direct.dropped_mass, atol=1e-6)


def test_it_stops_where_the_best_are_proven(network, index, ask):
    engine, served = engine_of(network, index, "fp32")
    everything = searched(engine, served, ask, index.live, 200)
    found = searched(engine, served, ask, index.live, 200, certify=2, first=2)
    assert (found.widths < 200).any() and (found.widths >= 2).all()
    assert found.leaves.shape[1] == found.widths.max()
    np.testing.assert_array_equal(found.leaves[:, :2], everything.leaves[:, :2])
    for row, width in enumerate(found.widths):
        assert (found.leaves[row, width:] == -1).all()


def test_few_rows_go_through_the_decoder_when_few_can_matter(network, index, ask):
    engine, served = engine_of(network, index, "fp32")
    sure = served * np.array([[1], [1], [40], [0]], np.float32)  # the prior is nearly certain
    found = searched(engine, sure, ask, index.live, 3, slice(0, 1))
    rows = engine.account.rows
    assert rows[0] == 1 and sum(rows[1:]) < 3 * 4
    assert np.isfinite(found.dropped_mass).all()


def test_a_filter_that_leaves_one_item_asks_the_network_nothing(network, index, ask):
    engine, served = engine_of(network, index, "fp32")
    live = index.tree_for(Filters(min_price=7, max_price=7))
    found = searched(engine, served, ask, live, 5)
    np.testing.assert_array_equal(found.leaves[:, 0], index.live.tree.find_leaves(index.sids[7:8])[0])
    assert (found.log_probs[:, 0] == 0).all() and (found.branches == 1).all()
    assert engine.account.encoder == 0 and not any(engine.account.rows)


def test_several_callers_at_once(network, index, ask):
    engine, served = engine_of(network, index, "int8", threads=2)
    expected = searched(engine, served, ask, index.live, 10)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: searched(engine, served, ask, index.live, 10), range(40)):
            assert_same(found, expected)


def test_ids_outside_the_vocabulary_are_refused(network, index, ask):
    engine, served = engine_of(network, index, "fp32", threads=2)
    prompt, queries = ask
    with pytest.raises(UsageError, match="outside the vocabulary"):
        engine.search(prompt.ids + 10**6, prompt.mask, prompt.prefix, queries, index.live, 5, served)
    assert (searched(engine, served, ask, index.live, 5).leaves >= 0).all(), "and the engine goes on"


numbers = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([1.0, -1.0, 0.0, 1e-3]))
shapes = st.tuples(st.integers(1, 20), st.sampled_from([8, 16, 64]))


@settings(max_examples=60, deadline=None)
@given(weight=arrays(np.float32, shapes, elements=numbers))
def test_packed_weights_cannot_saturate_and_are_near(weight):
    packed = packed_matrix("w", weight, "int8")
    codes = packed["w.codes"].transpose(0, 2, 1, 3).reshape(-1, weight.shape[1]).astype(np.int32)
    for sign in (1, -1):
        # Inputs 8g + 0, 1, 4, 5 meet in 16 bits, and so do 8g + 2, 3, 6, 7.
        fours = np.maximum(sign * codes, 0).reshape(len(codes), -1, 2, 2, 2).sum(axis=(2, 4))
        assert fours.max(initial=0) * 255 <= np.iinfo(np.int16).max
    np.testing.assert_array_equal(packed["w.sums"], codes.sum(axis=1))
    scale = packed["w.scale"][: len(weight), None]
    assert (np.abs(codes[: len(weight)] * scale - weight) <= 0.501 * scale).all()
    assert not codes[len(weight) :].any()


def test_weights_come_back_aligned(tmp_path):
    random = np.random.default_rng(0)
    given = {
        "a": random.normal(size=(3, 5)).astype(np.float32),
        "b": random.integers(-9, 9, (4, 16)).astype(np.int8),
        "c": np.arange(16, dtype=np.int32),
        "d": np.ones((32, 2), np.float16),
    }
    weights.save(tmp_path / "w.safetensors", given, {"width": 8})
    found, dimensions = weights.load(tmp_path / "w.safetensors")
    assert dimensions == {"width": 8} and set(found) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert array.nbytes % 64 or found[name].ctypes.data % 64 == 0
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(tmp_path / "w.safetensors")["a"], given["a"])


def test_without_the_library_the_graph_searches(monkeypatch, tmp_path, caplog, network, index):
    monkeypatch.setenv("ONESEARCH_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    library.library.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            assert network(LEVELS).server("fp32", index).engine.name == "onnx"
        assert len(caplog.messages) == 1 and "make native" in caplog.messages[0]
        net, vocabulary = network(LEVELS), SimpleNamespace(levels=LEVELS)
        folder = net.folder / "fp32"
        context = ServingContext(folder, vocabulary, index, Runtime(threads=1))  # type: ignore[arg-type]
        with pytest.raises(ArtifactError, match="make native"):
            Seq2SeqServer.open(folder, context, net.config.model_copy(update={"engine": "native"}))
        (tmp_path / "none.so").write_bytes(b"not a library")
        library.library.cache_clear()
        assert network(LEVELS).server("fp32", index).engine.name == "onnx"
    finally:
        library.library.cache_clear()


def test_a_build_without_a_compiler_is_no_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "lib.so")
    monkeypatch.setattr(build, "compiler", list)
    build.main()
    assert "ONNX graph" in capsys.readouterr().err and not (tmp_path / "lib.so").exists()
    monkeypatch.setattr(build, "compiler", lambda: ["false"])
    build.main()
    assert "not built" in capsys.readouterr().err


def test_a_library_of_these_sources_is_not_built_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "lib.so")
    monkeypatch.setattr(build, "compiler", list)
    (tmp_path / "lib.so").write_bytes(b"..." + build.fingerprint().encode() + b"...")
    build.main()
    assert not capsys.readouterr().err
