"""Preference learning as stages of a training: passed over, kept, refused, resumed; a release continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.errors import ConfigError, UsageError
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.training.plan import plan
from onesearch.training.run import Trained, train


def told(trained: Trained) -> dict[str, dict[str, Any]]:
    return {report.stage: report.figures for report in trained.stages}


def state(release: Release, part: str) -> dict[str, Any]:
    return dict(json.loads((release.path / part / "state.json").read_text()))


@pytest.fixture(scope="module")
def preferred(logged: Store, toy, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(
        logged, tmp_path_factory.mktemp("releases"), "one", toy.config(prefers=True), SilentProgress()
    )


def test_both_phases_end_in_the_release(preferred: Trained) -> None:
    figures = told(preferred)
    assert list(figures)[-3:] == ["reward", "phase_1", "phase_2"]
    for phase in ("phase_1", "phase_2"):
        found = figures[phase]
        assert found["kept"] and found["rows"] > 0 and found["guarded"] > 0
        # The toy's preferences change nothing of what it finds.
        assert found["searches"]["R@10"] == figures["lists"]["searches"]["R@10"]
        assert found["change"]["NDCG@10"] == {"change": 0.0, "error": 0.0} and not found["reward_hacking"]
    release = preferred.release
    generator = state(release, "generator")
    assert {"personalisation", "phase_1", "phase_2"} <= set(generator)
    assert state(release, "learners/generator") == generator
    for folder in ("user_encoder", "learners/user_encoder"):
        assert state(release, folder)["learnt"] == generator["phase_2"], "it was trained along"
    assert len(Pipeline.of_release(release).search(SearchRequest("red lamp", k=5)).hits) == 5


def test_every_stage_of_the_generator_is_judged_by_the_same_searches(preferred: Trained) -> None:
    figures = told(preferred)
    judged = [figures[name]["searches"] for name in ("alignment", "cooccurrence", "lists", "phase_1")]
    assert {found["searches"] for found in judged} == {20}
    assert figures["lists"]["prior_only"]["searches"] == 20
    assert "searches" not in figures["personalisation"], "the lists are its searches"


def test_what_makes_held_out_searches_worse_is_refused_and_named(
    logged: Store, toy, tmp_path: Path, preferred: Trained
) -> None:
    said: list[str] = []

    class Told(SilentProgress):
        def say(self, message: str) -> None:
            said.append(message)

    trained = train(logged, tmp_path, "one", toy.config(prefers=True, worsens=True), Told())
    for phase in ("phase_1", "phase_2"):
        found = told(trained)[phase]
        assert found["worse"] and not found["kept"] and found["change"]["R@10"]["change"] < 0
        assert found["reward_hacking"] == (found["reward"]["after"] > found["reward"]["before"])
    assert any("worse beyond chance" in line for line in said)
    generator = state(trained.release, "generator")
    assert "phase_1" not in generator and "phase_2" not in generator
    assert state(trained.release, "user_encoder")["learnt"] == generator["personalisation"]
    kept = train(
        logged, tmp_path, "two", toy.config("keep_worse = true\n", prefers=True, worsens=True), Told()
    )
    assert told(kept)["phase_1"]["worse"] and told(kept)["phase_1"]["kept"]
    assert "phase_1" in state(kept.release, "generator")


def test_a_generator_without_preferences_passes_them_over(logged: Store, toy, tmp_path: Path) -> None:
    config = parse_config(toy.toml().replace("preference = []\n", ""), plugins=toy.plugins)
    figures = told(train(logged, tmp_path, "one", config, SilentProgress()))
    assert figures["phase_1"] == {"skipped": "generator 'toylearn' does not learn preferences"}


def test_judgements_alone_have_a_first_phase_and_no_second(judged: Store, toy, tmp_path: Path) -> None:
    figures = told(train(judged, tmp_path, "one", toy.config(prefers=True), SilentProgress()))
    assert figures["phase_1"]["kept"] and figures["phase_1"]["lists"] <= 60
    assert figures["phase_2"] == {"skipped": "the log has no clicks and orders of searches to learn from"}


def test_the_reward_is_fitted_again_where_that_is_asked_for(logged: Store, toy, tmp_path: Path) -> None:
    config = toy.config('refit_reward = true\npreference = ["phase_2"]\n', prefers=True)
    figures = told(train(logged, tmp_path, "one", config, SilentProgress()))
    assert list(figures)[-3:] == ["phase_2", "lists_again", "reward_again"]
    assert figures["reward_again"]["lists"] == figures["reward"]["lists"]


def test_what_phases_learn_from_is_an_input_of_theirs_alone(toy) -> None:
    base = plan(toy.config(prefers=True), "store", "one")
    other = plan(toy.config("preference_beams = 3\n", prefers=True), "store", "one")
    assert {stage for stage in base if base[stage] != other[stage]} == {"phase_1", "phase_2", "release"}
    none = plan(toy.config(), "store", "one")
    assert not {"phase_1", "phase_2"} & set(none)
    settings = "[generator.seq2seq.{}]\nsteps = 7\n"
    built = plan(parse_config(""), "store", "one")
    changed = plan(parse_config(settings.format("phase_2")), "store", "one")
    assert {stage for stage in built if built[stage] != changed[stage]} == {"phase_2", "release"}
    changed = plan(parse_config(settings.format("cooccurrence")), "store", "one")
    assert changed["alignment"] == built["alignment"] and changed["cooccurrence"] != built["cooccurrence"]
    with pytest.raises(ConfigError, match="phase_3"):
        plan(toy.config('preference = ["phase_3"]\n', prefers=True), "store", "one")


def test_killed_in_a_phase_and_started_again_it_ends_in_the_same_release(
    logged: Store, toy, tmp_path: Path, preferred: Trained
) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(toy.toml(prefers=True))
    arguments = ["train", "--store", str(logged.path), "--releases", str(tmp_path), "--name", "one"]
    command = [sys.executable, "-m", "onesearch.cli.main", *arguments, "--config", str(config), "--json"]
    dies = {**toy.environment(), "TOYLEARN_DIES_AFTER": "phase_2"}
    assert subprocess.run(command, env=dies, capture_output=True).returncode == -signal.SIGKILL
    again = subprocess.run(command, env=toy.environment(), capture_output=True, text=True, check=True)
    answer = json.loads(again.stdout)
    assert [stage["stage"] for stage in answer["stages"] if not stage["resumed"]] == ["phase_2"]
    assert answer["content"] == preferred.release.manifest.content_hash()


# -- continuing a release -----------------------------------------------------------------------------------


def test_a_release_is_continued(logged: Store, toy, tmp_path: Path, preferred: Trained) -> None:
    start, config = preferred.release, toy.config(prefers=True)
    trained = train(logged, tmp_path, "night", config, SilentProgress(), start_from=start)
    figures = told(trained)
    assert list(figures) == [
        "tokenizer", "vocabulary", "index", "user_encoder", "refresh", "generator", "lists", "reward",
        "phase_1", "phase_2",
    ]  # fmt: skip
    assert figures["tokenizer"] == {"from": "one"}
    before, after = state(start, "generator"), state(trained.release, "generator")
    assert after["alignment"] == before["alignment"] and after["phase_1"] != before["phase_1"]
    assert "refresh" in after and "refresh" not in before
    for part in ("tokenizer", "learners/tokenizer", "vocabulary", "index"):
        for file in (start.path / part).iterdir():
            assert file.read_bytes() == (trained.release.path / part / file.name).read_bytes()
    assert figures["vocabulary"]["learnt_until"] == told(preferred)["vocabulary"]["learnt_until"] != None  # noqa: E711
    again = train(logged, tmp_path / "B", "night", config, SilentProgress(), start_from=start)
    assert again.release.manifest.content_hash() == trained.release.manifest.content_hash()
    assert np.array_equal(again.release.index.sids, start.index.sids)


def test_the_command_continues_a_release(logged: Store, toy, tmp_path: Path, preferred: Trained) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(toy.toml(prefers=True) + "refresh = false\n")
    where = ["--store", str(logged.path), "--releases", str(tmp_path), "--name", "night"]
    command = [sys.executable, "-m", "onesearch.cli.main", "train", *where, "--config", str(config), "--json"]
    done = subprocess.run(
        [*command, "--from", str(preferred.release.path)],
        env=toy.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["stages"][0]["figures"] == {"from": "one"}
    assert [row["stage"] for row in answer["effects"]] == [
        "prior alone", "as it was", "reward", "phase_1", "phase_2",
    ]  # fmt: skip
    assert Release.open(tmp_path / "night", plugins=toy.plugins).manifest.content_hash() == answer["content"]


def test_without_refreshing_only_preferences_are_learnt(
    logged: Store, toy, tmp_path: Path, preferred: Trained
) -> None:
    config = toy.config("refresh = false\n", prefers=True)
    trained = train(logged, tmp_path, "night", config, SilentProgress(), start_from=preferred.release)
    assert "refresh" not in told(trained) and "refresh" not in state(trained.release, "generator")


def test_another_part_than_the_release_has_is_refused(
    logged: Store, toy, tmp_path: Path, preferred: Trained
) -> None:
    other = parse_config("", plugins=toy.plugins)
    with pytest.raises(UsageError, match=r"release 'one' has 'toylearn'"):
        train(logged, tmp_path, "night", other, SilentProgress(), start_from=preferred.release)


def test_the_release_continued_is_an_input(toy) -> None:
    one, other = (plan(toy.config(), "store", "one", start) for start in ("a", "b"))
    assert not {stage for stage in one if one[stage] == other[stage]}
