from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from onesearch.config import Config
from onesearch.errors import ArtifactError, OneSearchError, PluginError, UsageError
from onesearch.plugins import Plugins, Refused, Registered
from onesearch.releases.manifest import Manifest, files_of
from onesearch.releases.release import Release, write_release


@pytest.fixture
def release(source: Path, config: Config, tmp_path: Path) -> Release:
    return write_release(tmp_path / "R", "first", source, config, "store-1", metrics={"index": {"items": 3}})


def test_a_release_reads_back_as_it_was_written(release: Release, config: Config) -> None:
    opened = Release.open(release.path, plugins=config.plugins)
    assert opened.manifest == release.manifest
    assert (opened.name, opened.manifest.store) == ("first", "store-1")
    assert opened.config.names == config.names
    assert opened.settings("reward") == config.settings["reward"]
    assert opened.vocabulary.levels == (4, 4)
    assert opened.index.number("c") == 2
    assert opened.offer("generator").name == "part"
    assert [path.name for path in release.path.parent.iterdir()] == ["first"], "no draft is left"
    seal = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=release.path, capture_output=True)
    assert seal.returncode == 0


def every_file() -> list[str]:
    roles = ("tokenizer", "user_encoder", "generator", "reward")
    parts = [f"{role}/weights.bin" for role in roles] + [f"learners/{role}/weights.bin" for role in roles]
    index = ["items.parquet", "arrays.safetensors", "index.json", "codebooks.safetensors"]
    index = [f"index/{name}" for name in (*index, "remainders.safetensors")]
    return [*parts, *index, "vocabulary/tokenizer.json", "vocabulary/layout.json", "config.toml"]


def test_every_file_is_listed(release: Release) -> None:
    assert sorted(release.manifest.files) == sorted([*every_file(), "reports/report.json"])


@pytest.mark.parametrize("name", [*every_file(), "manifest.json", "manifest.sha256"])
def test_one_changed_byte_is_named(release: Release, name: str) -> None:
    path = release.path / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x01
    path.write_bytes(raw)
    with pytest.raises(ArtifactError) as caught:
        Release.open(release.path, plugins=release.plugins)
    assert Path(name).name.split(".")[0] in str(caught.value)
    assert str(release.path) in str(caught.value)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", every_file())
def test_a_truncated_file_is_named_even_without_reading_it(release: Release, name: str, verify: bool) -> None:
    path = release.path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=name):
        Release.open(release.path, verify=verify, plugins=release.plugins)


@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_foreign_files_are_named(release: Release, verify: bool) -> None:
    (release.path / "reports" / "evaluation.json").write_text("{}")
    Release.open(release.path, verify, plugins=release.plugins)
    (release.path / "generator" / "extra.onnx").write_text("?")
    with pytest.raises(ArtifactError, match=r"generator/extra\.onnx: not a part of release 'first'"):
        Release.open(release.path, verify, plugins=release.plugins)
    (release.path / "generator" / "extra.onnx").unlink()
    (release.path / "generator" / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"generator/weights\.bin: missing"):
        Release.open(release.path, verify, plugins=release.plugins)


def test_what_is_no_release_is_told(release: Release, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ArtifactError, match="not a release"):
            Release.open(folder)
    (release.path / "manifest.sha256").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.sha256"):
        Release.open(release.path)


def test_another_format_is_refused_by_number(release: Release) -> None:
    about = json.loads((release.path / "manifest.json").read_text())
    manifest = Manifest.model_validate(about | {"format": 7})
    manifest.write(release.path)
    with pytest.raises(ArtifactError, match="format 7; this version of onesearch reads format 1"):
        Release.open(release.path)


def test_a_plugin_of_another_version_is_refused_by_name(release: Release) -> None:
    plugins = Plugins(
        [Registered(e.role, e.offer, e.plugin, e.distribution, "1.3") for e in release.plugins.registered], []
    )
    opened = Release.open(release.path, plugins=plugins)
    with pytest.raises(PluginError, match=r"needs tokenizer 'part' of parts 1\.2; installed is parts 1\.3"):
        opened.require_plugins()


def test_a_missing_plugin_is_refused_by_name(release: Release) -> None:
    some = [entry for entry in release.plugins.registered if entry.role != "reward"]
    opened = Release.open(release.path, plugins=Plugins(some, []))
    assert opened.offer("tokenizer").name == "part"
    with pytest.raises(
        PluginError, match=r"needs reward 'part' of parts 1\.2: no installed plugin offers it"
    ):
        opened.require_plugins()
    broken = Plugins(some, [Refused("parts", "parts", "importing parts raised ImportError: no parts")])
    with pytest.raises(PluginError, match="importing parts raised ImportError"):
        Release.open(release.path, plugins=broken).require_plugins()


def test_a_taken_or_unfit_name_is_refused(release: Release, source: Path, config: Config) -> None:
    releases = release.path.parent
    with pytest.raises(UsageError, match="exists already"):
        write_release(releases, "first", source, config)
    for name in ("", "../up", ".hidden", "a/b", "CHAMPION", "x" * 101, "two words"):
        with pytest.raises(UsageError, match="cannot name a release"):
            write_release(releases, name, source, config)
    assert [path.name for path in releases.iterdir()] == ["first"]


def test_equal_contents_have_equal_hashes(
    release: Release, source: Path, config: Config, tmp_path: Path
) -> None:
    (source / "reports" / "report.json").write_text('{"other": 1}')
    again = write_release(tmp_path / "other", "second", source, config, "store-2")
    assert again.manifest.content_hash() == release.manifest.content_hash()
    (source / "reward" / "weights.bin").write_bytes(b"changed")
    third = write_release(tmp_path / "other", "third", source, config)
    assert third.manifest.content_hash() != release.manifest.content_hash()


def test_no_space_leaves_nothing_behind(source: Path, config: Config, tmp_path: Path) -> None:
    (source / "generator" / "large.bin").write_bytes(b"x" * 300_000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        with pytest.raises(OneSearchError, match="release 'big' cannot be written"):
            write_release(tmp_path / "R", "big", source, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "R").iterdir()) == []
    assert write_release(tmp_path / "R", "big", source, config).name == "big"


def test_a_killed_write_leaves_no_release_and_is_swept(source: Path, config: Config, tmp_path: Path) -> None:
    releases = tmp_path / "R"
    code = f"""
import os, shutil, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from onesearch.releases import release
release.sync = lambda path: os.kill(os.getpid(), 9)
from conftest import parse_config, plugins_of, ROLES
config = parse_config("".join('[%s]\\nname = "part"\\n' % role for role in ROLES), plugins=plugins_of())
release.write_release(Path({str(releases)!r}), "cut", Path({str(source)!r}), config)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    left = [path.name for path in releases.iterdir()]
    assert len(left) == 1 and left[0].startswith(".draft-") and left[0].endswith("-cut")
    made = write_release(releases, "cut", source, config)
    assert [path.name for path in releases.iterdir()] == ["cut"]
    assert sorted(made.manifest.files) == files_of(made.path)


def test_an_unreadable_folder_is_told(source: Path, config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OneSearchError, match="cannot be written"):
        write_release(tmp_path / "file", "one", source, config)
    shutil.rmtree(source)
    with pytest.raises(OneSearchError, match="cannot be written"):
        write_release(tmp_path / "R", "one", source, config)
