from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onesearch.config import Config
from onesearch.errors import ArtifactError, UsageError
from onesearch.releases import manifest as manifest_module
from onesearch.releases import release as release_module
from onesearch.releases.holding import Hold, is_held
from onesearch.releases.pruning import pin, pinned, prune
from onesearch.releases.registry import Registry
from onesearch.releases.release import write_release


@pytest.fixture
def registry(source: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Releases r0 to r7, each a minute younger."""
    monkeypatch.setattr(release_module, "load_plugins", lambda: config.plugins)
    start = manifest_module.now()
    for number in range(8):
        monkeypatch.setattr(
            release_module, "now", lambda number=number: start.replace(minute=number, second=0)
        )
        write_release(tmp_path / "R", f"r{number}", source, config)
    return Registry(tmp_path / "R")


def test_what_is_needed_is_kept(registry: Registry) -> None:
    for name in ("r0", "r1", "r2"):
        registry.promote(name)
    registry.challenge("r3", 0.1)
    pin(registry, "r4")
    hold = Hold(registry.folder / "r5")
    dry = prune(registry, keep=1, dry_run=True)
    assert set(registry.names()) == {f"r{number}" for number in range(8)}
    done = prune(registry, keep=1)
    assert done == dry and set(done.removed) == {"r0", "r6"} and done.freed > 0
    assert done.kept == {
        "r1": "previous champion", "r2": "champion", "r3": "challenger", "r4": "pinned", "r5": "served",
        "r7": "new",
    }  # fmt: skip
    assert registry.rollback().name == "r1"
    with pytest.raises(UsageError, match="no previous champion"):
        registry.rollback()  # r0 is gone
    hold.release()
    pin(registry, "r4", wanted=False)
    assert set(prune(registry, keep=0).removed) == {"r2", "r4", "r5", "r7"}
    assert sorted(registry.names()) == ["r1", "r3"] and pinned(registry) == []
    assert {path.name for path in registry.folder.iterdir()} == {
        "r1", "r3", "CHAMPION", "CHALLENGER", "PINNED"
    }  # fmt: skip


def test_anchors_of_champions_are_kept(registry: Registry) -> None:
    assert registry.anchor("r3") == "r3"
    for name, anchor in (("r2", "r0"), ("r3", "r1"), ("r4", "r7")):
        registry.set_anchor(name, anchor)
    for name in ("r2", "r3"):
        registry.promote(name)
    assert prune(registry, keep=0).kept == {
        "r0": "anchor", "r1": "anchor", "r2": "previous champion", "r3": "champion"
    }  # fmt: skip
    # Of what is gone nothing is known any more, and what lost its anchor is its own.
    with pytest.raises(UsageError, match="no release 'r7'"):
        registry.set_anchor("r3", "r7")
    registry.set_anchor("r3", "r3")
    registry.set_anchor("r2", "r2")
    assert set(prune(registry, keep=0).removed) == {"r0", "r1"} and registry.anchor("r3") == "r3"
    (registry.folder / "ANCHORS").write_text("[]")
    with pytest.raises(ArtifactError, match="ANCHORS"):
        prune(registry, keep=0)


def test_broken_releases_go_first_and_nothing_else_is_touched(registry: Registry) -> None:
    registry.promote("r0")
    (registry.folder / "r7" / "manifest.json").write_text("{}")
    (registry.folder / ".pruned-1-old").mkdir()
    (registry.folder / "notes").mkdir()
    assert "r7" in prune(registry, keep=6).removed
    assert (registry.folder / "notes").exists() and not (registry.folder / ".pruned-1-old").exists()
    with pytest.raises(UsageError, match="keep -1"):
        prune(registry, keep=-1)
    with pytest.raises(UsageError, match="no release 'nowhere'"):
        pin(registry, "nowhere")


def test_a_hold_ends_with_its_process(registry: Registry) -> None:
    folder = registry.folder / "r0"
    code = (
        "import sys, time; from pathlib import Path; from onesearch.releases.holding import Hold\n"
        "held = Hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert is_held(folder) and {entry.name for entry in registry.listing() if entry.served} == {"r0"}
    mine = Hold(folder)  # any number may hold it
    mine.release()
    assert is_held(folder)
    other.kill()
    other.communicate()
    assert not is_held(folder)
    with pytest.raises(ArtifactError, match="nowhere"):
        Hold(registry.folder / "nowhere")
