"""A catalogue that changes while it is searched, through gateway and Triton."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onesearch.catalogue.applying import Applier
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.index import Filters
from onesearch.serving.client import Client
from onesearch.serving.requests import SearchAnswer, SearchRequest

pytestmark = pytest.mark.e2e
LIMIT_S = 5.0


@pytest.fixture(scope="module")
def live(serve: Callable[..., Any], toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server over a live catalogue, and who changes it from another process' place."""
    folder = tmp_path_factory.mktemp("live")
    served = serve(toy.fast, f"--catalogue={folder}")
    yield served, folder, Applier(folder, toy.fast)
    assert served.end() == 0 and served.leftovers() == []


def _until(ask: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not ask():
        assert time.monotonic() - started < LIMIT_S, "not seen in time"
        time.sleep(0.02)
    return time.monotonic() - started


def _ids(client: Client, query: str, **fields: Any) -> list[str]:
    answer = client.search(query, **fields)
    assert not answer.degraded
    return [hit.item_id for hit in answer.hits]


def test_a_new_item_is_found_and_a_withdrawn_one_gone(live: Any, toy: Any) -> None:
    served, folder, _ = live
    changes = folder / "changes.jsonl"
    put = {"item_id": "e1", "title": "chartreuse velvet ottoman", "category": ["home", "ottoman"], "price": 9}
    with Client(served.address) as client:
        assert "e1" not in _ids(client, "chartreuse velvet ottoman")
        changes.write_text(json.dumps(put), encoding="utf-8")
        done = toy.run(
            "catalogue", "apply", str(changes), f"--catalogue={folder}", f"--release={toy.fast.path}"
        )
        assert done.returncode == 0, done.stderr
        _until(lambda: _ids(client, "chartreuse velvet ottoman")[0] == "e1")
        found = client.get_item("e1")
        assert found is not None and found.title == "chartreuse velvet ottoman"
        # Whatever the width: the filter prunes the search, not its result.
        assert _ids(client, "red lamp", beams=1, filters=Filters(category=("ottoman",))) == ["e1"]
        items = client.status().items
        changes.write_text('{"item_id": "e1", "action": "withdraw"}', encoding="utf-8")
        toy.run("catalogue", "apply", str(changes), f"--catalogue={folder}", f"--release={toy.fast.path}")
        _until(lambda: "e1" not in _ids(client, "chartreuse velvet ottoman"))
        assert client.status().items == items - 1
        assert _ids(client, "red lamp", filters=Filters(category=("ottoman",))) == []
        assert client.get_item("e1") is None


def test_no_request_fails_or_mixes_while_generations_change(live: Any) -> None:
    """Every answer is one that a single generation gives: the item has the price of that generation."""
    served, _, applier = live
    price_of: dict[int, float] = {}
    answers: list[SearchAnswer] = []
    stop = threading.Event()
    base = applier.accept([Change("e2", title="chartreuse velvet ottoman", price=0.0)]).generation
    price_of[base] = 0.0

    def ask() -> None:
        with Client(served.address) as client:
            while not stop.is_set():
                answers.append(client.search("chartreuse velvet ottoman", k=3))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    with Client(served.address) as client:
        _until(lambda: client.status().generation >= base)
        for thread in threads:
            thread.start()
        for price in range(1, 9):
            told = applier.accept(
                [
                    Change("e2", "patch", price=float(price)),
                    Change(f"e3 {price}", title=f"chartreuse ottoman {price}", price=1.0),
                    Change(f"i{price}", "withdraw"),
                ]
            )
            price_of[told.generation] = float(price)
            time.sleep(0.1)
        last = max(price_of)
        _until(lambda: client.status().generation == last)
        _until(lambda: bool(answers) and answers[-1].generation == last)
    stop.set()
    for thread in threads:
        thread.join()
    assert not any(answer.degraded for answer in answers)
    assert len({answer.generation for answer in answers}) > 2
    for answer in answers:
        [hit] = [hit for hit in answer.hits if hit.item_id == "e2"]
        assert hit.price == price_of[answer.generation]


def test_what_anyone_writes_to_the_log_is_searchable(live: Any) -> None:
    """As the consumer of the topic does, who makes no generations."""
    served, folder, _ = live
    with Client(served.address) as client:
        ChangeLog(folder).append([Change("e6", title="chartreuse velvet ottoman", price=6.0)], {"topic:0": 1})
        took = _until(lambda: "e6" in _ids(client, "chartreuse velvet ottoman"))
        assert took < LIMIT_S


def test_pages_stay_with_their_generation_while_it_is_kept(live: Any) -> None:
    served, _, applier = live
    request = SearchRequest("lamp", k=5, beams=256)
    with Client(served.address) as client:
        first = client.search(request)
        whole = [hit.item_id for hit in client.search(SearchRequest("lamp", k=15, beams=256)).hits]
        gone = whole[7]
        told = applier.accept([Change(gone, "withdraw")])
        _until(lambda: client.status().generation == told.generation)
        second = client.search(SearchRequest("lamp", k=5, beams=256, page_token=first.next_page))
        assert (second.generation, second.moved) == (first.generation, False)
        assert [hit.item_id for hit in (*first.hits, *second.hits)] == whole[:10]
        assert [hit.rank for hit in second.hits] == [6, 7, 8, 9, 10]
        for price in (1.0, 2.0, 3.0):
            told = applier.accept([Change("i20", "patch", price=price)])
            _until(lambda: client.status().generation == told.generation)  # noqa: B023
        moved = client.search(SearchRequest("lamp", k=5, beams=256, page_token=first.next_page))
        assert (moved.generation, moved.moved, moved.degraded) == (told.generation, True, False)
        ids = [hit.item_id for hit in moved.hits]
        assert ids == [item for item in whole[5:15] if item != gone][:5]


def test_after_a_crash_of_triton_the_generation_is_the_same(live: Any) -> None:
    served, _, applier = live
    told = applier.accept([Change("e4", title="chartreuse velvet mirror", price=1.0)])
    with Client(served.address) as client:
        _until(lambda: _ids(client, "chartreuse velvet mirror")[0] == "e4")
        os.kill(served.about["triton_pid"], signal.SIGKILL)
        time.sleep(0.5)
        until = time.monotonic() + 60
        while (answer := client.search("chartreuse velvet mirror")).degraded:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert (answer.generation, answer.hits[0].item_id) == (told.generation, "e4")


def test_a_server_that_starts_later_hears_of_every_change(
    serve: Callable[..., Any], toy: Any, tmp_path: Path
) -> None:
    """Of changes that nobody has made a generation of, too."""
    applier = Applier(tmp_path, toy.fast)
    applier.log.append([Change("e5", title="chartreuse velvet desk", price=1.0)])
    served = serve(toy.fast, f"--catalogue={tmp_path}")
    assert served.about["generation"] == 8 and served.about["items"] == 401
    with Client(served.address) as client:
        assert "e5" in _ids(client, "chartreuse velvet desk", k=100, beams=400)
    assert served.end() == 0
