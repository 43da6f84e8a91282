"""Shoppers in the serving path: written by another process, seen by the next search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.serving.client import Client
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.state import Recent, Ring, ShopperState, item_key

pytestmark = pytest.mark.e2e


def clicked(user_id: str, *clicks: tuple[str, str]) -> ShopperState:
    """A shopper who clicked on items for queries, one a second."""
    keys = np.array([item_key(item_id) for _, item_id in clicks], np.uint64)
    ring = Ring(keys, np.arange(len(keys), dtype=np.uint32), np.zeros(len(keys), np.uint8))
    recent = [Recent(query, item_key(item_id), at) for at, (query, item_id) in enumerate(clicks)]
    return ShopperState(user_id, ring, recent=tuple(recent), counts=(9, len(clicks), 0))


def shopper(client: Client, user_id: str) -> Any:
    answer = client.search("oak lamp", user_id=user_id, explain=True)
    assert not answer.degraded and answer.explanation is not None
    return answer.explanation.shopper


def test_clicks_change_the_next_search_and_what_it_tells(served: Any, toy: Any) -> None:
    pipeline = Pipeline.of_release(toy.fast)
    titles = pipeline.context.index.items["title"]
    with Client(served.address) as client:
        before = client.status()
        plain = client.search("oak lamp", explain=True)
        cold = shopper(client, "eve")
        assert cold.recent == () and len(cold.stand_ins) == 3 and cold.stand_ins[0].title
        for clicks in ((("desk", "i7"),), (("desk", "i7"), ("", "i12"), ("no longer sold", "i99999"))):
            state = clicked("eve", *clicks)
            toy.put(state)
            answer = client.search("oak lamp", user_id="eve", explain=True)
            expected = pipeline.search(SearchRequest("oak lamp", user_id="eve", explain=True), state)
            assert answer.explanation is not None and expected.explanation is not None
            told = answer.explanation.shopper
            assert told == expected.explanation.shopper and told is not None and told.stand_ins == ()
            assert [(one.query, one.item_id) for one in told.recent] == [
                (query, "" if item_id == "i99999" else item_id) for query, item_id in clicks
            ]
            assert told.recent[0].title == titles[7] and told.interests
            # What the vectors before the prompt say reaches the beams.
            assert [hit.item_id for hit in answer.hits] == [hit.item_id for hit in expected.hits]
            assert answer.explanation.beams != plain.explanation.beams  # type: ignore[union-attr]
        assert client.search("oak lamp", explain=True).explanation == plain.explanation
        after = client.status()
        assert after.states_asked - before.states_asked == 3
        assert after.states_known - before.states_known == 2
        assert after.states_failed == before.states_failed


def test_many_shoppers_at_once_get_their_own_answers(served: Any, toy: Any) -> None:
    pipeline = Pipeline.of_release(toy.fast)
    states = [clicked(f"many{at}", *[("q", f"i{at * 7 + click}") for click in range(at)]) for at in range(9)]
    for state in states[1:]:
        toy.put(state)
    requests = [SearchRequest("white lamp", state.user_id, k=5, explain=True) for state in states]
    expected = [pipeline.search(request, state) for request, state in zip(requests, states, strict=True)]
    assert len({tuple(hit.item_id for hit in answer.hits) for answer in expected}) > 3
    with Client(served.address) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.search, requests * 8))
    for answer, wanted in zip(answers, expected * 8, strict=True):
        assert not answer.degraded and answer.explanation is not None and wanted.explanation is not None
        assert answer.explanation.shopper == wanted.explanation.shopper
        assert [hit.item_id for hit in answer.hits] == [hit.item_id for hit in wanted.hits]


def test_the_command_line_shows_the_three_views(served: Any, toy: Any) -> None:
    toy.put(clicked("ann", ("oak desk", "i7"), ("", "i12")))
    options = ("--gateway", served.address, "--explain", "--user")
    shown = toy.run("search", "lamp", *options, "ann").stdout
    for words in ("shopper", "ann", "who", "recent", "oak desk", "→", "long term", "━", "%"):
        assert words in shown, words
    told = json.loads(toy.run("search", "lamp", *options, "ann", "--json").stdout)["explanation"]["shopper"]
    assert [row["item_id"] for row in told["recent"]] == ["i7", "i12"] and told["recent"][0]["title"]
    assert sum(one["weight"] for one in told["interests"]) == pytest.approx(1.0)
    shown = toy.run("search", "lamp", *options, "nobody").stdout
    assert "nothing is known" in shown and "most clicked for the query" in shown


def test_a_broken_entry_or_a_store_that_is_gone_costs_no_search(served: Any, toy: Any) -> None:
    """Searches go on as for unknown shoppers, and the status says so; what comes back is used again."""
    folder = Path(toy.states.removeprefix("lmdb:"))
    breaking = (
        "import lmdb, sys\n"
        "with lmdb.open(sys.argv[1]).begin(write=True) as transaction:\n"
        "    assert transaction.get(b'sbob')\n"
        "    transaction.put(b'sbob', bytes([1, 3, 255, 255]) + b'broken')\n"
    )
    toy.put(clicked("bob", ("desk", "i7")))
    toy.put(clicked("ann", ("desk", "i7")))
    with Client(served.address) as client:
        plain = client.search("oak lamp").hits
        assert shopper(client, "bob").recent
        failed = client.status().states_failed
        subprocess.run([sys.executable, "-c", breaking, folder], check=True)
        assert shopper(client, "bob").recent == () and client.search("oak lamp", user_id="bob").hits == plain
        assert shopper(client, "ann").recent and client.status().states_failed == failed + 2
        shutil.rmtree(folder)
        assert shopper(client, "ann").recent == () and client.search("oak lamp", user_id="ann").hits == plain
        status = client.status()
        assert status.states_failed == failed + 4 and status.degraded == 0 and status.models_ready
        toy.put(clicked("ann", ("lamp", "i12")))
        assert [row.item_id for row in shopper(client, "ann").recent] == ["i12"]
        assert client.status().states_failed == failed + 4


def test_a_store_that_is_not_there_is_told_at_the_start(toy: Any, tmp_path: Path) -> None:
    ended = toy.run("serve", "--release", str(toy.fast.path), "--states", f"lmdb:{tmp_path}/nothing")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "no shoppers' states at" in ended.stderr.replace("\n", " ")


def test_the_benchmark_takes_shoppers_in_turn(toy: Any) -> None:
    with open_states(toy.states) as store:
        store.put_many(clicked(f"turn{at}", ("desk", f"i{at}")) for at in range(5))
    ended = toy.run(
        "bench",
        "serve",
        "--release",
        str(toy.fast.path),
        "--states",
        toy.states,
        "--seconds",
        "1",
        "--json",
    )
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["shoppers"] >= 5 and answer["states_failed"] == answer["degraded"] == 0
    assert [row["clients"] for row in answer["rows"]] == [1, 2, 4, 8, 16]
    assert answer["overload"]["failed"] == 0 and answer["overload"]["normal_after_s"] is not None
    shares = answer["shares_ms"]
    assert list(shares) == [
        "gateway", "states", "triton", "tokenizer", "user_encoder", "generator", "reward", "resolver",
    ]  # fmt: skip
    assert all(share["compute"] > 0 for name, share in shares.items() if name != "triton")
    assert shares["states"]["compute"] < 5
