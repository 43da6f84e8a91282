from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import SilentProgress
from onesearch.vocabulary import QUERY, SEP, Vocabulary
from onesearch_museq.config import PassThroughConfig
from onesearch_museq.passthrough import PassThroughLearner, PassThroughServer
from onesearch_museq.plugin import user_encoder
from onesearch_museq.prompts import build_prompts

LEVELS = (4, 3, 2)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(["red shirt", "blue shirt", "angle bracket", "红色 连衣裙"] * 3, LEVELS, size=400)


def serve(folder: Path, vocabulary: Vocabulary, limit: int) -> PassThroughServer:
    learner = PassThroughLearner(PassThroughConfig(text_limit=limit))
    learner.export(folder)
    unused: Any = None
    context = ServingContext(folder, vocabulary, index=unused, runtime=unused)
    return PassThroughServer.open(folder, context, PassThroughConfig())


def test_layout_of_a_prompt(vocabulary: Vocabulary) -> None:
    row = build_prompts(vocabulary, ["red shirt"], np.array([[3, 0, 1]]), text_limit=10)[0]
    text = vocabulary.text_ids(["red shirt"], 10)[0]
    base = vocabulary.text_size
    assert row == [QUERY, *text, SEP, base + 3, base + 4 + 0, base + 4 + 3 + 1]
    assert vocabulary.text_of(row) == "red shirt"


def test_text_is_cut_but_the_sid_stays(vocabulary: Vocabulary) -> None:
    rows = build_prompts(vocabulary, ["红色 " * 40_000, ""], np.zeros((2, 3), np.int32), text_limit=4)
    assert [len(row) for row in rows] == [2 + 4 + 3, 2 + 3]


def test_wrong_shapes_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(UsageError, match="levels"):
        build_prompts(vocabulary, ["a"], np.zeros((1, 2), np.int32), 4)
    with pytest.raises(UsageError, match="1 queries"):
        build_prompts(vocabulary, ["a"], np.zeros((2, 3), np.int32), 4)


def test_serving_equals_training(tmp_path: Path, vocabulary: Vocabulary) -> None:
    server = serve(tmp_path / "user_encoder", vocabulary, limit=3)
    queries = ["red shirt", "angle bracket angle bracket angle", ""]
    sids = np.array([[1, 2, 1], [0, 0, 0], [3, 2, 0]], np.int32)
    prompt = server.features([ShopperState()] * 3, queries, sids)
    rows = build_prompts(vocabulary, queries, sids, 3)
    assert prompt.ids.dtype == np.int32 and prompt.mask.dtype == bool
    assert prompt.prefix.shape == (3, 0, 0) and prompt.prefix.dtype == np.float32
    for ids, mask, row in zip(prompt.ids, prompt.mask, rows, strict=True):
        assert ids[mask].tolist() == row and not ids[~mask].any()


def test_saved_limit_rules_over_the_configuration(tmp_path: Path) -> None:
    PassThroughLearner(PassThroughConfig(text_limit=7)).save(tmp_path)
    assert PassThroughLearner.load(tmp_path, PassThroughConfig(text_limit=9)).text_limit == 7


@pytest.mark.parametrize("content", [None, "", "{", '{"text_limit": 0}', '{"text_limit": 3, "more": 1}'])
def test_a_broken_artifact_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "passthrough.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"passthrough\.json"):
        PassThroughLearner.load(tmp_path, PassThroughConfig())


def test_the_offer_names_both_halves() -> None:
    offer = user_encoder()[0]
    assert offer.name == "passthrough"
    assert offer.learner_class() is PassThroughLearner and offer.server_class() is PassThroughServer
    assert offer.learner_class()(offer.config()).fit(None, Path(), SilentProgress()) == {}  # type: ignore[attr-defined]
