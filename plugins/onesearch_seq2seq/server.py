"""The serving half of the generator: checks requests, and hands them to the engine that searches."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.generator import GeneratorServer, Guide, SearchResult
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import Prompt
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import LiveTree
from pydantic import BaseModel
from safetensors.numpy import load_file

from onesearch_seq2seq import devices
from onesearch_seq2seq.config import ON_DEVICES, Seq2SeqConfig
from onesearch_seq2seq.graph_engine import GraphEngine
from onesearch_seq2seq.native.engine import NativeEngine
from onesearch_seq2seq.native.library import LibraryError
from onesearch_seq2seq.static_engine import FILE, Engine, StaticEngine, StoredNetwork

_FORMAT = 1
_log = logging.getLogger(__name__)


class Seq2SeqServer(GeneratorServer):
    """Searches with what was exported: by the native library, with the ONNX graph, or on a device."""

    def __init__(self, engine: Engine, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.engine, self.about = engine, about
        self.levels = tuple(about["levels"])
        self.weights = _guide_weights(arrays["served"])

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open what the learner exported, and bind the context's tree. Raises ArtifactError naming the
        file."""
        path = folder / "generator.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ArtifactError(f"{path}: format {about['format']}, this version reads {_FORMAT}")
            fits = tuple(about["levels"]) == tuple(context.vocabulary.levels)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not an exported generator ({error})") from error
        if not fits:
            raise ArtifactError(f"{path}: made for levels {about['levels']}, not {context.vocabulary.levels}")
        try:
            arrays = load_file(folder / "arrays.safetensors")
            settings = config if isinstance(config, Seq2SeqConfig) else Seq2SeqConfig()
            server = cls(_engine(folder, context, about, arrays, settings), about, arrays)
        except (OSError, KeyError) as error:
            raise ArtifactError(f"{folder / 'arrays.safetensors'}: cannot be read ({error})") from error
        except ArtifactError:
            raise
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{folder / 'arrays.safetensors'}: cannot be read ({error})") from error
        server.bind(context.index.live)
        return server

    def search(
        self,
        prompt: Prompt,
        query_vec: np.ndarray,
        tree: LiveTree,
        beams: int,
        guide: Guide = "guided",
        certify: int = 0,
    ) -> SearchResult:
        """See :meth:`GeneratorServer.search`. Raises UsageError where shapes do not fit."""
        count, width = self._check(prompt, query_vec, tree, beams), int(self.about["width"])
        if not count or not tree.log_mass[0].size or not np.isfinite(tree.log_mass[0]).any():
            return _nothing(count, beams, len(self.levels))
        limit = int(self.about["prompt_limit"])
        prefix = (
            np.asarray(prompt.prefix, np.float32)
            if prompt.prefix.size
            else np.zeros((count, 0, width), np.float32)
        )
        return self.engine.search(
            np.asarray(prompt.ids[:, :limit], np.int32),
            np.asarray(prompt.mask[:, :limit], np.bool_),
            prefix,
            np.asarray(query_vec, np.float32),
            tree,
            beams,
            self.weights[guide],
            certify,
        )

    def bind(self, live: LiveTree) -> Any:
        """The tree's arrays as the engine walks them: made once a generation; a narrowed tree brings only its
        masses."""
        return self.engine.bind(live)

    def _check(self, prompt: Prompt, query_vec: np.ndarray, tree: LiveTree, beams: int) -> int:
        count = len(prompt.ids)
        if prompt.ids.ndim != 2 or prompt.mask.shape != prompt.ids.shape or not prompt.ids.shape[1]:
            raise UsageError(
                f"prompt ids of shape {prompt.ids.shape} and mask of shape {prompt.mask.shape} do not fit"
            )
        if query_vec.shape != (count, self.about["vector"]):
            wanted = (count, int(self.about["vector"]))
            raise UsageError(f"query vectors of shape {query_vec.shape}, the generator needs {wanted}")
        if prompt.prefix.size and (len(prompt.prefix), prompt.prefix.shape[-1]) != (
            count,
            self.about["width"],
        ):
            wanted = (count, int(self.about["width"]))
            raise UsageError(f"prefix vectors of shape {prompt.prefix.shape}, outer sizes must be {wanted}")
        if tuple(tree.tree.levels) != self.levels:
            raise UsageError(
                f"the tree has levels {tree.tree.levels}, the generator was made for {self.levels}"
            )
        if beams < 1:
            raise UsageError(f"a search needs at least one beam, not {beams}")
        return count


def _engine(
    folder: Path,
    context: ServingContext,
    about: dict[str, Any],
    arrays: dict[str, np.ndarray],
    settings: Seq2SeqConfig,
) -> Engine:
    """The engine that is asked for. Where there is no device for it the processor searches, and a warning
    says why. Raises ArtifactError."""
    kind, runtime = settings.engine, context.runtime
    if kind not in ON_DEVICES:
        return _on_processor(folder, runtime, about, arrays, kind)
    try:
        device = devices.of(kind, context.release)
    except devices.NoDeviceError as error:
        _log.warning('engine = "%s": %s; searching on the processor', kind, error)
        return _on_processor(folder, runtime, about, arrays, "auto")
    path = folder / FILE
    if not about.get("network"):
        raise ArtifactError(
            f'{path}: not there, and engine = "{kind}" needs it: a release carries it that was made with this'
            " engine chosen"
        )
    try:
        network = StoredNetwork.load(folder, about["network"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error
    spare = partial(_on_processor, folder, runtime, about, arrays, "auto")
    return StaticEngine(device, network, settings.gpu, int(about["prompt_limit"]), spare)


def _on_processor(
    folder: Path, runtime: Runtime, about: dict[str, Any], arrays: dict[str, np.ndarray], kind: str
) -> GraphEngine | NativeEngine:
    """``auto`` is the native engine where it runs. Raises ArtifactError."""
    path = folder / "native.safetensors"
    on_cpu = tuple(runtime.providers) == ("CPUExecutionProvider",)
    if on_cpu and kind == "auto" and not about.get("native"):
        _log.warning(
            "%s: exported before there was a native search: searching with the ONNX graph, which is slower",
            folder,
        )
    if kind == "native" or (kind == "auto" and on_cpu and about.get("native")):
        try:
            return NativeEngine(path, runtime.threads, arrays["served"])
        except LibraryError as error:
            if kind == "native":
                raise ArtifactError(f'engine = "native": {error}') from error
            _log.warning("searching with the ONNX graph, which is slower: %s", error)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: cannot be read ({error})") from error
    return GraphEngine(folder / "search.onnx", runtime, arrays["keys"])


def _guide_weights(served: np.ndarray) -> dict[Guide, np.ndarray]:
    """Weights f32[4, L] of head, steer, prior and mass for each guide."""
    head, steer, prior, mass, alone_prior, alone_mass = served.astype(np.float32)
    none = np.zeros_like(head)
    return {
        "guided": np.stack([head, steer, prior, mass]),
        "generator": np.stack([head, steer, none, mass]),
        "prior_only": np.stack([none, none, alone_prior, alone_mass]),
    }


def _nothing(count: int, beams: int, depth: int) -> SearchResult:
    none = np.full(count, -np.inf, np.float32)
    return SearchResult(
        np.full((count, beams), -1, np.int32),
        np.full((count, beams), -np.inf, np.float32),
        none,
        none.copy(),
        np.zeros((count, depth), np.int32),
    )
