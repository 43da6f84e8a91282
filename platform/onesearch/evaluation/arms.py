"""Arms of a simulated A/B: search systems that answer many requests, and say what they chose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.contracts.user_encoder import ShopperState
from onesearch.evaluation.baselines import Ranker
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline, Retrieved

SHOWN = 20
"""Places that shoppers can see: two pages."""
BATCH = 16
_NOT_RECALL = ("reward/", "learners/", "reports/", "fallback/", "config.toml")


@dataclass(frozen=True)
class Asked:
    """R searches: texts, and what is known of the shoppers just before."""

    queries: list[str]
    states: list[ShopperState]


@dataclass(frozen=True)
class Answers:
    """What an arm answered to R searches.

    Attributes:
        shown: i32[R, 20], item numbers, best first; -1 past the last.
        reached: i32[R, C], all that the last stage could choose from; -1 is padding.
    """

    shown: np.ndarray
    reached: np.ndarray


def of_rankers(rankers: Mapping[str, Ranker], asked: Asked, progress: Progress) -> dict[str, Answers]:
    """Baselines. What the cascade's ranker chooses from is what pre-rank let through."""
    return {name: _of_ranker(name, ranker, asked, progress) for name, ranker in rankers.items()}


def _of_ranker(name: str, ranker: Ranker, asked: Asked, progress: Progress) -> Answers:
    rows: list[np.ndarray] = []
    with progress.task(f"asking: {name}", total=len(asked.queries)) as task:
        for query, state in zip(asked.queries, asked.states, strict=True):
            rows.append(ranker.rank(query, state))
            task.advance()
    # Rankers answer with the first 350 of all they ranked, best first.
    reached = _padded(rows)
    return Answers(reached[:, :SHOWN], reached)


@dataclass(frozen=True)
class Arm:
    """A release as an arm: reranked by its reward, or in the generator's own order."""

    name: str
    release: Release
    reranked: bool = True


class Releases:
    """Releases as arms. Those that differ in their reward alone recall once."""

    def __init__(self, arms: Sequence[Arm], runtime: Runtime) -> None:
        self._groups: dict[str, list[tuple[Arm, Pipeline]]] = {}
        opened: dict[str, Pipeline] = {}
        for arm in arms:
            path = str(arm.release.path)
            pipeline = opened.get(path) or Pipeline.of_release(arm.release, runtime)
            opened[path] = pipeline
            self._groups.setdefault(recall_hash(arm.release), []).append((arm, pipeline))

    def answer(self, asked: Asked, progress: Progress) -> dict[str, Answers]:
        """Search as served."""
        found: dict[str, Answers] = {}
        for group in self._groups.values():
            found |= self._group(group, asked, progress)
        return found

    def _group(
        self, group: list[tuple[Arm, Pipeline]], asked: Asked, progress: Progress
    ) -> dict[str, Answers]:
        shown: dict[str, list[np.ndarray]] = {arm.name: [] for arm, _ in group}
        reached: list[np.ndarray] = []
        names = ", ".join(shown)
        with progress.task(f"asking: {names}", total=len(asked.queries)) as task:
            for start in range(0, len(asked.queries), BATCH):
                at = slice(start, start + BATCH)
                queries, states = asked.queries[at], asked.states[at]
                retrieved = group[0][1].candidates(queries, states)
                reached += list(retrieved.candidates.items)
                for arm, pipeline in group:
                    shown[arm.name] += _first(arm, pipeline, queries, states, retrieved)
                task.advance(len(queries))
        all_reached = _padded(reached)
        return {name: Answers(_padded(rows)[:, :SHOWN], all_reached) for name, rows in shown.items()}


def _first(
    arm: Arm,
    pipeline: Pipeline,
    queries: Sequence[str],
    states: Sequence[ShopperState],
    retrieved: Retrieved,
) -> list[np.ndarray]:
    """The items that a page shows, best first, of each query."""
    if not arm.reranked:
        return [row[row >= 0][:SHOWN] for row in retrieved.candidates.items]
    return [row[:SHOWN] for row in pipeline.ranked(queries, states, retrieved)]


def recall_hash(release: Release) -> str:
    """Equal for releases that recall the same: all but the reward is equal."""
    files = release.manifest.files
    kept = sorted(path for path in files if not path.startswith(_NOT_RECALL))
    return "\n".join([str(release.config.serving.beams), *(f"{path} {files[path].sha256}" for path in kept)])


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """i32[R, K ≥ 20], -1 behind the last."""
    padded = np.full((len(rows), max([SHOWN, *map(len, rows)])), -1, np.int32)
    for row, items in zip(padded, rows, strict=True):
        row[: len(items)] = items
    return padded
