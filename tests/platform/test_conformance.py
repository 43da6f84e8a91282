"""What is in the box keeps the contracts; components that break a promise are caught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from onesearch.contracts import (
    Candidates,
    Offer,
    RewardLearner,
    RewardServer,
    ServingContext,
    ShopperState,
    conformance,
)
from onesearch.contracts.offers import Role
from onesearch.errors import ConfigError
from onesearch.plugins import Plugins, Registered, load_plugins
from pydantic import BaseModel, Field

IN_THE_BOX = [entry for entry in load_plugins().registered if entry.distribution == "onesearch"]
CHECKS = [
    pytest.param(check, id=f"{entry.offer.name}-{check}")
    for entry in IN_THE_BOX
    for check in conformance.checks(entry.role, entry.offer.name)
]


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_box(check: conformance.Check) -> None:
    check()


class Settings(BaseModel):
    breaks: str = Field("", description="Which promise to break.")


class Learner(RewardLearner):
    Config = Settings

    def fit(self, lists: Any, work: Path, progress: Any, impressions: Any = None) -> dict[str, Any]:
        return {"loss": np.float32(1)} if self.breaks == "report" else {}

    @property
    def breaks(self) -> str:
        return str(self.config.breaks)  # type: ignore[attr-defined]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reward.json").write_bytes(b"\x80\x04." if self.breaks == "nothing_pickled" else b"{}")

    export = save

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        return cls(config)


class Server(RewardServer):
    parts = ("log_prob", "length")
    calls = 0

    def __init__(self, breaks: str) -> None:
        self.breaks = breaks

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        breaks = str(config.breaks)  # type: ignore[attr-defined]
        if breaks == "damage_is_noticed":
            (folder / "reward.json").read_text()
        return cls(breaks)

    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        real = candidates.items >= 0
        parts = np.zeros((*real.shape, 2), dtype=np.float32)
        parts[..., 0] = np.where(real, candidates.log_probs, 0)
        parts[..., 1] = np.array([len(query) for query in queries]).reshape(-1, 1) / 7
        Server.calls += 1
        match self.breaks:
            case "same_twice":
                parts[..., 0] += Server.calls
            case "never_adds":
                candidates.items[:, 0] = 7
            case "batch_does_not_matter":
                parts[..., 1] += len(queries)
            case "odd_texts" if "" in queries:
                raise ValueError("empty query")
        totals = parts.sum(axis=-1)
        if self.breaks == "scores":
            parts *= 2
        if self.breaks != "only_padding":
            totals = np.where(real, totals, -np.inf)
        return totals.astype(
            np.float64 if self.breaks == "empty_batch" and not queries else np.float32
        ), parts


def _checks(breaks: str) -> dict[str, conformance.Check]:
    offer = Offer("mine", Settings, f"{__name__}:Learner", f"{__name__}:Server", quick={"breaks": breaks})
    # Not installed anywhere, so the halves are handed over as they are.
    object.__setattr__(offer, "learner_class", lambda: Learner)
    object.__setattr__(offer, "server_class", lambda: Server)
    role: Role = "reward"
    plugins = Plugins([Registered(role, offer, "mine", "mine", "1")], [])
    found = conformance.checks("reward", "mine", plugins=plugins)
    return {check.name: check for check in found if check.name != "serves_without_learning"}


def test_an_honest_component_passes() -> None:
    for check in _checks("").values():
        check()


@pytest.mark.parametrize(
    "promise",
    [
        "report", "nothing_pickled", "same_twice", "never_adds", "batch_does_not_matter", "odd_texts",
        "scores", "only_padding", "empty_batch", "damage_is_noticed",
    ],
)  # fmt: skip
def test_a_broken_promise_is_caught(promise: str) -> None:
    with pytest.raises((AssertionError, ValueError, TypeError, OSError)):
        _checks(promise)[promise]()


def test_checks_say_what_is_promised() -> None:
    for entry in IN_THE_BOX:
        found = conformance.checks(entry.role, entry.offer.name)
        assert len(found) >= 12
        assert all(check.promise and str(check) == check.name for check in found)


def test_settings_are_checked() -> None:
    entry = next(entry for entry in IN_THE_BOX if entry.role == "user_encoder")
    with pytest.raises(ConfigError, match="settings do not fit"):
        conformance.checks(entry.role, entry.offer.name, {"no_such_key": 1})
