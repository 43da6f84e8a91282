"""The serving half of the generator: one session, and the live tree's arrays bound once a generation."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import numpy as np
from onesearch.compiling.runtime import Runtime, Session
from onesearch.contracts.generator import GeneratorServer, Guide, SearchResult
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import Prompt
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import LiveTree
from onesearch.semantic_ids import PrefixTree
from pydantic import BaseModel
from safetensors.numpy import load_file

_FORMAT = 1
_KEPT_TREES, _KEPT_MASSES = 2, 8


class Seq2SeqServer(GeneratorServer):
    """Searches with the exported graph."""

    def __init__(
        self, session: Session, runtime: Runtime, about: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> None:
        self.session, self.runtime, self.about = session, runtime, about
        self.levels = tuple(about["levels"])
        self.keys: np.ndarray = arrays["keys"]
        self.weights = _guide_weights(arrays["served"])
        # Keyed by identity: what is bound is kept beside the tree itself, so that its id cannot be another's.
        self._trees: OrderedDict[int, tuple[LiveTree, dict[str, Any]]] = OrderedDict()
        self._masses: OrderedDict[int, tuple[LiveTree, dict[str, Any]]] = OrderedDict()

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
            server = cls(context.runtime.session(folder / "search.onnx"), context.runtime, about, arrays)
        except (OSError, KeyError) as error:
            raise ArtifactError(f"{folder / 'arrays.safetensors'}: cannot be read ({error})") from error
        except ArtifactError:
            raise
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{folder / 'arrays.safetensors'}: cannot be read ({error})") from error
        server.bind(context.index.live)
        return server

    def search(
        self, prompt: Prompt, query_vec: np.ndarray, tree: LiveTree, beams: int, guide: Guide = "guided"
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
        outputs = self.session.run(
            {
                "ids": np.asarray(prompt.ids[:, :limit], np.int32),
                "mask": np.asarray(prompt.mask[:, :limit], np.bool_),
                "prefix": prefix,
                "query_vec": np.asarray(query_vec, np.float32),
                "beams": np.array([beams], np.int64),
                "weights": self.weights[guide],
                **self.bind(tree),
            }
        )
        return SearchResult(**outputs)

    def bind(self, live: LiveTree) -> dict[str, Any]:
        """The tree's arrays where the graph runs: once a generation; a narrowed tree brings only its
        masses."""
        structure = _remembered(self._trees, live, id(live.tree), _KEPT_TREES, self._structure)
        masses = _remembered(self._masses, live, id(live), _KEPT_MASSES, self._mass)
        used = {**structure, **masses}
        return {name: value for name, value in used.items() if name in self.session.inputs}

    def _structure(self, live: LiveTree) -> dict[str, Any]:
        tree = live.tree
        arrays: dict[str, np.ndarray] = {}
        for depth, (code, vectors) in enumerate(zip(tree.code, live.vectors, strict=True), start=1):
            keys = vectors.astype(np.float32) @ self.keys
            arrays[f"code_{depth}"] = code
            if depth == 1:
                arrays["roots"] = np.concatenate([vectors.astype(np.float32), keys], axis=1).T
            else:
                arrays[f"vectors_{depth}"], arrays[f"keys_{depth}"] = vectors, keys
        for depth, (first, leaves) in enumerate(
            zip(tree.first_child[1:], _leaf_counts(tree), strict=True), start=1
        ):
            arrays[f"first_child_{depth}"], arrays[f"open_{depth}"] = first, leaves > 1
        return {name: self.runtime.resident(array) for name, array in arrays.items()}

    def _mass(self, live: LiveTree) -> dict[str, Any]:
        return {f"log_mass_{d}": self.runtime.resident(mass) for d, mass in enumerate(live.log_mass, start=1)}

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


def _guide_weights(served: np.ndarray) -> dict[Guide, np.ndarray]:
    """Weights f32[4, L] of head, steer, prior and mass for each guide."""
    head, steer, prior, mass, alone_prior, alone_mass = served.astype(np.float32)
    none = np.zeros_like(head)
    return {
        "guided": np.stack([head, steer, prior, mass]),
        "generator": np.stack([head, steer, none, mass]),
        "prior_only": np.stack([none, none, alone_prior, alone_mass]),
    }


def _leaf_counts(tree: PrefixTree) -> list[np.ndarray]:
    """Number of leaves below the nodes of depth 1 … L-1."""
    return list(tree.node_sums(np.ones(tree.leaf_count, np.int64))[:-1])


def _remembered(kept: OrderedDict, live: LiveTree, key: int, limit: int, make: Any) -> dict[str, Any]:
    if key not in kept:
        kept[key] = (live, make(live))
        while len(kept) > limit:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key][1]


def _nothing(count: int, beams: int, depth: int) -> SearchResult:
    none = np.full(count, -np.inf, np.float32)
    return SearchResult(
        np.full((count, beams), -1, np.int32),
        np.full((count, beams), -np.inf, np.float32),
        none,
        none.copy(),
        np.zeros((count, depth), np.int32),
    )
