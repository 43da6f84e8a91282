"""Searches of shoppers who are known: with the toy whose beams lean towards what was clicked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from onesearch.cli.main import main
from onesearch.data.schemas import schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import DataError
from onesearch.evaluation.asked import Asked, asked_by, states_of_store
from onesearch.evaluation.evaluating import Evaluation, evaluate
from onesearch.evaluation.metrics import metric_names
from onesearch.evaluation.query_files import read_searches
from onesearch.evaluation.searches import ALWAYS
from onesearch.evaluation.systems import OWN, UNPERSONALISED
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.opening import open_states

DAY = datetime(2024, 5, 1, tzinfo=UTC)
IDS = ["10", "11", "12"]


@pytest.fixture(scope="module")
def personal(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("personal")
    with toy.installed(folder / "site") as plugins:
        yield toy.write(folder / "releases", plugins, serving="beams = 400", prefix=(2, 16))


@pytest.fixture(scope="module")
def clicked(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Each of five shoppers clicked one item again and again, on the second day another one."""
    items = toy.items().with_columns(
        attributes=pl.lit([], dtype=schema("items")["attributes"]),
        **{name: pl.lit(None, pl.String) for name in ("detail_text", "ocr_text", "image_uri")},
    )
    rows = [
        {
            "event_id": f"{day}-{user}-{at}",
            "ts": DAY + timedelta(days=day, hours=at),
            "user_id": f"u{user}",
            "scene": "search",
            "query": "something",
            "item_id": f"i{17 * user + day}",
            "action": "click",
        }
        for day in range(2)
        for user in range(5)
        for at in range(4)
    ]
    path = tmp_path_factory.mktemp("stores") / "clicked"
    with StoreWriter(path, "toy") as writer:
        writer.write("items", items.select(*schema("items")))
        writer.write("interactions", pl.DataFrame(rows))
    return Store.open(path)


@pytest.fixture(scope="module")
def own_items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shoppers look for what they clicked on the first day; u9 is new, and somebody gives no name."""
    rows = [("u0", 0), ("u1", 17), ("u1", 17), ("u2", 34), ("u9", 0), ("u9", 17), (None, 34)]
    frame = pl.DataFrame(
        {
            "query": ["something"] * len(rows),
            "user_id": [user for user, _ in rows],
            "article_id": [f"i{item}" for _, item in rows],
        }
    )
    path = tmp_path_factory.mktemp("searches") / "own.parquet"
    frame.write_parquet(path)
    return path


def run(release: Release, queries: Path, store: Store | None, states: str | None = None) -> Evaluation:
    path = None if store is None else store.path
    return evaluate(release, queries, "hm", (), path, None, 0, SilentProgress(), states=states)


def test_searches_are_made_with_what_is_known_of_their_shoppers(
    personal: Release, clicked: Store, own_items: Path
) -> None:
    found = run(personal, own_items, clicked)
    assert found.searches == 7 and found.different == 1 and found.states == str(clicked.path)
    assert len(found.runs["onesearch"].ranked) == 5, "u0, u1, u2, u9 and nobody: u1 and u9 ask once"
    assert len(found.runs[UNPERSONALISED].ranked) == 1
    pipeline, log = Pipeline.of_release(personal), EventLog.of_store(clicked)
    ids = personal.index.items["item_id"].to_list()
    for row, user in enumerate(("u0", "u1", "u2")):
        hits = pipeline.search(SearchRequest("something", k=50), log.state_before(user, ALWAYS)).hits
        assert [ids[n] for n in found.runs["onesearch"].ranked[row, :50]] == [hit.item_id for hit in hits]
    strangers = [hit.item_id for hit in pipeline.search(SearchRequest("something", k=50)).hits]
    assert [ids[n] for n in found.runs[UNPERSONALISED].ranked[0, :50]] == strangers
    assert [ids[n] for n in found.runs["onesearch"].ranked[3, :50]] == strangers, "of u9 nothing is known"


def test_json_has_the_searches_of_known_shoppers_on_their_own(
    personal: Release, clicked: Store, own_items: Path
) -> None:
    answer = run(personal, own_items, clicked).as_json()
    json.dumps(answer, allow_nan=False)
    assert list(answer["systems"]) == [*OWN, UNPERSONALISED]
    history = answer["history"]
    assert history["searches"] == 4 and list(history["systems"]) == list(answer["systems"])
    for system in history["systems"].values():
        for metric in metric_names():
            assert system[f"{metric}_low"] <= system[metric] <= system[f"{metric}_high"]
    gained = history["paired"]["onesearch - unpersonalised"]
    systems = history["systems"]
    for metric in metric_names():
        difference = systems["onesearch"][metric] - systems[UNPERSONALISED][metric]
        assert gained[metric] == pytest.approx(difference, abs=2e-5)
    assert gained["MRR@100"] > 0, "they find again what they clicked"
    # Who is not known is searched for as a stranger, so all that is gained is gained by those who are.
    whole = answer["paired"]["onesearch - unpersonalised"]
    assert whole["MRR@100"] * 7 == pytest.approx(gained["MRR@100"] * 4, abs=2e-4)


def test_a_search_of_a_day_knows_what_came_before_that_day(
    personal: Release, clicked: Store, own_items: Path, tmp_path: Path
) -> None:
    frame = pl.read_parquet(own_items)
    for day, known in (("2024-05-01", 0), ("2024-05-02", 4), ("2024-05-03", 4)):
        frame.with_columns(day=pl.lit(day)).write_parquet(tmp_path / "day.parquet")
        found = run(personal, tmp_path / "day.parquet", clicked)
        assert found.history.searches == known
        assert (UNPERSONALISED in found.runs) == (known > 0)
        if not known:
            assert found.as_json()["history"] == {"searches": 0, "systems": {}, "paired": {}}
    asked = asked_by(read_searches(tmp_path / "day.parquet", "hm", IDS), states_of_store(clicked))
    assert [len(state.clicks) for state in asked.states] == [8, 8, 8, 0, 0]


def test_states_of_a_store_rule_over_the_log(
    personal: Release, clicked: Store, own_items: Path, tmp_path: Path
) -> None:
    with open_states(f"lmdb:{tmp_path / 'states'}") as states:
        states.put_many([EventLog.of_store(clicked).state_before("u2", ALWAYS)])
    found = run(personal, own_items, None, f"lmdb:{tmp_path / 'states'}")
    assert found.history.searches == 1 and found.states is not None and "states" in found.states
    assert not found.notes


def test_without_a_store_everybody_is_a_stranger_and_that_is_told(personal: Release, own_items: Path) -> None:
    found = run(personal, own_items, None)
    assert found.states is None and found.history.searches == 0 and UNPERSONALISED not in found.runs
    assert "as strangers" in found.notes[0] and "--states" in found.notes[0]


def test_the_line_about_shoppers_with_history(
    personal: Release,
    clicked: Store,
    own_items: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onesearch.releases.release.load_plugins", lambda: personal.plugins)
    with pytest.raises(SystemExit) as ended:
        main([
            "evaluate", "--release", str(personal.path), "--queries", str(own_items), "--format", "hm",
            "--store", str(clicked.path), "--against", "", "--reports", str(tmp_path),
        ])  # fmt: skip
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "4 of 7 searches are of shoppers with history: HR@10" in shown
    assert "unpersonalised" in shown and "onesearch − unpersonalised" in shown


def test_times_of_searches_are_read(tmp_path: Path) -> None:
    columns = {"query": ["a", "a", "a"], "item_id": ["10", "11", "12"], "user_id": ["u", "u", "u"]}
    file = tmp_path / "q.parquet"
    pl.DataFrame({**columns, "ts": [DAY, DAY, None]}).write_parquet(file)
    found = read_searches(file, "parquet", IDS)
    assert found.moments.tolist() == [int(DAY.timestamp()), ALWAYS]
    assert [truth.items.tolist() for truth in found.relevant] == [[0, 1], [2]]
    pl.DataFrame({**columns, "ts": ["2024-05-01", "soon", None]}).write_parquet(file)
    with pytest.raises(DataError, match="row 2, column 'ts': 'soon' is no time"):
        read_searches(file, "parquet", IDS)
    pl.DataFrame({**columns, "ts": [[1], [2], [3]]}).write_parquet(file)
    with pytest.raises(DataError, match="column 'ts' has no times"):
        read_searches(file, "parquet", IDS)
    renamed = {"query": ["a"], "article_id": ["10"], "user_id": ["u"], "day": ["2024-13-01"]}
    pl.DataFrame(renamed).write_parquet(file)
    with pytest.raises(DataError, match="row 1, column 'day'"):
        read_searches(file, "hm", IDS)


def test_nobody_is_asked_after_where_nobody_is_named(tmp_path: Path) -> None:
    file = tmp_path / "q.parquet"
    pl.DataFrame({"query": ["b", "a", "b"], "item_id": ["10", "11", "12"]}).write_parquet(file)

    def never(user_ids: object, moments: object) -> list[object]:
        raise AssertionError

    asked: Asked = asked_by(read_searches(file, "parquet", IDS), never)  # type: ignore[arg-type]
    assert asked.queries == asked.texts == ["b", "a"]
    assert asked.rows.tolist() == asked.text_rows.tolist() == [0, 1]
    assert not asked.known.any() and np.array_equal(asked.rows, asked.text_rows)
