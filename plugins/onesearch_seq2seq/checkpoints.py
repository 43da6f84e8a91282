"""Checkpoints of training: tensors as safetensors, the rest as JSON; a kill at any moment leaves a whole
one."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from onesearch.errors import ArtifactError
from safetensors.torch import load_file, save_file
from torch import Tensor

_STATE = "training.json"


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader finds either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors so that a reader finds either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors. Raises ArtifactError naming the file."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type, which derives from Exception
        raise ArtifactError(f"{path}: cannot be read as safetensors ({error})") from error


class Checkpoints:
    """The newest state of a stage and its best weights, in a folder.

    ``training.json`` names the tensor files that belong to it, so that replacing it is what makes a
    checkpoint valid; files that it does not name are left-overs and are removed.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]] | None:
        """State, tensors of training and best weights; None if there is none, it cannot be read, or it
        is of other examples or settings."""
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            if state["fingerprint"] != self.fingerprint:
                return None
            best = read_tensors(self.folder / state["best_file"]) if state["best_file"] else {}
            return state, read_tensors(self.folder / state["file"]), best
        except (OSError, ValueError, KeyError, ArtifactError):
            return None

    def write(
        self, state: dict[str, Any], tensors: dict[str, Tensor], best: dict[str, Tensor], best_step: int
    ) -> None:
        """Write a checkpoint; the best weights only if they are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name, best_name = f"step-{state['step']}.safetensors", f"best-{best_step}.safetensors" if best else ""
        write_tensors(self.folder / name, tensors)
        if best and not (self.folder / best_name).exists():
            write_tensors(self.folder / best_name, best)
        content = {**state, "fingerprint": self.fingerprint, "file": name, "best_file": best_name}
        write_json(self.folder / _STATE, content)
        for path in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.partial")):
            if path.name not in (name, best_name):
                path.unlink(missing_ok=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments as named tensors."""
    return {
        f"optimiser.{number}.{name}": value
        for number, slots in optimiser.state_dict()["state"].items()
        for name, value in slots.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimiser_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back until the step at hand is done; yields a function that says whether it came.

    The second Ctrl-C is not held back. Outside the main thread nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
