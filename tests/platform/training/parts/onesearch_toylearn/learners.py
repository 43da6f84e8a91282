"""The four learners. What they learn is a hash of what they were given: equal inputs, equal release."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from onesearch.codebooks import Codebooks
from onesearch.contracts import (
    GeneratorLearner,
    RewardLearner,
    TextRole,
    TokenizerLearner,
    UserEncoderLearner,
)
from onesearch.contracts import generator as contract
from onesearch.data.store import Store
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from onesearch.training.examples import Examples
from onesearch.training.impressions import Impressions
from onesearch.training.lists import RankedLists
from onesearch.training.preferences import Preferences
from onesearch_toy.servers import DIM, LEVELS, codebooks, embed, quantise
from pydantic import BaseModel


class _Keeps:
    """Saves and exports its state as JSON."""

    def __init__(self, config: BaseModel) -> None:
        self.config: Any = config
        self.state: dict[str, Any] = {}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps(self.state, sort_keys=True))

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        made = cls(config)
        made.state = json.loads((folder / "state.json").read_text())
        return made

    def export(self, folder: Path) -> None:
        self.save(folder)
        (folder / "toy.json").write_text('{"词": 1}', encoding="utf-8")


class TokenizerLearner(_Keeps, TokenizerLearner):  # type: ignore[no-redef,misc]
    levels, dim = LEVELS, DIM

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        self.state = {"fitted": len(store.items())}
        reports = work / "report"
        reports.mkdir(parents=True, exist_ok=True)
        (reports / "report.txt").write_text("all is well\n")
        return {"icr": np.float32(0.5)}

    def encode_items(self, items: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        vectors = embed(items["title"].to_list())
        return quantise(vectors), vectors

    def codebooks(self) -> Codebooks:
        return codebooks()

    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        return embed(texts)

    def encode(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        return quantise(embed(texts))


class ToyModule:
    """Learns what the generator learnt."""

    def __init__(self, dim: int, width: int) -> None:
        self.dim, self.width, self.learnt = dim, width, ""


class UserEncoderLearner(_Keeps, UserEncoderLearner):  # type: ignore[no-redef,misc]
    _module: ToyModule | None = None

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        return {}

    def module(self, dim: int, width: int) -> Any:
        self._module = self._module or ToyModule(dim, width)
        return self._module

    def save(self, folder: Path) -> None:
        if self._module is not None:
            self.state = dict(vars(self._module))
        super().save(folder)


class GeneratorLearner(_Keeps, GeneratorLearner):  # type: ignore[no-redef,misc]
    @property
    def learns_preferences(self) -> bool:  # type: ignore[override]
        return bool(self.config.prefers)

    def prefer(
        self,
        phase: contract.Phase,
        preferences: Preferences,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: Any = None,
        origin: contract.Origin | None = None,
    ) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(self.state, sort_keys=True).encode())
        arrays = [*vars(preferences.ranked).values(), preferences.prompts.values, preferences.held_out]
        for array in (*arrays, *(task.leaf for task in examples.sid_tasks)):
            digest.update(np.ascontiguousarray(array))
        assert origin is not None, "what supervised training ended with is told"
        if os.environ.get("TOYLEARN_DIES_AFTER") == phase:
            os.kill(os.getpid(), signal.SIGKILL)
        self.state[phase] = digest.hexdigest()
        if self.config.worsens:
            self.state["backwards"] = True
        if user_module is not None:
            user_module.learnt = digest.hexdigest()
        guarded = sum(len(task.leaf) for task in examples.sid_tasks)
        return {"rows": len(preferences.ranked), "guarded": guarded, "kl": 0.5, "kl_origin": 0.75}

    @property
    def prefix_width(self) -> int:  # type: ignore[override]
        return int(self.config.width)

    def fit(
        self,
        stage: contract.Stage,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: Any = None,
    ) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(self.state, sort_keys=True).encode())
        for task in (*examples.sid_tasks, *examples.text_tasks):
            digest.update(f"{task.name} {examples.share[task.name]:.6f}".encode())
            digest.update(np.ascontiguousarray(task.prompts.values))
            digest.update(np.ascontiguousarray(task.weight))
        for task in examples.sid_tasks:
            digest.update(np.packbits(task.held_out))
            if task.histories is not None:
                digest.update(np.ascontiguousarray(task.histories.values[task.histories.row]))
        checkpoint = work / "step.json"
        step, seen = 0, digest.hexdigest()
        if checkpoint.exists():
            step, seen = json.loads(checkpoint.read_text())
            progress.say(f"resumed at step {step}")
        while step < self.config.steps:
            time.sleep(self.config.step_ms / 1000)
            step, seen = step + 1, hashlib.sha256(f"{seen}{step}".encode()).hexdigest()
            draft = checkpoint.with_suffix(".draft")
            draft.write_text(json.dumps([step, seen]))
            draft.replace(checkpoint)
            progress.say(f"{stage} step {step}")
            if os.environ.get("TOYLEARN_DIES_AFTER") == f"{stage} step {step}":
                os.kill(os.getpid(), signal.SIGKILL)
        self.state[stage] = seen
        if user_module is not None:
            user_module.learnt = seen
        return {"steps": step}


class RewardLearner(_Keeps, RewardLearner):  # type: ignore[no-redef,misc]
    reads_impressions = True

    def fit(
        self, lists: RankedLists, work: Path, progress: Progress, impressions: Impressions | None = None
    ) -> dict[str, Any]:
        if self.config.fail:
            raise OneSearchError("the reward will not have it")
        assert lists.serving_pairs is not None
        self.state = {
            "lists": len(lists.queries),
            "gain": round(float(lists.gain.sum()), 4),
            "evidence": len(lists.pairs),
            "serving": len(lists.serving_pairs),
            "impressions": 0 if impressions is None else len(impressions),
            "fresh": 0 if impressions is None else int(impressions.fresh.sum()),
        }
        return dict(self.state)
