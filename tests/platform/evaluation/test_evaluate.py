import json
from pathlib import Path

import numpy as np
import pytest
from onesearch.cli.main import main
from onesearch.contracts.user_encoder import ShopperState
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.evaluating import evaluate
from onesearch.evaluation.metrics import metric_names
from onesearch.evaluation.systems import BASELINES, OWN, UNPERSONALISED, run_before, run_pipeline
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline, SearchRequest


@pytest.fixture
def as_installed(monkeypatch: pytest.MonkeyPatch, release: Release) -> None:
    monkeypatch.setattr("onesearch.releases.release.load_plugins", lambda: release.plugins)


def arguments(release: Release, searches: Path, store: Store, *more: str) -> list[str]:
    return [
        "evaluate", "--release", str(release.path), "--queries", str(searches), "--format", "hm",
        "--store", str(store.path), *more,
    ]  # fmt: skip


@pytest.mark.usefixtures("as_installed")
def test_json_has_the_keys_that_are_relied_upon(
    release: Release, store: Store, searches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ends(arguments(release, searches, store, "--json", "--reports", str(tmp_path)))
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert list(answer["systems"]) == [*OWN, UNPERSONALISED, *BASELINES]
    for name, system in answer["systems"].items():
        for metric in metric_names():
            assert system[f"{metric}_low"] <= system[metric] <= system[f"{metric}_high"]
        assert system["p50_ms"] > 0
        assert system["beams"] == (None if name in BASELINES else 400)
    assert answer["paired"]["guided - prior_only"]["R@10"] == pytest.approx(
        answer["systems"]["guided"]["R@10"] - answer["systems"]["prior_only"]["R@10"], abs=2e-5
    )
    assert {"onesearch - hybrid", "onesearch - cascade"} <= set(answer["paired"])
    assert answer["searches"] == 80 and answer["tuned"]["hybrid"]["searches"] > 0
    assert "not, or no longer, the store" in answer["notes"][0]
    assert json.loads((tmp_path / "evaluation-hm-hm.json").read_text()) == answer
    assert (tmp_path / "evaluation-hm-hm.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("as_installed")
def test_tables_and_a_sample_without_baselines(
    release: Release, store: Store, searches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--against", "", "--sample", "9", "--reports", str(tmp_path)]
    main_ends(arguments(release, searches, store, *more))
    shown = capsys.readouterr().out
    assert "9 searches" in shown and "onesearch − prior_only" in shown
    assert "bm25" not in shown


def test_what_is_evaluated_is_what_is_served(release: Release) -> None:
    pipeline = Pipeline.of_release(release)
    queries = ["red lamp", "oak desk", "blue rug"]
    runs = run_pipeline(pipeline, queries, SilentProgress())
    ids = release.index.items["item_id"].to_list()
    for row, query in enumerate(queries):
        for name, rerank in (("onesearch", True), ("guided", False)):
            hits = pipeline.search(SearchRequest(query, k=50, rerank=rerank)).hits
            assert [ids[n] for n in runs[name].ranked[row, :50]] == [hit.item_id for hit in hits]
    reached = {n for n in runs["guided"].ranked[0].tolist() if n >= 0}
    assert len(reached) == np.sum(runs["guided"].ranked[0] >= 0)


def test_repeated_searches_count_as_often_as_they_were_made(release: Release, searches: Path) -> None:
    found = evaluate(release, searches, "hm", (), None, None, 0, SilentProgress())
    assert found.searches == 80 > found.different == len(found.runs["guided"].ms)
    assert found.store is None and len(found.notes) == 1 and "strangers" in found.notes[0]


def test_a_release_before_is_asked_the_same_and_compared(release: Release, searches: Path) -> None:
    found = evaluate(
        release, searches, "hm", (), None, None, 0, SilentProgress(), before=release, ablations=False
    )
    assert list(found.runs) == ["onesearch", "guided", "before", "before_guided"]
    assert found.as_json()["before"] == release.name
    np.testing.assert_array_equal(found.runs["before"].ranked, found.runs["onesearch"].ranked)
    compared = {(one.ours, one.theirs): one.differences["HR@10"] for one in found.comparisons}
    assert compared["onesearch", "before"].high == compared["guided", "before_guided"].high == 0
    assert compared["onesearch", "guided"].value != 0


def test_items_of_a_release_before_are_found_by_their_ids(release: Release) -> None:
    pipeline = Pipeline.of_release(release)
    ids = pipeline.context.index.items["item_id"].to_list()
    there = [item for at, item in enumerate(reversed(ids)) if at % 2]
    whole, half = (
        run_before(pipeline, ["red lamp"], [ShopperState()], known, SilentProgress())["before"].ranked[0]
        for known in (ids, there)
    )
    expected = [ids[at] for at in whole[whole >= 0] if ids[at] in there]
    assert len(expected) and [there[at] for at in half[half >= 0]] == expected


def test_a_release_that_does_not_say_where_its_store_is(release: Release, searches: Path) -> None:
    with pytest.raises(UsageError, match="--store"):
        evaluate(release, searches, "hm", ("bm25",), None, None, 0, SilentProgress())


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--against", "magic"], "known are bm25"),
        (["--sample", "0"], "at least one search"),
        (["--store", "nowhere"], "nowhere is not a store"),
    ],
)
def test_bad_usage_is_told_in_a_line(
    release: Release,
    store: Store,
    searches: Path,
    more: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments(release, searches, store, *more))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and told in " ".join(said.split()) and "Traceback" not in said


def main_ends(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 0
