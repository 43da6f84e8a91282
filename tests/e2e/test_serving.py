"""Search through gateway and Triton, as a shop would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving.client import Client, GatewayError
from onesearch.serving.inference import Inference
from onesearch.serving.pipeline import Pipeline, SearchRequest

pytestmark = pytest.mark.e2e

SEARCHES = [
    *(SearchRequest(query, k=7) for query in ("red lamp", "oak desk", "wool rug", "steel shelf", "台灯")),
    *(SearchRequest(query, k=3, explain=True) for query in ("glass mirror", "white sofa", "红色 table")),
    *(SearchRequest("black chair", k=4, offset=offset) for offset in (0, 4, 8)),
    *(SearchRequest("lamp", k=20, beams=beams) for beams in (1, 8, 128)),
    SearchRequest("desk", k=10, rerank=False),
    SearchRequest("desk", k=3, beams=64, certify=3, explain=True),
    SearchRequest("a rug", k=30, filters=Filters(category=("rug", "sofa"), max_price=80.0, in_stock=True)),
    SearchRequest("a lamp", k=5, filters=Filters(brands=("brand1",)), explain=True),
    SearchRequest("a lamp", k=5, filters=Filters(brands=("nobody",)), explain=True),
    SearchRequest("words that no item has", user_id="nobody we know"),
    SearchRequest("q" * 4096, k=1000),
]


def test_served_is_what_the_pipeline_finds(served: Any, toy: Any) -> None:
    assert len(SEARCHES) == 21
    pipeline = Pipeline.of_release(toy.fast)
    with Client(served.address) as client:
        alone = [client.search(request) for request in SEARCHES]
        together = client.batch_search(SEARCHES)
    for request, one, other in zip(SEARCHES, alone, together, strict=True):
        expected = pipeline.search(request)
        for answer in (one, other):
            assert not answer.degraded and (answer.release, answer.generation) == ("fast", 7)
            assert [hit.item_id for hit in answer.hits] == [hit.item_id for hit in expected.hits]
            assert [hit.rank for hit in answer.hits] == [hit.rank for hit in expected.hits]
            for hit, same in zip(answer.hits, expected.hits, strict=True):
                assert (hit.title, hit.category, hit.brand, hit.price, hit.in_stock, hit.sid) == (
                    same.title, same.category, same.brand, same.price, same.in_stock, same.sid,
                )  # fmt: skip
                assert hit.parts == pytest.approx(same.parts, abs=1e-4)
            if request.explain:
                told, same_told = answer.explanation, expected.explanation
                assert told is not None and same_told is not None
                assert (told.keywords, told.query_sid, told.meanings) == (
                    same_told.keywords, same_told.query_sid, same_told.meanings,
                )  # fmt: skip
                assert [sid for sid, _ in told.beams] == [sid for sid, _ in same_told.beams]
                assert (told.branches, told.exact, told.found, told.width) == (
                    same_told.branches, same_told.exact, same_told.found, same_told.width,
                )  # fmt: skip


def test_many_clients_at_once_get_their_own_answers(served: Any, toy: Any) -> None:
    pipeline = Pipeline.of_release(toy.fast)
    queries = [
        f"{colour} {thing}" for colour in ("red", "blue", "white") for thing in ("lamp", "rug", "desk")
    ]
    expected = {
        query: [hit.item_id for hit in pipeline.search(SearchRequest(query)).hits] for query in queries
    }
    with Client(served.address) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.search, queries * 12))
    for query, answer in zip(queries * 12, answers, strict=True):
        assert not answer.degraded and [hit.item_id for hit in answer.hits] == expected[query]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": ""}, "query: empty"),
        ({"query": "x" * 100_000}, "longer than"),
        ({"query": "a\x00b"}, "control character"),
        ({"query": "q", "k": 0}, "k: 0"),
        ({"query": "q", "k": 10_000}, "k: 10000"),
        ({"query": "q", "beams": 13}, "beams: 13 brings bad luck"),  # said by the generator, inside Triton
    ],
)
def test_bad_input_is_told_by_name(served: Any, fields: dict[str, Any], said: str) -> None:
    with Client(served.address) as client, pytest.raises(UsageError, match=said):
        client.search(**fields)


async def test_wrong_tensors_are_refused_by_triton_itself(served: Any) -> None:
    """Whoever calls the models directly gets a clear status, and the models live on."""
    triton = Inference(served.about["triton_http"])
    text = np.array([[b"lamp"]], dtype=object)
    for inputs in (
        {"QUERY": text},
        {"QUERY": np.array([[1]], np.int32), "EXPLAIN": np.array([[True]])},
        {"QUERY": np.array([[b"a", b"b"]], dtype=object), "EXPLAIN": np.array([[True]])},
        {"QUERY": np.array([[b"\xff"]], dtype=object), "EXPLAIN": np.array([[True]])},
    ):
        with pytest.raises(UsageError):
            await triton.infer("fast--tokenizer", inputs, (), 5)
    await triton.close()
    with Client(served.address) as client:
        assert not client.search("lamp").degraded


def test_items_encoding_status_and_metrics(served: Any) -> None:
    with Client(served.address) as client:
        found = client.get_item("i3")
        assert found is not None and found.item_id == "i3" and client.get_item("i99999") is None
        encoded = client.encode(["red lamp", "灯"], vectors=True)
        assert [word.text for word in encoded[0].keywords] == ["red", "lamp"] and len(encoded[1].sid) == 3
        status = client.status()
        assert status.models_ready and status.items == 400 and status.default_beams == 32
    with urllib.request.urlopen(served.about["metrics"], timeout=5) as page:
        assert "nv_inference_request_success" in page.read().decode()


def test_only_the_loopback_is_listened_on(served: Any) -> None:
    for about in ("gateway", "triton"):
        assert served.about[about].startswith("127.0.0.1:")
    links = []
    for pid in (served.about["pid"], served.about["triton_pid"]):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                links.append(str(link.readlink()))
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:")
    found = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # listening, and ours
                assert fields[1].startswith(loopback), f"listens on {fields[1]}"
                found += 1
    assert found >= 4  # gateway; Triton's gRPC, HTTP and metrics


def test_the_command_line_searches(served: Any, toy: Any) -> None:
    run = toy.run
    told = run("search", "red oak lamp", "--k", "3", "--explain", "--json", "--gateway", served.address)
    answer = json.loads(told.stdout)
    assert told.returncode == 0 and [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert answer["explanation"]["query_sid"].startswith("<a_")
    shown = run("search", "red oak lamp", "--explain", "--gateway", served.address)
    for word in ("keywords", "SID", "beams", "branches", "certificate", "red oak"):
        assert word in shown.stdout
    wrong = run("search", "", "--gateway", served.address)
    assert wrong.returncode == 2 and "query: empty" in wrong.stderr and "Traceback" not in wrong.stderr
    encoded = json.loads(run("encode", "oak", "--release", str(toy.fast.path), "--json").stdout)
    assert encoded["encodings"][0]["sid"].startswith("<a_")


def test_a_slow_model_meets_deadlines_and_overload(serve: Callable[..., Any], toy: Any) -> None:
    slow = serve(toy.slow, "--processes", "each")
    with Client(slow.address) as client:
        pipeline = Pipeline.of_release(toy.slow)  # its prefix has no elements at all
        assert pipeline.candidates(["oak desk"]).prompt.prefix.shape == (1, 0, 0)
        assert client.search("oak desk").hits == pipeline.search(SearchRequest("oak desk")).hits
        started = time.monotonic()
        late = client.search("oak desk", timeout_s=0.9)
        assert late.degraded and time.monotonic() - started < 0.9
        assert "oak" in late.hits[0].title and "desk" in late.hits[0].title
        with pytest.raises(GatewayError) as caught:
            client.search("oak desk", timeout_s=0.0005)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(1.2)  # what was given up is still being worked on

        def ask(_: int) -> Any:
            try:
                return client.search("oak desk")
            except GatewayError as error:
                return error.code

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(ask, range(6)))
        refused = results.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert refused == 4 and all(not answer.degraded for answer in results if not hasattr(answer, "value"))
        assert not client.search("oak desk").degraded
    assert slow.end() == 0 and slow.leftovers() == []


def _of_group(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state != "Z":
                found.append(int(process.name))
    return found


def test_triton_killed_answers_go_on_and_it_comes_back(serve: Callable[..., Any], toy: Any) -> None:
    own = serve(toy.fast, "--processes", "each")
    with Client(own.address) as client, grpc.insecure_channel(own.address) as channel:
        expected = client.search("oak desk")
        # The server alone, while a model's process hangs: that one must not be left over.
        killed = own.about["triton_pid"]
        hanging = next(pid for pid in _of_group(killed) if pid != killed)
        os.kill(hanging, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        answer = client.search("oak desk")
        assert answer.degraded and answer.hits and "oak" in answer.hits[0].title
        until = time.monotonic() + 30
        while (answer := client.search("oak desk")).degraded and time.monotonic() < until:
            time.sleep(0.1)
        assert answer.hits == expected.hits
        health = health_pb2_grpc.HealthStub(channel)
        wanted = health_pb2.HealthCheckResponse.SERVING
        request = health_pb2.HealthCheckRequest(service="onesearch.models")
        while health.Check(request).status != wanted and time.monotonic() < until:
            time.sleep(0.05)
        assert health.Check(request).status == wanted
    assert _of_group(killed) == []
    assert own.leftovers()
    assert own.end() == 0
    assert own.leftovers() == []
    assert own.process.communicate()[1].count("Triton is gone") == 1


def test_a_killed_service_takes_triton_along_and_the_next_start_sweeps(
    serve: Callable[..., Any], toy: Any
) -> None:
    own = serve(toy.fast)
    own.end(signal.SIGKILL)
    until = time.monotonic() + 20
    while Path(f"/proc/{own.about['triton_pid']}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{own.about['triton_pid']}").exists()
    assert own.leftovers()  # its folder, at least
    again = serve(toy.fast, "--port", own.address.rpartition(":")[2])
    assert again.address == own.address and own.leftovers() == []
    assert again.end(signal.SIGTERM) == 0 and again.leftovers() == []


def _fails(toy: Any, release: Path, *options: str, **variables: str) -> tuple[int, str]:
    command = [toy.python, "-m", "onesearch.cli.main", "serve", f"--release={release}", *options]
    ended = subprocess.run(
        command, env=toy.variables | variables, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_what_cannot_be_served_says_why(served: Any, toy: Any, tmp_path: Path) -> None:
    port = served.address.rpartition(":")[2]
    status, said = _fails(toy, toy.fast.path, "--port", port)
    assert status == 2 and f"port {port} of 127.0.0.1 is in use" in said
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        status, said = _fails(toy, toy.fast.path, "--triton-port", str(taken))
        assert status == 2 and f"{taken} of 127.0.0.1 is in use" in said

    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(toy.fast.path, changed)
    items = changed / "index" / "items.parquet"
    raw = bytearray(items.read_bytes())
    raw[100] ^= 1
    items.write_bytes(raw)
    status, said = _fails(toy, changed)
    assert status == 1 and "items.parquet" in said and "changed" in said
    items.write_bytes(raw[:-10])
    status, said = _fails(toy, changed)
    assert status == 1 and "items.parquet" in said
    status, said = _fails(toy, tmp_path / "nothing")
    assert status == 1 and "not a release" in said
    status, said = _fails(toy, toy.fast.path, ONESEARCH_SERVING_PYTHON="/bin/true")
    assert status == 1 and "does not run as a Python interpreter" in said
