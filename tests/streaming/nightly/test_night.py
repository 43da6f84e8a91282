"""Whole nights over toy parts: promoted, refused, made up, resumed after being killed anywhere."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.errors import OneSearchError, UsageError
from onesearch.progress import SilentProgress
from onesearch.releases.pruning import prune
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch_streaming.ingest.delta_log import DeltaLog, files
from onesearch_streaming.ingest.pins import pin, pins
from onesearch_streaming.nightly.kill import killed_nights
from onesearch_streaming.nightly.night import look, newest_day, run_night

NINTH = date(2024, 3, 9)
# Toy parts order by chance: what is tested here is the way of a night, and the gate has tests of its own.
LOOSE = """
[nightly]
window_days = 6
[nightly.gate]
quality_margin = 1.0
relevance_margin = 1.0
reach_margin = 1.0
latency_ratio = 100.0
least_searches = 10
"""


def night(shop, day: date = NINTH, extra: str = LOOSE, releases: Path | None = None, catalogue=None):
    config, folder = shop.toy.config(extra), releases or shop.releases
    return run_night(shop.store, shop.log, folder, config, day, SilentProgress(), catalogue=catalogue)


def test_a_good_night_promotes_its_challenger_and_tells_why(shop) -> None:
    shop.append(8)
    assert newest_day(Store.open(shop.store), shop.log) == NINTH
    recorded = (shop.toy.toml() + LOOSE).replace("enabled = false", "enabled = true")
    config = parse_config(recorded, plugins=shop.toy.plugins)
    ended = run_night(shop.store, shop.log, shop.releases, config, NINTH, SilentProgress())
    assert ended.promoted and ended.about["promoted"]
    assert Registry(shop.releases).champion() == "night-2024-03-09"
    release = Release.open(shop.releases / "night-2024-03-09", plugins=shop.toy.plugins)
    assert release.manifest.content_hash() == ended.about["challenger"]["content"]
    text = (ended.folder / "report.txt").read_text(encoding="utf-8")
    assert "made a better release: 'night-2024-03-09' follows 'first'" in text
    page = (ended.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3 and "held-out searches" in page
    names = [check["name"] for check in ended.about["verdict"]["checks"]]
    assert {"volume", "robots", "prices", "quality", "relevance", "latency", "size"} <= set(names)
    assert not list((ended.folder / "work").glob("snapshot-*"))
    uri = f"sqlite:///{shop.releases / 'mlflow.db'}"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, uri)
    model = client.get_registered_model("onesearch")
    assert set(model.aliases) == {"champion", "challenger"}
    run = client.get_run(client.get_model_version_by_alias("onesearch", "champion").run_id)
    assert run.data.tags["onesearch.promoted"] == "true" and "gate/quality" in run.data.metrics


def test_the_held_out_day_is_not_learnt_from_but_the_late_labels_before_it_are(shop) -> None:
    from onesearch_streaming.nightly.window import Window, learnt_from

    shop.append(8)
    settings = shop.toy.config(LOOSE).others["nightly"]
    window = Window.of(NINTH, settings)
    assert window.held_out.date() == NINTH and (window.held_out - window.start).days == 6
    asked = pl.read_delta(str(shop.log)).drop("day")
    late = asked.filter(pl.col("action") == "click").head(1)
    before = late.with_columns(
        pl.lit("impression").alias("action"), ts=pl.lit(window.held_out) - timedelta(hours=1),
        request_id=pl.lit("x"), event_id=pl.lit("e1"),
    )  # fmt: skip
    click = late.with_columns(
        ts=pl.lit(window.held_out) + timedelta(hours=1), request_id=pl.lit("x"), event_id=pl.lit("e2")
    )
    too_late = click.with_columns(ts=pl.lit(window.held_out) + timedelta(hours=30), event_id=pl.lit("e3"))
    events = pl.concat([asked, before, click, too_late], how="vertical_relaxed").lazy()
    learnt = learnt_from(events, window, timedelta(hours=24)).collect()
    assert sorted(learnt["event_id"]) == ["e1", "e2"]


def test_a_bad_day_is_refused_before_anything_is_learnt_and_left_out_later(shop) -> None:
    shop.append(8, searches=30)
    ended = night(shop)
    assert not ended.promoted and ended.about["challenger"] is None
    assert [reason.split(":")[0] for reason in ended.about["verdict"]["reasons"]] == ["volume"]
    assert "learnt nothing" in (ended.folder / "report.txt").read_text(encoding="utf-8")
    assert Registry(shop.releases).champion() == "first"
    shop.append(9)
    after = night(shop, NINTH + timedelta(days=1))
    assert after.promoted
    assert after.about["data"]["skipped"] == ["2024-03-09"]


def test_a_worse_challenger_is_refused(shop) -> None:
    shop.append(8)
    strict = LOOSE.replace("least_searches = 10", "least_searches = 10\nsize_ratio = 0.5")
    ended = night(shop, extra=strict)
    assert not ended.promoted and ended.about["challenger"]["name"] == "night-2024-03-09"
    assert [reason.split(":")[0] for reason in ended.about["verdict"]["reasons"]] == ["size"]
    assert Registry(shop.releases).champion() == "first"
    assert "was refused. 'first' stays" in (ended.folder / "report.txt").read_text(encoding="utf-8")


def test_the_best_release_so_far_stays_the_anchor(shop) -> None:
    """It is measured beside the champion, and pruning keeps it."""
    registry = Registry(shop.releases)
    days = [NINTH + timedelta(days=number) for number in range(3)]
    for number, day in enumerate(days):
        shop.append(8 + number)
        # Better beyond doubt it cannot be: toy parts order by chance.
        ended = night(shop, day)
        assert ended.promoted and registry.anchor(f"night-{day}") == "first"
        names = [check["name"] for check in ended.about["verdict"]["checks"]]
        assert ("lasting quality" in names) == ("lasting relevance" in names) == (number > 0)
    text = (ended.folder / "report.txt").read_text(encoding="utf-8")
    assert "anchor 'first': the best release so far" in text and "lasting quality" in text
    assert ended.about["measured"]["measured"]["anchored"]["name"] == "first"
    assert prune(registry, keep=0).kept == {
        "first": "anchor", "night-2024-03-10": "previous champion", "night-2024-03-11": "champion"
    }  # fmt: skip
    # Who goes back to a release goes back to its anchor; a release that no night passed is its own.
    assert registry.rollback().name == "night-2024-03-10"
    assert registry.anchor("night-2024-03-10") == registry.anchor("first") == "first"


def test_a_missed_night_is_made_up(shop) -> None:
    for number in (8, 9, 10):
        shop.append(number)
    ended = night(shop, NINTH + timedelta(days=2))
    assert ended.promoted and ended.about["data"]["days"] == 7
    fewer = ended.about["data"]["events"]
    assert fewer == sum(one["events"] for one in ended.about["data"]["table"] if one["day"] >= "2024-03-05")


def test_a_night_is_done_once(shop) -> None:
    shop.append(8)
    first = night(shop)
    shop.append(8, seed=3)
    again = night(shop)
    assert again.resumed and again.about == first.about
    with pytest.raises(UsageError, match="was done with other settings"):
        night(shop, extra=LOOSE.replace("window_days = 6", "window_days = 5"))


def test_without_a_champion_or_a_log(shop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no Delta log"):
        night(shop)
    shop.append(8)
    with pytest.raises(UsageError, match="no champion"):
        run_night(shop.store, shop.log, tmp_path / "none", shop.toy.config(LOOSE), NINTH, SilentProgress())
    with pytest.raises(UsageError, match="nothing is logged on 2024-03-20"):
        night(shop, date(2024, 3, 20))


def test_a_store_that_changes_under_a_night_is_noticed(shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.append(8)
    monkeypatch.setattr("onesearch_streaming.nightly.night.write_night_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        night(shop)
    monkeypatch.undo()
    shop.write_store(shop.items.head(200))
    with pytest.raises(OneSearchError, match="changed since the night"):
        night(shop)


def changed_catalogue(shop) -> Path:
    """Of 240 items two go, one is put anew, one costs something else, and two are new."""
    folder = shop.folder / "live"
    ids = shop.items["item_id"].to_list()
    ChangeLog(folder).append(
        [
            Change(ids[0], "withdraw"),
            Change(ids[5], "withdraw"),
            Change(ids[7], "patch", price=3.5, in_stock=False),
            Change("new-1", title="red lamp of tomorrow", category=("home",), price=12.0),
            Change("new-2", title="blue lamp of tomorrow", category=("home",), price=13.0),
            Change(ids[9], title="red lamp, another one", category=("home",), price=14.0),
        ]
    )
    return folder


def test_a_night_learns_from_the_catalogue_as_it_is(shop) -> None:
    shop.append(8)
    live, ids = changed_catalogue(shop), shop.items["item_id"].to_list()
    ended = night(shop, catalogue=live)
    assert ended.promoted, ended.about["verdict"]["reasons"]
    assert ended.about["pinned"]["catalogue"]["items"] == 6
    told = (ended.folder / "report.txt").read_text(encoding="utf-8")
    assert "what the live one was told of 6 items (up to its batch 1)" in told
    items = Release.open(shop.releases / "night-2024-03-09", plugins=shop.toy.plugins).index.items
    assert set(items["item_id"]) == {*ids, "new-1", "new-2"} - {ids[0], ids[5]}
    row = dict(zip(items["item_id"], items.to_dicts(), strict=True))
    assert (row[ids[7]]["price"], row[ids[7]]["in_stock"]) == (3.5, False)
    assert (row[ids[9]]["title"], row["new-2"]["price"]) == ("red lamp, another one", 13.0)
    # What broke on the way to the live catalogue is seen as well.
    ChangeLog(live).append([Change(one, "patch", price=0.0) for one in ids[20:40]])
    shop.append(9)
    seen = look(shop.store, shop.log, shop.releases, shop.toy.config(LOOSE), NINTH + timedelta(days=1), live)
    assert [reason.split(":")[0] for reason in seen["reasons"]] == ["prices"]
    with pytest.raises(UsageError, match="no live catalogue"):
        look(
            shop.store,
            shop.log,
            shop.releases,
            shop.toy.config(LOOSE),
            NINTH + timedelta(days=1),
            shop.folder / "none",
        )


def test_a_night_that_goes_on_sees_the_moment_that_it_pinned(shop, monkeypatch) -> None:
    """Whatever was logged, changed, put together and vacuumed since."""
    shop.append(8)
    live, twin = changed_catalogue(shop), shop.folder / "twin"
    shutil.copytree(shop.releases, twin)
    whole = night(shop, releases=twin, catalogue=live)
    assert pins(shop.log) == {}
    with monkeypatch.context() as stopped:
        stopped.setattr("onesearch_streaming.nightly.night.write_night_store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(shop, catalogue=live)
    [version] = pins(shop.log).values()
    shop.append(8, searches=40, seed=7)
    ids = shop.items["item_id"].to_list()
    ChangeLog(live).append([Change(ids[1], "withdraw"), Change("new-1", "patch", price=1.0)])
    log = DeltaLog(shop.log)
    assert log.compact(128)["removed"] and len(log.vacuum(0)) == 1  # what came in between
    assert all(Path(one).exists() for one in files(shop.log, version))
    ended = night(shop, catalogue=live)
    assert ended.about["pinned"] == whole.about["pinned"] | {"version": version}
    assert ended.about["challenger"]["content"] == whole.about["challenger"]["content"]
    # Nothing holds it any more.
    assert pins(shop.log) == {} and log.vacuum(0)


def test_a_night_that_was_given_up_holds_nothing_for_ever(shop, monkeypatch) -> None:
    shop.append(8)
    with monkeypatch.context() as stopped:
        stopped.setattr("onesearch_streaming.nightly.night.write_night_store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            night(shop)
    pin(shop.log, "somebody-else", 0)
    assert len(pins(shop.log)) == 2
    shop.append(9)
    assert night(shop, NINTH + timedelta(days=1)).promoted
    assert pins(shop.log) == {"somebody-else": 0}
    with pytest.raises(UsageError, match="nothing is logged"):
        night(shop, NINTH + timedelta(days=9))
    assert pins(shop.log) == {"somebody-else": 0}


def interrupted(*given: object) -> None:
    raise KeyboardInterrupt


def test_a_dry_run_writes_nothing(shop) -> None:
    shop.append(8)
    before = sorted(path for path in shop.folder.rglob("*") if "_delta_log" not in path.parts)
    seen = look(shop.store, shop.log, shop.releases, shop.toy.config(LOOSE), NINTH)
    assert seen["reasons"] == [] and seen["would"].startswith("would learn from 2024-03-03 to 2024-03-09")
    assert sorted(path for path in shop.folder.rglob("*") if "_delta_log" not in path.parts) == before


def test_stopped_at_any_step_it_goes_on_and_ends_in_the_same_release(shop, monkeypatch) -> None:
    """Stopped before and after each step's record is written, again and again, until nothing is left to
    do."""
    from onesearch.training.ledger import Ledger

    shop.append(8)
    twin = shop.folder / "twin"
    shutil.copytree(shop.releases, twin)
    config = shop.toy.config(LOOSE)
    whole = run_night(shop.store, shop.log, twin, config, NINTH, SilentProgress())
    finish = Ledger.finish
    met: dict[str, int] = {}

    def stopping(ledger, stage, record) -> None:
        """Each step is stopped before its record, when it comes again after it, and then no more."""
        met[stage] = met.get(stage, 0) + 1
        if met[stage] == 1:
            raise KeyboardInterrupt
        finish(ledger, stage, record)
        if met[stage] == 2:
            raise KeyboardInterrupt

    stops = 0
    monkeypatch.setattr(Ledger, "finish", stopping)
    for _ in range(100):
        try:
            ended = night(shop)
            break
        except KeyboardInterrupt:
            stops += 1
    assert {"pin", "checks", "snapshot", "train", "reward", "measure", "promote", "report"} <= set(met)
    assert stops >= 2 * len(met) - 1
    assert ended.about["challenger"]["content"] == whole.about["challenger"]["content"]
    assert Registry(shop.releases).champion() == "night-2024-03-09"
    assert _files(twin) == _files(shop.releases)


def test_killed_without_warning_it_ends_in_the_same_release(shop) -> None:
    """By the command line, in processes of their own."""
    shop.append(8)
    config = shop.folder / "night.toml"
    config.write_text(f"{LOOSE}[tracking]\nenabled = false\n", encoding="utf-8")
    killed = killed_nights(shop.store, shop.log, shop.releases, shop.folder / "work", NINTH, config, kills=3,
                           seed=4, environment=shop.toy.environment(), progress=SilentProgress())  # fmt: skip
    assert killed["kills"] == 3 and killed["nights"] >= 1
    assert killed["same_release"] and killed["same_verdict"]
    assert _files(shop.folder / "work" / "undisturbed") == _files(shop.folder / "work" / "killed-0")


def _files(releases: Path) -> list[Path]:
    folder = releases / "night-2024-03-09"
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))
