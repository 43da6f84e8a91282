"""What is done and what is not: the record that makes training resumable and every stage idempotent.

Each stage works in a folder of its own, named after the hash of all that goes into it::

    <work>/ledger.json
    <work>/<stage>-<hash>/checkpoints/    the component's own, while the stage runs
    <work>/<stage>-<hash>/out/            what it made; appears in one step

A stage is done when the ledger says so for exactly these inputs and its output is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from onesearch.errors import ArtifactError, UsageError
from onesearch.training.reports import plain_figures

LEDGER = "ledger.json"


class StageRecord(BaseModel):
    """One finished stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: str
    """Hash of everything that went in, upstream stages included."""
    seconds: float
    figures: dict[str, Any]


class Ledger:
    """The record of one training, in its work folder."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._path = work / LEDGER
        self._records = self._read()

    def folder(self, stage: str, inputs: str) -> Path:
        """Where a stage works."""
        return self.work / f"{stage}-{inputs[:12]}"

    def done(self, stage: str, inputs: str) -> StageRecord | None:
        """The record of a stage that is done with these inputs."""
        record = self._records.get(stage)
        if record is None or record.inputs != inputs or not (self.folder(stage, inputs) / "out").is_dir():
            return None
        return record

    def run(
        self, stage: str, inputs: str, work: Callable[[Path, Path], dict[str, Any]]
    ) -> tuple[StageRecord, bool]:
        """Do a stage, unless it is done with these inputs: its record, and whether it was.

        ``work`` is given the folders of :meth:`begin`, and returns the stage's figures.
        """
        record = self.done(stage, inputs)
        if record is not None:
            return record, True
        folders = self.begin(stage, inputs)
        began = time.monotonic()
        figures = plain_figures(work(*folders))
        record = StageRecord(inputs=inputs, seconds=round(time.monotonic() - began, 2), figures=figures)
        self.finish(stage, record)
        return record, False

    def begin(self, stage: str, inputs: str) -> tuple[Path, Path]:
        """Folders for checkpoints (kept from an interrupted run) and for output (empty).

        What the stage left behind with other inputs is removed.
        """
        folder = self.folder(stage, inputs)
        for other in self.work.glob(f"{stage}-*"):
            if other != folder and len(other.name) == len(folder.name):
                shutil.rmtree(other, ignore_errors=True)
        draft = folder / "draft"
        for leftover in (draft, folder / "out"):
            if leftover.exists():
                shutil.rmtree(leftover)
        checkpoints = folder / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        return checkpoints, draft

    def finish(self, stage: str, record: StageRecord) -> None:
        """Let the output appear, write the record, and drop the checkpoints."""
        folder = self.folder(stage, record.inputs)
        (folder / "draft").rename(folder / "out")
        self._records[stage] = record
        self._write()
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def _read(self) -> dict[str, StageRecord]:
        try:
            about = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: StageRecord.model_validate(record) for name, record in about["stages"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
            raise ArtifactError(
                f"{self._path}: not a training ledger ({error}); remove {self.work} to start afresh"
            ) from error

    def _write(self) -> None:
        stages = {name: record.model_dump(mode="json") for name, record in self._records.items()}
        draft = self._path.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as stream:
            json.dump({"stages": stages}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self._path)


def hash_of(*parts: object) -> str:
    """A hash of JSON-able values: equal values, equal hash, in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def locked(work: Path, doing: str = "training this release") -> Iterator[None]:
    """Hold a work folder; raises UsageError where another process holds it. A killed process lets go."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{work}: another process is {doing}") from None
        yield
