from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onesearch.contracts.user_encoder import RawPrompt, ShopperState
from onesearch.errors import ArtifactError, ServingError, UsageError
from onesearch.semantic_ids import format_sid
from onesearch.shoppers.packing import pack, unpack
from onesearch.shoppers.state import NO_ITEM, Recent, Ring, item_key
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.learner import MuSeqLearner
from onesearch_museq.server import MuSeqServer
from onesearch_museq.user_id import behaviour_codes

from .conftest import DIM, World, catalogue, ring, shopper

WIDTH = 16
KEYS = st.integers(0, 50).map(lambda n: item_key(f"i{n}"))
RINGS = st.lists(KEYS, max_size=30).map(
    lambda keys: Ring(
        np.array(keys, np.uint64), np.arange(len(keys), dtype=np.uint32), np.zeros(len(keys), np.uint8)
    )
)
PAIRS = st.lists(
    st.builds(Recent, st.text(max_size=300), st.one_of(st.just(NO_ITEM), KEYS), st.integers(0, 99)),
    max_size=16,
)
STATES = st.builds(ShopperState, st.text(max_size=99), RINGS, RINGS, PAIRS.map(tuple))


def trained(world: World, folder: Path) -> MuSeqServer:
    learner = world.learner()
    module = learner.module(DIM, WIDTH)
    assert module is not None
    with torch.no_grad():
        module.scale += 1.0
    learner.export(folder)
    return MuSeqServer.open(folder, world.context, MuSeqConfig())


def same(one: RawPrompt, other: RawPrompt) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("ids", "mask", "history", "history_mask")
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STATES, max_size=3))
def test_a_packed_state_makes_the_same_prompt(world: World, states: list[ShopperState]) -> None:
    server, sids = MEMO.setdefault(world.folder, world.server()), world.index.sids[: len(states)]
    queries = ["red shirt"] * len(states)
    packed = [unpack(pack(state)) for state in states]
    assert same(server.raw(states, queries, sids), server.raw(packed, queries, sids))


MEMO: dict[Path, MuSeqServer] = {}


def test_a_batch_is_its_rows(world: World, tmp_path: Path) -> None:
    world.popular["red shirt"] = [30, 31]
    server = trained(world, tmp_path / "trained")
    rng = np.random.default_rng(0)
    states = [
        shopper(
            rng.integers(0, 45, n * 20).tolist(),
            rng.integers(0, 45, n).tolist(),
            *[("a", k) for k in range(n)],
        )
        for n in range(6)
    ]
    queries, sids = ["red shirt", "blue", "", "x" * 100_000, "红色", "red shirt"], world.index.sids[:6]
    raw, prompt = server.raw(states, queries, sids), server.features(states, queries, sids)
    assert np.array_equal(raw.ids, prompt.ids) and np.array_equal(raw.mask, prompt.mask)
    for row, state in enumerate(states):
        one = server.raw([state], [queries[row]], sids[row : row + 1])
        assert np.array_equal(one.ids[0][one.mask[0]], raw.ids[row][raw.mask[row]])
        assert np.array_equal(one.history[0], raw.history[row])
        alone = server.features([state], [queries[row]], sids[row : row + 1])
        assert np.allclose(alone.prefix[0], prompt.prefix[row], atol=1e-5)


def test_no_requests(world: World) -> None:
    raw = world.server().raw([], [], world.index.sids[:0])
    assert raw.ids.shape == (0, 1) and raw.history.shape == (0, 9, DIM) and raw.history_mask.shape == (0, 9)


def test_without_long_sequences(world: World) -> None:
    raw = world.server(long=False).raw([shopper([1])], ["red"], world.index.sids[:1])
    assert raw.history.shape == (1, 0, DIM) and raw.history_mask.shape == (1, 0)


def test_explained(world: World, tmp_path: Path) -> None:
    server = trained(world, tmp_path / "trained")
    sids = world.index.sids
    state = shopper([1, 2, 3], [4], ("a", 5), ("b", None), ("", 6))
    world_sid = world.query_sids(["red shirt"])
    (about,) = server.explain([state], ["red shirt"], world_sid)
    codes = behaviour_codes(sids[[5, 6]], sids[[1, 2, 3]], world.codebooks)
    assert about["user_id_tokens"] == {"recent": format_sid(codes[0]), "long": format_sid(codes[1])}
    assert about["recent"] == [
        {"query": "a", "item_id": "i5", "sid": format_sid(sids[5])},
        {"query": "b", "item_id": None, "sid": None},
        {"query": "", "item_id": "i6", "sid": format_sid(sids[6])},
    ]
    assert about["stand_ins"] == []
    names = [interest["name"] for interest in about["interests"]]
    weights = [interest["weight"] for interest in about["interests"]]
    assert {"clicks level 1", "orders level 3", "nothing known"} <= set(names)
    assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(1, abs=1e-4)


def test_explained_of_a_cold_shopper(world: World, tmp_path: Path) -> None:
    world.popular["red shirt"] = [30, 31]
    server = trained(world, tmp_path / "trained")
    cold, unknown = server.explain([ShopperState()] * 2, ["red shirt", "no"], world.index.sids[:2])
    assert [item["item_id"] for item in cold["stand_ins"]] == ["i30", "i31"]
    assert set(cold["user_id_tokens"]) == {"recent", "long"}
    assert unknown["user_id_tokens"] == {} and unknown["stand_ins"] == [] and unknown["recent"] == []
    assert unknown["interests"] == [{"name": "nothing known", "weight": pytest.approx(1)}]
    assert server.explain([], [], world.index.sids[:0]) == []


def test_explained_without_a_trained_module(world: World) -> None:
    (about,) = world.server().explain([shopper([1])], ["red"], world.index.sids[:1])
    assert about["interests"] == []


def test_clicks_change_what_is_explained(world: World) -> None:
    server, sid = world.server(), world.index.sids[:1]
    before = server.explain([shopper([1], [], ("a", 1))], ["red"], sid)
    after = server.explain([shopper([1, 9, 9], [], ("a", 1), ("red", 9))], ["red"], sid)
    assert before != after and after[0]["recent"][-1]["item_id"] == "i9"


def test_an_empty_catalogue(world: World) -> None:
    world.index = catalogue(world.index.sids[:0])
    raw = world.server().raw([shopper([1], [2], ("a", 3), ("b", None))], ["red"], np.zeros((1, 5), np.int32))
    assert not raw.history_mask.any() and raw.mask.all()


def test_a_history_of_everything(world: World) -> None:
    many = ring([n % 60 for n in range(100_000)])
    raw = world.server().raw([ShopperState("u", many, many)], ["x" * 100_000], world.index.sids[:1])
    assert np.isfinite(raw.history).all() and raw.ids.shape[1] <= 128


def test_a_newer_catalogue_needs_no_new_encoder(world: World, tmp_path: Path) -> None:
    """Keys name items: the same state and table mean the same items under other numbers."""
    world.popular["red"] = [30, 31]
    learner = world.learner()
    learner.export(tmp_path / "served")
    sids = world.index.sids
    newer = catalogue(np.concatenate([sids, sids[:5]]))
    flipped = replace(newer, items=newer.items.reverse(), sids=np.concatenate([sids, sids[:5]])[::-1].copy())
    states = [shopper([1, 2], [3], ("a", 4)), ShopperState()]
    found = [
        MuSeqServer.open(tmp_path / "served", replace(world.context, index=index), MuSeqConfig()).raw(
            states, ["red", "red"], sids[:2]
        )
        for index in (world.index, flipped)
    ]
    assert np.array_equal(found[0].ids, found[1].ids)
    assert np.allclose(found[0].history, found[1].history)


def test_past_queries_need_a_tokenizer(world: World) -> None:
    world.learner().export(world.folder / "served")
    context = replace(world.context, query_sids=None)
    server = MuSeqServer.open(world.folder / "served", context, MuSeqConfig())
    server.raw([shopper([1])], ["red"], world.index.sids[:1])
    with pytest.raises(ServingError, match="tokenizer"):
        server.raw([shopper([], [], ("a", 1))], ["red"], world.index.sids[:1])


def test_wrong_shapes_are_refused(world: World) -> None:
    with pytest.raises(UsageError, match="levels"):
        world.server().raw([ShopperState()], ["red"], np.zeros((1, 2), np.int32))


def test_saved_settings_rule(world: World) -> None:
    world.learner(recent=2).export(world.folder / "served")
    server = MuSeqServer.open(world.folder / "served", world.context, MuSeqConfig(recent=5))
    (about,) = server.explain([shopper([], [], *[("a", n) for n in range(4)])], ["red"], world.index.sids[:1])
    assert len(about["recent"]) == 2


@pytest.mark.parametrize("name", ["museq.json", "stand_ins.safetensors", "museq.onnx"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_broken_file_is_named(world: World, tmp_path: Path, name: str, content: bytes | None) -> None:
    trained(world, tmp_path / "served")
    path = tmp_path / "served" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        MuSeqServer.open(tmp_path / "served", world.context, MuSeqConfig())


def test_codebooks_of_another_dimension_are_refused(world: World, tmp_path: Path) -> None:
    learner = MuSeqLearner(MuSeqConfig(cold=False))
    module = learner.module(DIM + 1, WIDTH)
    assert module is not None
    with torch.no_grad():
        module.scale += 1.0
    learner.export(tmp_path / "served")
    with pytest.raises(ArtifactError, match="dimension 9"):
        MuSeqServer.open(tmp_path / "served", world.context, MuSeqConfig())


def test_a_limit_without_room_is_refused(world: World) -> None:
    codes = tuple([2] * 20)
    context = replace(world.context, vocabulary=replace(world.vocabulary, levels=codes))
    world.learner(prompt_limit=32).export(world.folder / "served")
    with pytest.raises(ArtifactError, match="no room"):
        MuSeqServer.open(world.folder / "served", context, MuSeqConfig())
