from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import ConfigError, OneSearchError, UsageError
from onesearch.index import CatalogueIndex, NodeVectors
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.training.plan import plan
from onesearch.training.run import train

STAGES = [
    "tokenizer", "vocabulary", "index", "user_encoder", "alignment", "cooccurrence", "personalisation",
    "generator", "lists", "reward",
]  # fmt: skip


def test_ends_in_a_release_that_searches(logged: Store, toy, tmp_path: Path) -> None:
    trained = train(logged, tmp_path / "R", "one", toy.config(), SilentProgress())
    assert [report.stage for report in trained.stages] == STAGES
    assert not any(report.resumed for report in trained.stages)
    release = Release.open(tmp_path / "R" / "one", plugins=toy.plugins)
    assert release.manifest.store == logged.fingerprint()
    assert release.manifest.components["generator"].distribution == "onesearch-toylearn"
    assert release.manifest.metrics["tokenizer"] == {"icr": 0.5}
    assert (release.path / "reports" / "tokenizer" / "report.txt").read_text() == "all is well\n"
    assert {path.name for path in (release.path / "learners").iterdir()} == {
        "tokenizer", "user_encoder", "generator", "reward",
    }  # fmt: skip
    answer = Pipeline.of_release(release).search(SearchRequest("red lamp", k=5))
    assert len(answer.hits) == 5
    assert all("red" in hit.title or "lamp" in hit.title for hit in answer.hits)
    assert not (tmp_path / "R" / ".work" / "one" / "bundle").exists()


def test_what_is_fitted_is_fitted_to_the_index_that_is_served(
    logged: Store, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    plain = CatalogueIndex.load.__func__  # type: ignore[attr-defined]

    def load_and_tell(cls, folder: Path, node_vectors: NodeVectors) -> CatalogueIndex:
        loaded.append(node_vectors)
        return plain(cls, folder, node_vectors)

    monkeypatch.setattr(CatalogueIndex, "load", classmethod(load_and_tell))
    config = toy.config('[serving]\nnode_vectors = "codes"\n')
    release = train(logged, tmp_path, "one", config, SilentProgress()).release
    assert set(loaded) == {"codes"} and release.index.live.by_code
    own, usual = plan(config, "store", "one"), plan(toy.config(), "store", "one")
    assert own["index"] == usual["index"] and own["lists"] != usual["lists"]


def test_the_user_encoder_trained_along_is_what_later_stages_and_the_release_take(
    logged: Store, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onesearch_toy.servers import ToyUserEncoder

    opened = []
    plain = ToyUserEncoder.open.__func__  # type: ignore[attr-defined]

    def open_and_tell(cls, folder: Path, context, config) -> ToyUserEncoder:
        opened.append(json.loads((folder / "state.json").read_text()))
        return plain(cls, folder, context, config)

    monkeypatch.setattr(ToyUserEncoder, "open", classmethod(open_and_tell))
    trained = train(logged, tmp_path, "one", toy.config(), SilentProgress())
    release = trained.release.path
    learnt = json.loads((release / "generator" / "state.json").read_text())["personalisation"]
    along = {"dim": 16, "width": 8, "learnt": learnt}
    for saved in (release / "user_encoder", release / "learners" / "user_encoder"):
        assert json.loads((saved / "state.json").read_text()) == along
    assert opened[0] == {} and opened[-1] == along, "examples are of the untrained one, lists of the trained"


def test_resumed_after_personalisation_it_still_takes_the_trained_one(
    logged: Store, toy, tmp_path: Path
) -> None:
    broken = toy.toml().replace("[reward.toylearn]\n", "[reward.toylearn]\nfail = true\n")
    with pytest.raises(OneSearchError, match="will not have it"):
        train(logged, tmp_path / "A", "one", parse_config(broken, plugins=toy.plugins), SilentProgress())
    resumed = train(logged, tmp_path / "A", "one", toy.config(), SilentProgress())
    assert all(report.resumed for report in resumed.stages[:-1])
    whole = train(logged, tmp_path / "B", "one", toy.config(), SilentProgress())
    assert resumed.release.manifest.content_hash() == whole.release.manifest.content_hash()


def test_a_generator_that_reads_no_vectors_trains_no_module(logged: Store, toy, tmp_path: Path) -> None:
    release = train(logged, tmp_path, "one", toy.config(width=0), SilentProgress()).release
    assert "personalisation" in json.loads((release.path / "generator" / "state.json").read_text())
    assert json.loads((release.path / "user_encoder" / "state.json").read_text()) == {}


def test_without_searches_in_the_log_personalisation_passes_the_weights_on(
    judged: Store, toy, tmp_path: Path
) -> None:
    trained = train(judged, tmp_path, "one", toy.config(), SilentProgress())
    figures = {report.stage: report.figures for report in trained.stages}
    assert figures["personalisation"] == {"skipped": "the store logs no searches to learn from"}
    learnt = json.loads((trained.release.path / "generator" / "state.json").read_text())
    assert list(learnt) == ["alignment", "cooccurrence"]
    alone = toy.config('stages = ["personalisation"]\n')
    with pytest.raises(UsageError, match="no stage before it taught anything"):
        train(judged, tmp_path, "two", alone, SilentProgress())


def test_what_personalisation_learns_from_is_an_input_of_it_and_of_nothing_before(toy) -> None:
    base = plan(toy.config(), "store", "one")
    for more in ("personal_examples = 10\n", "sliding_window = false\n"):
        other = plan(toy.config(more), "store", "one")
        same = {stage for stage in base if base[stage] == other[stage]}
        assert same == {"tokenizer", "vocabulary", "index", "user_encoder", "alignment", "cooccurrence"}
    without = plan(toy.config('stages = ["alignment", "cooccurrence"]\n'), "store", "one")
    assert "personalisation" not in without and without["generator"] != base["generator"]


def test_a_second_call_finds_it_done(logged: Store, toy, tmp_path: Path) -> None:
    first = train(logged, tmp_path, "one", toy.config(), SilentProgress())
    second = train(logged, tmp_path, "one", toy.config(), SilentProgress())
    assert all(report.resumed for report in second.stages)
    assert [r.figures for r in second.stages] == [r.figures for r in first.stages]
    assert second.release.manifest == first.release.manifest


def test_equal_inputs_give_equal_contents(logged: Store, toy, tmp_path: Path) -> None:
    one = train(logged, tmp_path / "A", "one", toy.config(), SilentProgress()).release
    other = train(logged, tmp_path / "B", "one", toy.config(), SilentProgress()).release
    assert one.manifest.content_hash() == other.manifest.content_hash()


def test_a_taken_name_is_refused_before_any_work(logged: Store, toy, tmp_path: Path) -> None:
    train(logged, tmp_path, "one", toy.config(), SilentProgress())
    with pytest.raises(UsageError, match="made from another store or configuration"):
        train(logged, tmp_path, "one", toy.config(steps=4), SilentProgress())


def test_a_failed_stage_is_all_that_is_run_again(logged: Store, toy, tmp_path: Path) -> None:
    broken = toy.toml().replace("[reward.toylearn]\n", "[reward.toylearn]\nfail = true\n")
    with pytest.raises(OneSearchError, match="the reward will not have it"):
        train(logged, tmp_path, "one", parse_config(broken, plugins=toy.plugins), SilentProgress())
    assert not (tmp_path / "one").exists()
    trained = train(logged, tmp_path, "one", toy.config(), SilentProgress())
    assert [r.stage for r in trained.stages if not r.resumed] == ["reward"]


def test_an_empty_store_and_a_wrong_stage_are_told(logged: Store, toy, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "empty", "test"):
        pass
    with pytest.raises(UsageError, match="no items"):
        train(Store.open(tmp_path / "empty"), tmp_path / "R", "one", toy.config(), SilentProgress())
    config = toy.config('stages = ["alignement"]\n')
    with pytest.raises(ConfigError, match="alignement"):
        train(logged, tmp_path / "R", "one", config, SilentProgress())


def command(toy, store: Store, releases: Path, config: Path, *more: str, step_ms: int = 0) -> list[str]:
    config.write_text(toy.toml(steps=6, step_ms=step_ms))
    arguments = ["train", "--store", str(store.path), "--releases", str(releases), "--name", "one"]
    return [sys.executable, "-m", "onesearch.cli.main", *arguments, "--config", str(config), *more]


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stderr is not None
    until = time.monotonic() + 120
    for said in process.stderr:
        if line in said:
            return
        assert time.monotonic() < until, f"never said {line!r}"
    raise AssertionError(f"ended with {process.wait()} without saying {line!r}")


@pytest.mark.parametrize(("which", "stage"), [("judged", "cooccurrence"), ("logged", "personalisation")])
def test_killed_and_started_again_ends_in_the_same_release(
    which: str, stage: str, toy, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store: Store = request.getfixturevalue(which)
    whole = train(store, tmp_path / "A", "one", toy.config(steps=6, step_ms=0), SilentProgress()).release
    arguments = command(toy, store, tmp_path / "B", tmp_path / "toy.toml", "--json")
    dies = {**toy.environment(), "TOYLEARN_DIES_AFTER": f"{stage} step 3"}
    assert subprocess.run(arguments, env=dies, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "B" / "one").exists()
    again = subprocess.run(arguments, env=toy.environment(), capture_output=True, text=True, check=True)
    answer = json.loads(again.stdout)
    assert "resumed at step 3" in again.stderr
    done_before = {stage["stage"] for stage in answer["stages"] if stage["resumed"]}
    assert done_before == set(STAGES[: STAGES.index(stage)])
    assert answer["content"] == whole.manifest.content_hash()


def test_interrupted_it_says_how_to_go_on(judged: Store, toy, tmp_path: Path) -> None:
    arguments = command(toy, judged, tmp_path / "R", tmp_path / "toy.toml", step_ms=2_000)
    process = subprocess.Popen(
        arguments,
        env=toy.environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(process, "alignment step 1")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert f"To go on: onesearch train --store {judged.path}" in said
    assert "Traceback" not in said


def test_only_one_process_trains_a_release(judged: Store, toy, tmp_path: Path) -> None:
    arguments = command(toy, judged, tmp_path / "R", tmp_path / "toy.toml", step_ms=2_000)
    process = subprocess.Popen(arguments, env=toy.environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(process, "alignment step 1")
        with pytest.raises(UsageError, match="another process"):
            train(judged, tmp_path / "R", "one", toy.config(), SilentProgress())
    finally:
        process.kill()
        process.communicate()


def test_no_space_is_told_and_leaves_nothing_half_written(judged: Store, toy, tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "from onesearch.cli.main import main; main(sys.argv[1:])"
    arguments = command(toy, judged, tmp_path / "R", tmp_path / "toy.toml")
    run = subprocess.run(
        [sys.executable, "-c", limited, *arguments[3:]], env=toy.environment(), capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "stage " in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "R" / "one").exists()
    assert [path.name for path in (tmp_path / "R").iterdir()] == [".work"]
    again = subprocess.run(arguments, env=toy.environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "all" in again.stdout and "reward" in again.stdout
