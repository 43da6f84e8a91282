from __future__ import annotations

import json
from pathlib import Path

import pytest
from onesearch.config import Config
from onesearch.errors import ArtifactError, PluginError, UsageError
from onesearch.plugins import load_plugins
from onesearch.releases import release as release_module
from onesearch.releases.registry import POINTER, Registry, find_release
from onesearch.releases.release import write_release


@pytest.fixture
def registry(source: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three releases; the process has the plugins they need."""
    monkeypatch.setattr(release_module, "load_plugins", lambda: config.plugins)
    for name in ("one", "two", "three"):
        write_release(tmp_path / "R", name, source, config)
    return Registry(tmp_path / "R")


def test_promote_and_roll_back(registry: Registry) -> None:
    assert registry.champion() is None
    registry.promote("one")
    registry.promote("two")
    registry.promote("three")
    assert registry.champion() == "three"
    assert registry.rollback().name == "two"
    assert registry.rollback().name == "one"
    with pytest.raises(UsageError, match="no previous champion"):
        registry.rollback()
    assert registry.champion() == "one"
    told = [(change.how, change.name) for change in Registry(registry.folder).history()]
    assert told == [
        ("promote", "one"), ("promote", "two"), ("promote", "three"),
        ("rollback", "two"), ("rollback", "one"),
    ]  # fmt: skip


def test_promoting_the_champion_changes_nothing(registry: Registry) -> None:
    registry.promote("one")
    registry.promote("one")
    assert len(registry.history()) == 1


def test_a_broken_release_is_not_promoted(registry: Registry) -> None:
    registry.promote("one")
    path = registry.folder / "two" / "reward" / "weights.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"two/reward/weights\.bin: it was changed"):
        registry.promote("two")
    assert registry.champion() == "one"


def test_a_rollback_to_a_removed_release_is_told(registry: Registry) -> None:
    registry.promote("one")
    registry.promote("two")
    (registry.folder / "one").rename(registry.folder.parent / "away")
    with pytest.raises(UsageError, match="no release 'one'"):
        registry.rollback()
    assert registry.champion() == "two"


def test_a_release_without_its_plugins_is_not_promoted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_module, "load_plugins", load_plugins)
    with pytest.raises(PluginError, match=r"'part' of parts 1\.2"):
        registry.promote("one")
    assert registry.champion() is None


def test_names_are_suggested(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"no release 'tow' .* did you mean 'two'\?"):
        registry.promote("tow")
    with pytest.raises(UsageError, match="did you mean 'three'"):
        find_release(registry.folder / "thre")


def test_listing_marks_champion_and_broken(registry: Registry) -> None:
    registry.promote("two")
    (registry.folder / "one" / "manifest.json").write_text("{}")
    (registry.folder / ".draft-1-x").mkdir()
    listed = registry.listing()
    assert {entry.name: entry.champion for entry in listed} == {"one": False, "two": True, "three": False}
    assert listed[-1].name == "one" and "it was changed" in listed[-1].problem
    assert Registry(registry.folder / "nowhere").listing() == []


def test_find_release(registry: Registry) -> None:
    assert find_release(registry.folder / "one") == registry.folder / "one"
    with pytest.raises(UsageError, match="neither a release"):
        find_release(registry.folder)
    registry.promote("two")
    assert find_release(registry.folder) == registry.folder / "two"


def test_a_broken_pointer_is_told(registry: Registry) -> None:
    (registry.folder / POINTER).write_text('{"champion": "one", "prev')
    with pytest.raises(ArtifactError, match=POINTER):
        registry.champion()


def test_the_pointer_is_one_readable_file(registry: Registry) -> None:
    registry.promote("one")
    assert json.loads((registry.folder / POINTER).read_text())["champion"] == "one"
    assert {path.name for path in registry.folder.iterdir()} == {"one", "two", "three", POINTER}


def test_a_challenger_comes_grows_and_goes(registry: Registry) -> None:
    with pytest.raises(UsageError, match="no champion yet"):
        registry.challenge("two", 0.1)
    registry.promote("one")
    first = registry.challenge("two", 0.1)
    assert registry.challenger() == first and first.share == 0.1
    grown = registry.challenge("two", 0.3)
    assert (grown.salt, grown.since, grown.share) == (first.salt, first.since, 0.3)
    other = registry.challenge("three", 0.3)
    assert other.salt != first.salt
    assert [entry.name for entry in registry.listing() if entry.challenger] == ["three"]
    for name, share, said in (
        ("one", 0.1, "is the champion"),
        ("two", 0.0, "between"),
        ("two", 1.0, "between"),
    ):
        with pytest.raises(UsageError, match=said):
            registry.challenge(name, share)
    assert registry.challenger() == other
    registry.promote("two")
    assert registry.challenger() == other  # another release's promotion is no reason
    registry.promote("three")
    assert registry.challenger() is None and registry.champion() == "three"
    registry.challenge("one", 0.5)
    assert registry.end_challenge() == "one" and registry.end_challenge() is None
    registry.challenge("two", 0.5)
    assert registry.rollback().name == "two" and registry.challenger() is None
