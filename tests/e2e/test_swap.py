"""Releases change under a gateway that serves: nobody notices, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from onesearch.releases import release as release_module
from onesearch.releases.pruning import prune
from onesearch.releases.registry import Registry
from onesearch.serving.bench_swap import Load
from onesearch.serving.client import Client
from onesearch.serving.deployment import drawn
from tritonclient.grpc import service_pb2, service_pb2_grpc

pytestmark = pytest.mark.e2e

QUERIES = ("red lamp", "oak desk", "wool rug", "台灯", "white sofa")


@pytest.fixture(scope="module")
def registry(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Releases ``a`` (the champion) and ``b``, whose items differ in the first letter of their ids."""
    folder = tmp_path_factory.mktemp("swap") / "releases"
    for name in ("a", "b"):
        toy.write(folder, name=name, mark=name)
    registry = Registry(folder)
    with pytest.MonkeyPatch.context() as patch:  # this process may have looked for plugins before
        patch.setattr(release_module, "load_plugins", lambda: toy.fast.plugins)
        registry.promote("a")
        yield registry


@pytest.fixture(scope="module")
def own(serve: Callable[..., Any], registry: Registry) -> Any:
    """A server that follows the folder; the last test ends it."""
    return serve(registry.folder)


def until(holds: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def loaded(own: Any) -> set[str]:
    """Releases of which Triton holds any model."""
    with grpc.insecure_channel(own.now()["triton"]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=5)
    return {model.name.partition("--")[0] for model in index.models}


def written(own: Any) -> set[str]:
    """Releases whose models lie in Triton's repository."""
    models = Path("/tmp").glob(f"onesearch-serve-{own.process.pid}-*/repository/*--*")
    return {path.name.partition("--")[0] for path in models}


def test_the_champion_of_the_folder_answers(own: Any, registry: Registry, toy: Any) -> None:
    assert own.about["release"] == "a" and own.about["releases"] == str(registry.folder)
    with Client(own.address) as client:
        told = toy.run(
            "release", "promote", "b", "--releases", str(registry.folder), "--wait", own.address, "--json"
        )
        assert told.returncode == 0 and json.loads(told.stdout)["champion"] == "b", told.stderr
        found = client.search("oak desk", k=3)
        assert found.release == "b" and {hit.item_id[0] for hit in found.hits} == {"b"}
        assert client.get_item("bi3") is not None and client.get_item("ai3") is None
        until(lambda: loaded(own) == {"b"} == written(own), "only b is loaded")
        assert own.now()["release"] == "b"
        assert prune(registry, keep=0, dry_run=True).kept == {"a": "previous champion", "b": "champion"}

        # What cannot be followed changes nothing but what the gateway says.
        pointer = (registry.folder / "CHAMPION").read_text()
        for wrong, said in (
            (pointer.replace('"champion": "b"', '"champion": "nobody"'), "no release 'nobody'"),
            (pointer.replace('"champion":"b"', '"champion":"nobody"')[:-20], "cannot be read"),
        ):
            (registry.folder / "CHAMPION").write_text(wrong)
            until(lambda said=said: said in client.status().problem, "the problem is told")
            assert client.search("oak desk").release == "b" and said in own.now()["problem"]
        (registry.folder / "CHAMPION").write_text(pointer)
        registry.rollback()
        until(lambda: client.status().release == "a" and client.status().problem == "", "all is well")
        until(lambda: loaded(own) == {"a"} == written(own), "only a is loaded")


def test_a_challenger_answers_its_share_and_survives_triton(own: Any, registry: Registry) -> None:
    challenger = registry.challenge("b", 0.5)
    with Client(own.address) as client:
        until(lambda: client.status().challenger == "b", "b answers as well")
        expected = {f"u{n}": "b" if drawn(challenger.salt, f"u{n}") < 0.5 else "a" for n in range(20)}
        assert set(expected.values()) == {"a", "b"}
        for _ in range(2):
            for user, name in expected.items():
                answer = client.search("red lamp", user_id=user)
                assert answer.release == name and {hit.item_id[0] for hit in answer.hits} == {name}
        os.killpg(own.now()["triton_pid"], signal.SIGKILL)
        assert client.search("red lamp").degraded
        until(lambda: not any(client.search("red lamp", user_id=u).degraded for u in expected), "back")
        with Load(own.address, QUERIES, clients=3, per_second=60) as load:
            registry.promote("b")
            until(lambda: client.status().release == "b", "b is the champion")
            until(lambda: loaded(own) == {"b"}, "a is unloaded")
        assert client.status().challenger == "" and load.failures == [] and load.answers
        for _, answer in load.answers:
            assert not answer.degraded and {hit.item_id[0] for hit in answer.hits} == {answer.release}


def test_killed_at_once_both_leave_nothing_to_the_next(
    own: Any, serve: Callable[..., Any], registry: Registry
) -> None:
    os.kill(own.about["pid"], signal.SIGKILL)
    os.killpg(own.now()["triton_pid"], signal.SIGKILL)
    own.process.wait(10)
    assert any(path.parent == Path("/dev/shm") for path in own.leftovers())
    again = serve(registry.folder)
    assert again.about["release"] == registry.champion() and own.leftovers() == []
    assert any(path.parent == Path("/dev/shm") for path in again.leftovers())
    assert again.end() == 0 and again.leftovers() == []


def test_swaps_under_load_are_not_noticed(toy: Any) -> None:
    told = toy.run(
        "bench", "swap", f"--release={toy.fast.path}", "--swaps=3", "--pause=0.2", "--json", limit_s=240
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["swaps"], found["failed"], found["mixed"]) == (3, 0, 0), found
    assert found["requests"] > 50 and len(found["answered"]) == 2
    assert found["shared_memory_growth"] == found["memory_growth"] == 0  # nothing comes after the third
