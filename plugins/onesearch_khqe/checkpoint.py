"""The state of an alignment on disk: after the last pass, and the encoder of the best one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from onesearch.errors import ArtifactError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onesearch_khqe.encoders import TextEncoder
from onesearch_khqe.optimiser import Optimiser


class Checkpoint:
    """Two files in the work folder; each is replaced whole, so that a kill loses one pass at most."""

    def __init__(self, work: Path, encoder: TextEncoder, optimiser: Optimiser) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.last_file = work / "alignment-last.safetensors"
        self.best_file = work / "alignment-best.safetensors"
        self.encoder = encoder
        self.optimiser = optimiser

    def resume(self) -> list[dict[str, Any]]:
        """Restore the last pass; returns the curve so far, [] where nothing was begun."""
        if not self.last_file.exists():
            return []
        state = _load(self.last_file)
        curve: list[dict[str, Any]] = json.loads(bytes(state.pop("curve").numpy()).decode())
        self.encoder.load_state_dict(_under("encoder.", state))
        self.optimiser.restore(_under("optimiser.", state))
        return curve

    def write(self, curve: list[dict[str, Any]], best: bool) -> None:
        """Write the state after a pass; ``best``: it is the best so far."""
        own = self.encoder.state_dict()
        if best:
            _replace(self.best_file, own)
        state = {f"encoder.{name}": value for name, value in own.items()}
        state |= {f"optimiser.{name}": value for name, value in self.optimiser.state().items()}
        state["curve"] = torch.frombuffer(bytearray(json.dumps(curve).encode()), dtype=torch.uint8)
        _replace(self.last_file, state)

    def best(self) -> None:
        """Give the encoder the parameters of the best pass."""
        self.encoder.load_state_dict(_load(self.best_file))


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); delete it to begin again") from error


def _replace(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial)
    partial.replace(path)
