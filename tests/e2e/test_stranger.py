"""A distribution of somebody else replaces two parts, trains, and serves through Triton."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from onesearch.errors import ServingError
from onesearch.serving import environment

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
STARTING_S = 120
CONFIG = """
[tokenizer.khqe]
dim = 32
buckets = 4096
[tokenizer.khqe.keywords]
extractor = "onesearch_stranger.slogans:SloganExtractor"
[tokenizer.khqe.alignment]
epochs = 1
batch = 64
max_steps = 20
pseudo_queries = 500

[generator.seq2seq]
size = "tiny"
[generator.seq2seq.alignment]
steps = 5
batch_size = 32
text_batch_size = 8
[generator.seq2seq.cooccurrence]
steps = 5
batch_size = 32
text_batch_size = 8
[generator.seq2seq.personalisation]
steps = 5
batch_size = 32
text_batch_size = 8

[reward]
name = "cheap-first"
[reward.cheap-first]
weights = [2.0]

[generator.seq2seq.phase_1]
steps = 2
[generator.seq2seq.phase_2]
steps = 2

[training]
vocabulary_size = 2000
reward_queries = 40
reward_beams = 32
preference_lists = 40
preference_beams = 16
judged_searches = 20

[serving]
beams = 64
threads = 1
"""


@dataclass
class House:
    """Two environments, each on top of the project's, with the stranger installed."""

    learning: Path
    serving: Path
    folder: Path

    def run(self, *arguments: str | Path, stranger: bool = True) -> subprocess.CompletedProcess[str]:
        """``onesearch …`` where the stranger is installed, or in the project's own environment."""
        python = self.learning if stranger else Path(sys.executable)
        command = [str(python), "-m", "onesearch.cli.main", *map(str, arguments)]
        return subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False)

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    @property
    def variables(self) -> dict[str, str]:
        changed = {
            environment.PYTHON_VARIABLE: str(self.serving),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **changed}


def _on_top(below: Path, folder: Path, uv: str) -> Path:
    """A virtual environment that sees another one's packages, with the stranger really installed in it."""
    told = subprocess.run(
        [below, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    subprocess.run([below, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    below_it = told.stdout.strip()
    (packages / "below.pth").write_text(f"import site; site.addsitedir({below_it!r})\n")
    python = folder / "bin" / "python"
    source = ROOT / "tests" / "stranger"
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps", str(source)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    uv = shutil.which("uv") or str(ROOT / ".venv-tools" / "bin" / "uv")
    try:
        serving = environment.find().python
    except ServingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("stranger")
    learning = _on_top(Path(sys.executable), folder / "learning", uv)
    return House(learning, _on_top(serving, folder / "serving", uv), folder)


@pytest.fixture(scope="module")
def release(house: House) -> Path:
    """A release trained with the stranger's parts on the small demo store."""
    config = house.folder / "stranger.toml"
    config.write_text(CONFIG)
    house.json("import", "demo", "--store", house.folder / "store", "--size", "small")
    house.json(
        "train", "--store", house.folder / "store", "--releases", house.folder / "releases",
        "--name", "strange", "--config", config,
    )  # fmt: skip
    return house.folder / "releases" / "strange"


@pytest.fixture(scope="module")
def gateway(house: House, release: Path) -> Iterator[str]:
    ready = house.folder / "ready.json"
    command = [str(house.learning), "-m", "onesearch.cli.main", "serve", "--release", str(release),
               "--ready-file", str(ready), "--triton-log", str(house.folder / "triton.log")]  # fmt: skip
    process = subprocess.Popen(command, env=house.variables, stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + STARTING_S
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < limit, f"not ready after {STARTING_S} s"
            time.sleep(0.1)
        yield str(json.loads(ready.read_text())["gateway"])
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_it_is_listed_with_its_distribution(house: House) -> None:
    listed = house.json("plugins", "list")
    assert listed["refused"] == []
    [mine] = [offer for offer in listed["offers"] if offer["plugin"] == "stranger"]
    assert (mine["role"], mine["name"], mine["distribution"], mine["version"]) == (
        "reward", "cheap-first", "onesearch-stranger", "0.3.0",
    )  # fmt: skip


def test_it_keeps_the_contract(house: House) -> None:
    checked = house.json("plugins", "check", "cheap-first")
    assert checked["failed"] == 0
    assert {row["name"] for row in checked["checks"]} == {"cheap-first"}
    assert len(checked["checks"]) >= 12


def test_search_through_triton_uses_both_parts(house: House, gateway: str) -> None:
    answer = house.json("search", "【清仓】 mug", "--k", "20", "--explain", "--gateway", gateway)
    assert not answer["degraded"]
    assert {"text": "清仓", "attribute": "Marketing"} in answer["explanation"]["keywords"]
    hits = answer["hits"]
    assert len(hits) == 20
    assert all(set(hit["parts"]) == {"generator", "cheapness"} for hit in hits)
    for hit in hits:
        assert sum(hit["parts"].values()) == pytest.approx(hit["score"], abs=1e-3)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    priced = [hit for hit in hits if hit["price"]]
    for a in priced:
        for b in priced:
            worth = a["parts"]["cheapness"] - b["parts"]["cheapness"]
            assert (worth > 0) == (a["price"] < b["price"])


def test_encode_uses_the_extractor(house: House, release: Path) -> None:
    told = json.dumps(house.json("encode", "--release", release, "[hot sale] sneakers"), ensure_ascii=False)
    assert "hot sale" in told
    assert "Marketing" in told


def test_the_release_names_the_stranger_and_is_refused_without_it(house: House, release: Path) -> None:
    entry = house.json("release", "show", release)["components"]["reward"]
    assert (entry["component"], entry["distribution"], entry["version"]) == (
        "cheap-first", "onesearch-stranger", "0.3.0",
    )  # fmt: skip
    assert house.json("release", "verify", release)["valid"]
    without = house.run("release", "verify", release, stranger=False)
    assert without.returncode == 1
    assert "cheap-first" in without.stderr
    assert "onesearch-stranger 0.3.0" in without.stderr.replace("\n", " ")
    assert "Traceback" not in without.stderr
