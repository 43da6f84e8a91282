"""All engines equal the plain reference on random networks and trees, and brute force where they say that
they are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onesearch.lean_vectors import CODES, CodeGuide
from onesearch_seq2seq.reference import leaf_log_probs, reference_search

LEVELS = [(7,), (6, 4), (5, 4, 3), (6, 5, 4, 3, 3)]
ON_PROCESSORS = ("native", "onnx")
STATIC = ("torch", "static")  # one graph, run by torch and by ONNX Runtime
ENGINES = (*ON_PROCESSORS, *STATIC)
GUIDES = ("guided", "generator", "prior_only")


@st.composite
def cases(draw):
    levels = draw(st.sampled_from(LEVELS))
    return {
        "levels": levels,
        "items": draw(st.one_of(st.integers(1, 3), st.integers(4, 80))),
        "beams": draw(st.integers(1, 24)),
        "lengths": draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)),
        "alive": draw(st.sampled_from([1.0, 0.6, 0.1])),
        "prefix": draw(st.sampled_from([0, 0, 2])),
        "guide": draw(st.sampled_from(GUIDES)),
        "nodes": draw(st.sampled_from(["exact", "codes", "lean"])),
        "steer_rank": draw(st.sampled_from([4, 0])),
        "speaking": draw(st.sampled_from([None, None, 0, 2])),
        "seed": draw(st.integers(0, 2**20)),
    }


def searched(case, engine, network, world, make_prompt, precision="fp32"):
    """What an engine found, and for each query what the reference found and all leaves' log-probabilities."""
    random = np.random.default_rng(case["seed"])
    net = network(case["levels"], case["steer_rank"], case.get("speaking"))
    index = world.make_index(world.random_sids(case["levels"], case["items"], case["seed"]), case["levels"])
    if (nodes := case.get("nodes", "exact")) != "exact":
        centroids = tuple(random.normal(size=(size, world.dim)).astype(np.float16) for size in case["levels"])
        shapes = [(-(-world.dim // width), CODES, width) for width in (8, 16)[: len(case["levels"]) - 1]]
        books = tuple((0.5 * random.normal(size=shape)).astype(np.float16) for shape in shapes)
        index = index.guided_by(CodeGuide(centroids, books if nodes == "lean" else None))
    live = index.live
    if case["alive"] < 1:
        alive = random.random(case["items"]) < case["alive"]
        alive[random.integers(case["items"])] = True
        live = live.narrowed(alive, index.popularity)
    rows = [random.integers(0, world.text, length).tolist() for length in case["lengths"]]
    prefix = random.normal(size=(len(rows), case["prefix"], 64)).astype(np.float32)
    queries = random.normal(size=(len(rows), world.dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    server = net.server(precision, index, engine, case["beams"])
    if engine in STATIC:
        server.engine.tokens = 8  # enough for these prompts, and less to compute
    found = server.search(make_prompt(rows, prefix), queries, live, case["beams"], case["guide"])
    weights = server.weights[case["guide"]]
    expected = []
    for row, query, before in zip(rows, queries, prefix, strict=True):
        logits = net.logits(live, np.array(row), query, weights, before)
        expected.append((reference_search(live, logits, case["beams"]), leaf_log_probs(live, logits)))
    return live, found, expected


@pytest.mark.parametrize("engine", ON_PROCESSORS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_engine_equals_reference_and_brute_force(engine, case, network, world, make_prompt):
    check(engine, case, network, world, make_prompt)


@pytest.mark.parametrize("engine", STATIC)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_static_graphs_equal_reference_and_brute_force(engine, case, network, world, make_prompt):
    check(engine, case, network, world, make_prompt)


def check(engine, case, network, world, make_prompt):
    live, found, expected = searched(case, engine, network, world, make_prompt)
    for row, (reference, every) in enumerate(expected):
        # Where two leaves are nearer than the arithmetic is precise, either order is right.
        ordered = np.sort(every[np.isfinite(every)])
        assume(not (np.diff(ordered) < 2e-5).any())
        log_probs, leaves = found.log_probs[row], found.leaves[row]
        np.testing.assert_allclose(log_probs, reference.log_probs[0], atol=2e-4)
        np.testing.assert_array_equal(leaves, reference.leaves[0])
        np.testing.assert_allclose(found.dropped[row], reference.dropped[0], atol=2e-4)
        np.testing.assert_allclose(found.dropped_mass[row], reference.dropped_mass[0], atol=2e-4)
        np.testing.assert_array_equal(found.branches[row], reference.branches[0])

        real = leaves >= 0
        assert real.sum() == min(case["beams"], np.isfinite(every).sum()), "as many as are alive, no more"
        assert (log_probs[~real] == -np.inf).all() and not real[np.flatnonzero(~real)].any()
        assert np.isfinite(live.log_mass[-1][leaves[real]]).all(), "a withdrawn leaf was returned"
        assert len(set(leaves[real].tolist())) == real.sum()
        np.testing.assert_allclose(np.exp(every).sum(), 1, atol=1e-5)
        check_certificate(log_probs[real], leaves[real], found.dropped[row], found.dropped_mass[row], every)


def check_certificate(log_probs, leaves, dropped, dropped_mass, every):
    """Exact where it says so; elsewhere no more is missing than it says."""
    best = np.argsort(-every, kind="stable")
    for k in range(1, len(leaves) + 1):
        missing = len(set(best[:k].tolist()) - set(leaves[:k].tolist()))
        if log_probs[k - 1] >= dropped + 1e-4:
            assert missing == 0
        bound = np.floor(np.exp(dropped_mass - log_probs[k - 1]) + 1e-3)
        assert missing <= bound


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_scores_come_in_the_order_of_their_nodes(engine, network, world, make_prompt):
    levels = (5, 4, 3)
    every = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), axis=-1).reshape(-1, 3)
    index = world.make_index(every, levels)
    net = network(levels)
    server = net.server("fp32", index, engine, 7)
    server.weights["guided"] = np.zeros((4, 3), np.float32)  # nothing is known: every leaf is as likely
    found = server.search(make_prompt([[1, 2], [3]]), np.zeros((2, world.dim), np.float32), index.live, 7)
    np.testing.assert_array_equal(found.leaves, [[0, 1, 2, 3, 4, 5, 6]] * 2)
    np.testing.assert_allclose(found.log_probs, -np.log(60), atol=1e-5)
    # 7 equal beams of 60 leaves: level 2 keeps 7 of 20 prefixes, level 3 keeps 7 of 21 leaves.
    np.testing.assert_array_equal(found.branches, [[5, 20, 21]] * 2)
    np.testing.assert_allclose(np.exp(found.dropped), 1 / 20, rtol=1e-4)
    np.testing.assert_allclose(np.exp(found.dropped_mass), 13 / 20 + 14 / 60, rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_wide_enough_beams_find_everything(engine, network, world, make_prompt):
    levels = (6, 5, 4, 3, 3)
    index = world.make_index(world.random_sids(levels, 60, 3), levels)
    found = (
        network(levels)
        .server("fp32", index, engine, 200)
        .search(make_prompt([[1, 2, 3]]), np.ones((1, world.dim), np.float32), index.live, 200)
    )
    leaves = index.live.tree.leaf_count
    assert sorted(found.leaves[0, :leaves].tolist()) == list(range(leaves))
    assert found.dropped[0] == found.dropped_mass[0] == -np.inf, "nothing was cut: all is exact"
    assert np.exp(found.log_probs[0, :leaves]).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("engine", ON_PROCESSORS)
@pytest.mark.parametrize("seed", range(3))
def test_int8_finds_nearly_the_same(seed, engine, network, world, make_prompt):
    case = {
        "levels": (6, 5, 4, 3, 3),
        "items": 80,
        "beams": 20,
        "lengths": [5, 7, 3],
        "alive": 1.0,
        "prefix": 0,
    }
    case |= {"guide": "guided", "steer_rank": 4, "seed": seed}
    _, found, expected = searched(case, engine, network, world, make_prompt, "int8")
    for row, (reference, _) in enumerate(expected):
        shared = set(found.leaves[row, :10].tolist()) & set(reference.leaves[0, :10].tolist())
        assert len(shared) >= 8
        assert (found.leaves[row] >= 0).all() and len(set(found.leaves[row].tolist())) == 20


@pytest.mark.parametrize("engine", ON_PROCESSORS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_a_query_does_not_see_the_others_of_its_batch(engine, precision, prefix, network, world, make_prompt):
    levels = (5, 4, 3)
    index = world.make_index(world.random_sids(levels, 50, 9), levels)
    server = network(levels).server(precision, index, engine)
    random = np.random.default_rng(0)
    rows = [[1, 2, 3, 4, 5, 6], [7], random.integers(0, world.text, 60).tolist()]
    queries = random.normal(size=(3, world.dim)).astype(np.float32)
    # A neighbour with vectors a hundred times as long would spoil a scale that they shared.
    before = random.normal(size=(3, prefix, 64)).astype(np.float32)
    before[2] *= 100
    together = server.search(make_prompt(rows, before), queries, index.live, 8)
    for at in range(3):
        one = slice(at, at + 1)
        alone = server.search(make_prompt(rows[one], before[one]), queries[one], index.live, 8)
        np.testing.assert_array_equal(together.leaves[at], alone.leaves[0])
        np.testing.assert_allclose(together.log_probs[at], alone.log_probs[0], atol=1e-5)


def test_no_decoder_runs_where_the_network_has_no_say(network, world):
    levels = (6, 5, 4, 3, 3)
    index = world.make_index(world.random_sids(levels, 60, 3), levels)
    spoken, whole = (network(levels, 4, speaking).server("fp32", index, "onnx") for speaking in (2, None))
    spoken, whole = spoken.engine.session, whole.engine.session
    assert {"open_1", "keys_2"} <= set(spoken.inputs)
    assert not {"open_2", "keys_3"} & set(spoken.inputs)
    assert spoken.path.stat().st_size < whole.path.stat().st_size
