"""The server: binding of trees, filters, guides, and requests that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onesearch.contracts import Prompt, ServingContext
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import Filters
from onesearch_seq2seq.batches import Batch
from onesearch_seq2seq.evaluation import states_of
from onesearch_seq2seq.scoring import TreeTables, branchings, path_log_probs
from onesearch_seq2seq.server import Seq2SeqServer

LEVELS = (6, 5, 4)


@pytest.fixture(scope="module")
def index(world):
    return world.make_index(world.random_sids(LEVELS, 60, 4), LEVELS)


@pytest.fixture(scope="module", params=["native", "onnx", "torch"])
def server(request, network, index):
    return network(LEVELS).server("fp32", index, request.param, 100, prefixes=3)


@pytest.fixture(scope="module")
def ask(make_prompt, world):
    query = np.random.default_rng(0).normal(size=(1, world.dim)).astype(np.float32)
    return make_prompt([[1, 2, 3]]), query


def test_filters_prune_the_search_itself(server, index, ask):
    filters = Filters(min_price=50)
    found = server.search(*ask, index.tree_for(filters), 100)
    items = (
        index.live.narrowed(index.passing(filters), index.popularity)
        .expand(found.leaves, found.log_probs)
        .items
    )
    assert set(items[items >= 0].tolist()) == set(range(50, 60)), "all that pass, nothing that does not"
    real = found.leaves[0] >= 0
    assert np.exp(found.log_probs[0, real]).sum() == pytest.approx(1, abs=1e-5)


def test_certify_widens_where_the_engine_can(server, index, ask):
    whole = server.search(*ask, index.live, 60)
    found = server.search(*ask, index.live, 60, certify=2)
    widened = found.widths is not None
    assert widened == (server.engine.name == "native")
    assert not widened or (found.widths[0] < 60 and found.log_probs[0, 1] >= found.dropped[0])
    np.testing.assert_array_equal(found.leaves[:, :2], whole.leaves[:, :2])


def test_nothing_alive(server, index, ask):
    found = server.search(*ask, index.tree_for(Filters(min_price=1000)), 5)
    assert (found.leaves == -1).all() and (found.log_probs == -np.inf).all() and not found.branches.any()
    assert found.leaves.shape == (1, 5)


def test_no_requests(server, index, world):
    empty = Prompt(np.zeros((0, 3), np.int32), np.zeros((0, 3), bool), np.zeros((0, 0, 64), np.float32))
    found = server.search(empty, np.zeros((0, world.dim), np.float32), index.live, 5)
    assert found.leaves.shape == (0, 5) and found.branches.shape == (0, 3)


def test_a_prompt_without_tokens(server, index, world):
    empty = Prompt(np.zeros((1, 1), np.int32), np.zeros((1, 1), bool), np.zeros((1, 0, 64), np.float32))
    found = server.search(empty, np.ones((1, world.dim), np.float32), index.live, 5)
    assert np.isfinite(found.log_probs).all()


def test_a_long_prompt_is_cut(server, index, world):
    ids = np.ones((1, 500), np.int32)
    query = np.ones((1, world.dim), np.float32)
    whole = server.search(Prompt(ids, ids > 0, np.zeros((1, 0, 64), np.float32)), query, index.live, 5)
    cut = server.search(
        Prompt(ids[:, :128], ids[:, :128] > 0, np.zeros((1, 0, 64), np.float32)), query, index.live, 5
    )
    np.testing.assert_array_equal(whole.log_probs, cut.log_probs)


def test_with_and_without_prefix_vectors(server, index, world):
    """Their number is each batch's own, and a long prompt is cut to the same tokens behind them."""
    ids, query = np.ones((2, 500), np.int32), np.ones((2, world.dim), np.float32)
    before = np.random.default_rng(0).normal(size=(2, 3, 64)).astype(np.float32)

    def ask(prefix, length=500):
        prompt = Prompt(ids[:, :length], ids[:, :length] > 0, prefix)
        return server.search(prompt, query, index.live, 5).log_probs

    none = np.zeros((2, 0, 64), np.float32)
    first, read = ask(none), ask(before)
    assert not np.allclose(first, read)
    np.testing.assert_array_equal(ask(before, 128), read)
    np.testing.assert_array_equal(ask(none), first)
    np.testing.assert_array_equal(ask(np.zeros((2, 0, 0), np.float32)), first)


def test_guides(server, index, ask):
    found = {
        guide: server.search(*ask, index.live, 5, guide) for guide in ("guided", "generator", "prior_only")
    }
    assert len({tuple(result.leaves[0].tolist()) for result in found.values()}) == 3
    other = (Prompt(ask[0].ids + 5, ask[0].mask, ask[0].prefix), ask[1])
    alone = server.search(*other, index.live, 5, "prior_only")
    np.testing.assert_array_equal(alone.log_probs, found["prior_only"].log_probs)
    generated = server.search(ask[0], -ask[1], index.live, 5, "generator")
    np.testing.assert_array_equal(generated.log_probs, found["generator"].log_probs)


def test_a_tree_is_bound_once_and_a_narrowed_one_brings_only_its_masses(server, index, ask):
    structure, masses = server.engine.bound.of(index.live)
    again = server.engine.bound.of(index.live)
    assert again[0] is structure and again[1] is masses
    narrowed = server.engine.bound.of(index.tree_for(Filters(min_price=30)))
    assert narrowed[0] is structure and narrowed[1] is not masses


def test_a_new_generation_is_swapped_in_between_requests(server, index, ask, world, network):
    grown = world.make_index(world.random_sids(LEVELS, 90, 8), LEVELS, seed=8)
    fresh = network(LEVELS).server("fp32", grown, server.engine.name).search(*ask, grown.live, 9)
    for _ in range(5):  # the older trees are let go
        other = world.make_index(world.random_sids(LEVELS, 20, 1), LEVELS)
        server.search(*ask, other.live, 3)
    swapped = server.search(*ask, grown.live, 9)
    np.testing.assert_array_equal(swapped.leaves, fresh.leaves)
    assert len(server.engine.bound.trees) <= 2 and len(server.engine.bound.masses) <= 8


def test_engine_and_learner_agree(server, index, ask, network):
    prompt, query = ask
    found = server.search(prompt, query, index.live, 30)
    model = network(LEVELS).model
    tables = TreeTables.of(index.live, torch.device("cpu"))
    leaves = found.leaves[0][found.leaves[0] >= 0].astype(np.int64)
    ids = np.repeat(prompt.ids, len(leaves), axis=0).astype(np.int64)
    batch = Batch(0, ids, ids > -1, np.ones(len(ids)), leaf=leaves, vector=np.zeros(len(ids), np.int32))
    with torch.no_grad():
        states, queries, leaf = states_of(model, tables, batch, torch.from_numpy(query))
        choices = branchings(model, tables, states, queries, leaf)
        expected = path_log_probs(choices, model.served[:4], len(leaf)).sum(dim=1)
    np.testing.assert_allclose(found.log_probs[0, : len(leaves)], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "query", "beams", "message"),
    [
        (
            Prompt(np.zeros((1, 3), np.int32), np.ones((1, 2), bool), np.zeros((1, 0, 64))),
            (1, 12),
            5,
            "do not fit",
        ),
        (
            Prompt(np.zeros((1, 0), np.int32), np.ones((1, 0), bool), np.zeros((1, 0, 64))),
            (1, 12),
            5,
            "do not fit",
        ),
        (
            Prompt(np.zeros((1, 3), np.int32), np.ones((1, 3), bool), np.zeros((1, 0, 64))),
            (1, 11),
            5,
            "query vectors",
        ),
        (
            Prompt(np.zeros((1, 3), np.int32), np.ones((1, 3), bool), np.zeros((1, 2, 63))),
            (1, 12),
            5,
            "prefix",
        ),
        (Prompt(np.zeros((1, 3), np.int32), np.ones((1, 3), bool), np.zeros((1, 0, 64))), (1, 12), 0, "beam"),
    ],
)
def test_requests_that_do_not_fit(server, index, prompt, query, beams, message):
    with pytest.raises(UsageError, match=message):
        server.search(prompt, np.zeros(query, np.float32), index.live, beams)


def test_a_tree_of_other_levels_is_refused(server, ask, world):
    other = world.make_index(world.random_sids((6, 5), 20, 0), (6, 5))
    with pytest.raises(UsageError, match="levels"):
        server.search(*ask, other.live, 5)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("generator.json", "auto"),
        ("arrays.safetensors", "auto"),
        ("search.onnx", "onnx"),
        ("native.safetensors", "native"),
    ],
)
def test_broken_artifacts_are_named(name, engine, network, index, tmp_path, server):
    from types import SimpleNamespace

    from onesearch.compiling.runtime import Runtime

    net = network(LEVELS)
    config = net.config.model_copy(update={"engine": engine})
    for path in (net.folder / "fp32").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / name).read_bytes()
    context = ServingContext(tmp_path, SimpleNamespace(levels=LEVELS), index, Runtime(1))  # type: ignore[arg-type]
    for broken in (content[: len(content) // 2], None):
        (tmp_path / name).unlink()
        if broken is not None:
            (tmp_path / name).write_bytes(broken)
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            Seq2SeqServer.open(tmp_path, context, config)
        (tmp_path / name).write_bytes(content)
    wrong = ServingContext(tmp_path, SimpleNamespace(levels=(6, 5)), index, Runtime(1))  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="levels"):
        Seq2SeqServer.open(tmp_path, wrong, config)
