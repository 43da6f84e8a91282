"""Releases change under a gateway that serves: nobody notices, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from onesearch.releases.registry import Registry
from onesearch.serving.client import Client
from onesearch.serving.deployment import drawn
from onesearch.serving.requests import SearchAnswer
from tritonclient.grpc import service_pb2, service_pb2_grpc

pytestmark = pytest.mark.e2e

QUERIES = ("red lamp", "oak desk", "wool rug", "台灯", "white sofa")


@pytest.fixture(scope="module")
def registry(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Releases ``a`` (the champion) and ``b``, whose items differ in the first letter of their ids."""
    folder = tmp_path_factory.mktemp("swap") / "releases"
    for name in ("a", "b"):
        toy.write(folder, name=name, mark=name)
    registry = Registry(folder)
    registry.promote("a")
    return registry


class Load:
    """Searches one after the other, from several threads, until the end of the block."""

    def __init__(self, address: str, clients: int = 3) -> None:
        self.answers: list[SearchAnswer] = []
        self.failures: list[Exception] = []
        self._address, self._over = address, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def _ask(self, number: int) -> None:
        with Client(self._address) as client:
            while not self._over.is_set():
                try:
                    query = QUERIES[len(self.answers) % len(QUERIES)]
                    self.answers.append(client.search(query, user_id=f"u{number}"))
                except Exception as error:
                    self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> set[str]:
        """Names of the releases that answered; asserts that each answer was wholly one release's."""
        assert self.failures == [] and self.answers
        for answer in self.answers:
            assert not answer.degraded and answer.hits
            assert {hit.item_id[0] for hit in answer.hits} == {answer.release}
        return {answer.release for answer in self.answers}


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


def test_promote_and_roll_back_under_load(serve: Callable[..., Any], registry: Registry, toy: Any) -> None:
    own = serve(registry.folder)
    assert own.about["release"] == "a" and own.about["releases"] == str(registry.folder)
    with Client(own.address) as client, Load(own.address) as load:
        for name, change in (("b", lambda: registry.promote("b")), ("a", registry.rollback)):
            change()
            until(lambda name=name: client.status().release == name, f"{name} answers")
            found = client.get_item(f"{name}i3")
            assert found is not None and client.get_item(f"{'ab'.replace(name, '')}i3") is None
            until(lambda name=name: loaded(own) == {name}, f"only {name} is loaded")
            assert own.now()["release"] == name
        time.sleep(0.3)
    assert load.check() == {"a", "b"}
    folders = {
        path.name.partition("--")[0]
        for path in Path("/tmp").glob(f"onesearch-serve-{own.process.pid}-*/repository/*--*")
    }
    assert folders == {"a"}

    # A broken one changes nothing but what the gateway says.
    shutil.copytree(registry.folder / "b", registry.folder / "c")
    pointer = (registry.folder / "CHAMPION").read_text()
    with Client(own.address) as client, Load(own.address) as load:
        (registry.folder / "CHAMPION").write_text(pointer.replace('"champion": "a"', '"champion": "nobody"'))
        until(lambda: "no release 'nobody'" in client.status().problem, "the problem is told")
        assert client.status().release == "a" and "nobody" in own.now()["problem"]
        (registry.folder / "CHAMPION").write_text(pointer[:-20])
        until(lambda: "cannot be read" in client.status().problem, "the other problem is told")
        (registry.folder / "CHAMPION").write_text(pointer)
        until(lambda: client.status().problem == "", "all is well")
    assert load.check() == {"a"}
    assert own.end() == 0 and own.leftovers() == []


def test_a_challenger_answers_its_share_and_survives_triton(
    serve: Callable[..., Any], registry: Registry
) -> None:
    challenger = registry.challenge("b", 0.5)
    own = serve(registry.folder)
    try:
        with Client(own.address) as client:
            until(lambda: client.status().challenger == "b", "b answers as well")
            expected = {f"u{n}": "b" if drawn(challenger.salt, f"u{n}") < 0.5 else "a" for n in range(40)}
            assert set(expected.values()) == {"a", "b"}
            for _ in range(2):
                for user, name in expected.items():
                    assert client.search("red lamp", user_id=user).release == name
            os.killpg(own.about["triton_pid"], signal.SIGKILL)
            assert client.search("red lamp").degraded
            until(lambda: not any(client.search("red lamp", user_id=u).degraded for u in expected), "back")
            with Load(own.address) as load:
                registry.promote("b")
                until(lambda: client.status().release == "b", "b is the champion")
                until(lambda: loaded(own) == {"b"}, "a is unloaded")
            assert load.check() <= {"a", "b"} and client.status().challenger == ""
    finally:
        registry.promote("a")
    assert own.end() == 0 and own.leftovers() == []


def test_killed_at_once_both_leave_nothing_to_the_next(serve: Callable[..., Any], registry: Registry) -> None:
    own = serve(registry.folder)
    os.kill(own.about["pid"], signal.SIGKILL)
    os.killpg(own.about["triton_pid"], signal.SIGKILL)
    own.process.wait(10)
    assert any(path.parent == Path("/dev/shm") for path in own.leftovers())
    again = serve(registry.folder)
    assert own.leftovers() == []
    assert any(path.parent == Path("/dev/shm") for path in again.leftovers())
    assert again.end() == 0 and again.leftovers() == []
