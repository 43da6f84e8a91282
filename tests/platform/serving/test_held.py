"""Generations of the catalogue in the models: opened aside, kept for a while, never mixed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from onesearch.catalogue.applying import Applier
from onesearch.catalogue.changes import Change
from onesearch.catalogue.generations import Generation, Generations
from onesearch.compiling.runtime import Runtime
from onesearch.releases.release import Release
from onesearch.serving import models
from onesearch.serving.held import Held, NotHeldError
from onesearch.serving.repository import STEPS

LAMP = Change("new", title="purple velvet lamp", category=("home", "lamp"), price=30.0)


@pytest.fixture
def applier(toy_release: Release, tmp_path: Path) -> Applier:
    return Applier(tmp_path / "live", toy_release)


def test_a_generation_is_opened_aside(applier: Applier) -> None:
    applier.accept([LAMP])
    go = threading.Event()

    def follow(generation: Generation, before: str) -> str:
        go.wait(10)
        return f"{before}, then {generation.number}"

    held = Held(7, "own", follow, applier.generations)
    with pytest.raises(NotHeldError, match="generation 8 of the catalogue is not open"):
        held.at(8)
    assert held.at(7) == held.at(-1) == "own"  # while the other is being opened
    go.set()
    held.wait()
    assert held.at(8) == held.at(-1) == "own, then 8" and held.newest == 8
    for price in range(3):
        applier.accept([Change("new", "patch", price=float(price))])
        held.prepare(9 + price)
        held.wait()
    assert held.at(9) and held.at(11)
    with pytest.raises(NotHeldError):
        held.at(8)


def test_what_cannot_be_opened_is_told_and_tried_again(applier: Applier) -> None:
    held = Held(7, "own", lambda generation, before: "new", applier.generations)
    with pytest.raises(NotHeldError):
        held.at(8)
    held.wait()
    with pytest.raises(NotHeldError, match="not a catalogue generation"):
        held.at(8)
    held.wait()
    applier.accept([LAMP])
    with pytest.raises(NotHeldError):
        held.at(8)
    held.wait()
    assert held.at(8) == "new"
    alone = Held(7, "own", lambda generation, before: "new", None)
    alone.prepare(8)
    alone.wait()
    with pytest.raises(NotHeldError, match="no live catalogue is followed"):
        alone.at(8)


def _opened(release: Release, generations: Generations | None) -> dict[str, models.Model]:
    made = {}
    for step in STEPS:
        model = getattr(models, "".join(word.title() for word in step.split("_")) + "Model")()
        model.open(release, Runtime(threads=1), generations)
        made[step] = model
    return made


def _run(opened: dict[str, models.Model], query: str, number: int, coming: int = -1) -> dict[str, np.ndarray]:
    def text(value: bytes) -> np.ndarray:
        return np.array([[value]], dtype=object)

    known: dict[str, np.ndarray] = {
        "QUERY": text(query.encode()), "STATE": text(b""), "FILTERS": text(b""), "GUIDE": text(b"guided"),
        "BEAMS": np.array([[64]], np.int32), "CERTIFY": np.array([[0]], np.int32),
        "RERANK": np.array([[True]]), "K": np.array([[5]], np.int32), "OFFSET": np.array([[0]], np.int32),
        "EXPLAIN": np.array([[False]]), "SHOWN": text(b""), "CATALOGUE": np.array([[number, coming]]),
    }  # fmt: skip
    for step in STEPS:
        known |= opened[step].run(known)
    return known


def test_models_answer_under_the_generation_that_is_named(applier: Applier, toy_release: Release) -> None:
    opened = _opened(toy_release, applier.generations)
    applier.accept([LAMP])
    first = _run(opened, "purple velvet lamp", 7, coming=8)
    assert first["GENERATION"].tolist() == [[7]] and b"new" not in first["ITEM_ID"]
    for step in STEPS[1:]:
        opened[step].held.wait()  # type: ignore[attr-defined]
    found = _run(opened, "purple velvet lamp", 8)
    assert found["GENERATION"].tolist() == [[8]] and found["ITEM_ID"][0, 0] == b"new"
    assert found["TITLE"][0, 0] == b"purple velvet lamp" and found["PRICE"][0, 0] == 30.0
    again = _run(opened, "purple velvet lamp", 7)
    np.testing.assert_array_equal(again["ITEM_ID"], first["ITEM_ID"])

    best = found["ITEM_ID"][0, 1].decode()
    applier.accept([Change("new", "withdraw"), Change(best, "withdraw")])
    _run(opened, "lamp", -1, coming=9)
    for step in STEPS[1:]:
        opened[step].held.wait()  # type: ignore[attr-defined]
    gone = set(_run(opened, "purple velvet lamp", -1)["ITEM_ID"][0].tolist())
    assert not gone & {b"new", best.encode()}
