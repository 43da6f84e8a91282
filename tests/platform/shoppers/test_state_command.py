"""``onesearch state``: what it prints, for people and as JSON, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.cli.main import main
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.state import ShopperState, item_key

from .test_log import row

ROWS = [
    row(0, 0, "ann", "impression", "a", query="Lamp"),
    row(1, 5, "ann", "click", "a", query="Lamp"),
    row(2, 9, "ann", "order", "a", query="Lamp"),
    row(3, 90, "ann", "impression", "b", query="rug"),
    row(4, 0, "bob", "click", "gone", scene="recommend"),
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A [lamp]", "A rug"], "in_stock": [True, True]})
    with StoreWriter(path, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", pl.DataFrame(ROWS))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command; returns exit status, standard output, standard error."""
    monkeypatch.setattr("onesearch.cli._output.out.width", 120)

    def called(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["state", *map(str, arguments)])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return called


def test_build_show_add(run: Any, store: Path, url: str) -> None:
    status, said, _ = run("build", "--store", store, "--states", url)
    assert (status, said.split(", in ")[0]) == (0, "2 shoppers of 5 interactions")
    log = EventLog.of_store(Store.open(store))
    with open_states(url) as states:
        assert states.get_many(["ann", "bob"]) == log.states_before(["ann", "bob"], np.full(2, 2**33))

    status, said, _ = run("show", "ann", "--states", url, "--store", store)
    assert status == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "impressions 2 – – –" in lines
    assert "orders 1 1 2024-05-20 00:00:09 2024-05-20 00:00:09" in lines
    assert lines[-3:] == [
        "2024-05-20 00:01:30 search rug only shown",
        "2024-05-20 00:00:09 search Lamp a A [lamp]",
        "2024-05-20 00:00:00 search Lamp only shown",
    ]
    assert "recommend" in run("show", "bob", "--states", url)[1]

    status, said, _ = run("add", "ann", "--states", url, "--action", "click", "--item", "b", "--query", "rug")
    assert (status, said.splitlines()[0].split(" in ")[0]) == (0, "click of b recorded")
    with open_states(url) as states:
        assert states.get("ann").counts == (2, 2, 1)

    assert run("build", "--store", store, "--states", url)[0] == 0
    with open_states(url) as states:
        assert states.get("ann") == log.state_before("ann", 2**33)


def test_json_is_one_object(run: Any, store: Path, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'states'}"
    built = json.loads(run("build", "--store", store, "--states", url, "--size-gb", 0.5, "--json")[1])
    assert (built["shoppers"], built["known"], built["simulated"], built["states"]) == (2, 2, False, url)
    shown = json.loads(run("show", "ann", "--states", url, "--store", store, "--json")[1])
    assert shown["counts"] == {"impressions": 2, "clicks": 1, "orders": 1}
    assert shown["clicks"] == {"kept": 1, "oldest": "2024-05-20 00:00:05", "newest": "2024-05-20 00:00:05"}
    assert shown["recent"][1] == {
        "time": "2024-05-20 00:00:09", "scene": "search", "query": "Lamp", "item": f"{item_key('a'):016x}",
        "item_id": "a", "title": "A [lamp]",
    }  # fmt: skip
    assert shown["recent"][2]["item"] is None
    added = json.loads(
        run("add", "new", "--states", url, "--action", "impression", "--query", "rug", "--json")[1]
    )
    assert (added["applied"], added["known"], added["recent"][0]["query"]) == (1, True, "rug")


def test_nobody(run: Any, tmp_path: Path) -> None:
    url = f"{tmp_path / 'states'}"
    open_states(url).close()
    assert run("show", "nobody", "--states", url)[:2] == (0, "nothing is known of shopper 'nobody'\n")
    shown = json.loads(run("show", "nobody", "--states", url, "--json")[1])
    assert (shown["known"], shown["recent"], shown["bytes"]) == (False, [], 0)


def test_what_a_stream_has_written_is_not_lost_unasked(run: Any, store: Path, url: str) -> None:
    with open_states(url) as states:
        states.update({}, {"events/0": 7})
    status, _, said = run("build", "--store", store, "--states", url)
    assert (status, "is written by a stream" in said) == (2, True)
    assert run("build", "--store", store, "--states", url, "--replace")[0] == 0
    with open_states(url) as states:
        assert (states.count, states.marks()) == (2, {"events/0": 7})


@pytest.mark.parametrize(
    ("arguments", "wanted", "said"),
    [
        (["show", "u", "--states", "{}/none"], 2, "no shoppers' states at"),
        (["show", "u", "--states", "postgres://host"], 2, "names no store of shoppers' states"),
        (["show", "u"], 2, "--states"),
        (["build", "--store", "{}/none", "--states", "{}/s"], 2, "is not a store"),
        (["add", "u", "--states", "{}/s", "--action", "click"], 2, "--item: which item was the click of?"),
        (["add", "u", "--states", "{}/s", "--action", "look"], 2, "'look' is not one of"),
        (["add", "", "--states", "{}/s", "--action", "impression"], 2, "an empty id names nobody"),
        (["add", "\udcff", "--states", "{}/s", "--action", "impression"], 2, "USER: is not UTF-8"),
        (["show", "u", "--states", "redis://127.0.0.1:1/0"], 1, "no Redis answers there"),
    ],
)
def test_bad_usage_is_told_in_words(
    run: Any, tmp_path: Path, arguments: list[str], wanted: int, said: str
) -> None:
    status, out, err = run(*(argument.format(tmp_path) for argument in arguments))
    assert (status, out) == (wanted, "")
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "s").exists()


def test_adding_is_said_to_be_for_trying(run: Any) -> None:
    assert "only the consumer of the event stream writes states" in " ".join(run("add", "--help")[1].split())


def test_an_event_that_was_there(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.5)
    given = ("add", "u", "--states", tmp_path / "s", "--action", "order", "--item", "a")
    assert "order of a recorded" in run(*given)[1]
    assert "order of a was there already" in run(*given)[1]
    with open_states(str(tmp_path / "s")) as states:
        assert states.get("u") != ShopperState("u")
        assert states.get("u").counts == (0, 0, 1)
