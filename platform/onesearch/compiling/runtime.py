"""Sessions of exported ONNX graphs, with the threads and provider that this process may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onesearch.errors import ArtifactError


class Session:
    """One loaded graph."""

    def __init__(self, session: ort.InferenceSession, path: Path) -> None:
        self._session = session
        self.path = path
        self.inputs = tuple(node.name for node in session.get_inputs())
        self.outputs = tuple(node.name for node in session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray | ort.OrtValue]) -> dict[str, np.ndarray]:
        """Run the graph on named arrays (or OrtValues that were bound once); return its named outputs."""
        values: dict[str, Any] = {
            name: value
            if isinstance(value, ort.OrtValue)
            else ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in feeds.items()
        }
        results = self._session.run_with_ort_values(list(self.outputs), values)
        return {name: result.numpy() for name, result in zip(self.outputs, results, strict=True)}


@dataclass(frozen=True)
class Runtime:
    """Makes sessions.

    Attributes:
        threads: intra-op threads of a session; 0 lets ONNX Runtime take every core.
        providers: ONNX Runtime execution providers, the first that is available wins.
    """

    threads: int = 2
    providers: Sequence[str] = ("CPUExecutionProvider",)

    def session(self, path: Path) -> Session:
        """Load a graph. Raises ArtifactError naming the file that is missing or broken."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # Every stub's session would otherwise keep the cores busy while it waits (DESIGN 10).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        available = set(ort.get_available_providers())
        providers = [name for name in self.providers if name in available] or ["CPUExecutionProvider"]
        try:
            return Session(ort.InferenceSession(str(path), options, providers=providers), path)
        except Exception as error:  # onnxruntime raises many types, all deriving from Exception
            raise ArtifactError(f"{path}: cannot be loaded as an ONNX graph ({error})") from error

    def resident(self, array: np.ndarray) -> ort.OrtValue:
        """Put an array where the graphs run, once, to be bound to many runs."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
