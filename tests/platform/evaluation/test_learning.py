"""The bench of learning: which arms there are, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation import learning
from onesearch.evaluation.arms import recall_hash
from onesearch.releases.release import Release


def test_arms_name_releases_that_are_trained() -> None:
    trained = {way.release for way in learning.WAYS}
    assert {release for _, release, _ in learning.ARMS} == trained
    assert len({name for name, _, _ in learning.ARMS}) == len(learning.ARMS)


def test_arms_differ_in_reward_and_phases_alone() -> None:
    config = parse_config("[training]\npreference_lists = 7\n")
    made = {way.release: learning.configured(config, way) for way in learning.WAYS}
    assert made["sft"].training.preference == () and made["sft"].names["reward"] == "relevance"
    assert made["whole"].training.preference == ("phase_1", "phase_2")
    assert {one.training.preference_lists for one in made.values()} == {7}
    # Phases that did harm are measured, not left out.
    assert all(one.training.keep_worse and not one.training.refresh for one in made.values())


def test_another_component_keeps_all_else() -> None:
    config = parse_config(
        '[reward]\nname = "relevance"\n[reward.relevance]\nl2 = 0.5\n[serving]\nbeams = 7\n'
    )
    assert learning.with_component(config, "reward", "relevance") is config
    other = learning.with_component(config, "reward", "pars")
    assert other.names["reward"] == "pars" and other.settings["reward"] != config.settings["reward"]
    assert other.serving == config.serving and other.settings["generator"] == config.settings["generator"]


def test_releases_of_one_recall_are_known(release: Release) -> None:
    assert recall_hash(release) == recall_hash(release)
    assert "reward/" not in recall_hash(release) and "index/" in recall_hash(release)


def test_only_simulated_shops_have_shoppers_who_act(store: Store, release: Release) -> None:
    with pytest.raises(UsageError, match="not a simulated shop"):
        learning.run(store=Path(store.path), release=[Path(release.path)])
    with pytest.raises(UsageError, match="at least 1"):
        learning.run(store=Path(store.path), seeds=0)
