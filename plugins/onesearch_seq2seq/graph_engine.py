"""Searches with the exported ONNX graph: one session, the tree's arrays bound to it once a generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.generator import SearchResult
from onesearch.index import LiveTree
from onesearch.semantic_ids import PrefixTree

from onesearch_seq2seq.remembering import Remembered


class GraphEngine:
    """One session of the graph.

    Raises ArtifactError naming the file where it cannot be loaded.
    """

    name = "onnx"

    def __init__(self, path: Path, runtime: Runtime, keys: np.ndarray) -> None:
        self.session, self.runtime, self.keys = runtime.session(path), runtime, keys
        self.bound = Remembered(self._structure, self._mass)

    def search(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        prefix: np.ndarray,
        query: np.ndarray,
        live: LiveTree,
        beams: int,
        parts: np.ndarray,
        certify: int = 0,
    ) -> SearchResult:
        """Search B queries; the graph's inputs are those of
        :func:`~onesearch_seq2seq.search_graph.build_search_graph`. The graph has one width, so ``certify``
        changes nothing."""
        outputs = self.session.run(
            {
                "ids": ids,
                "mask": mask,
                "prefix": prefix,
                "query_vec": query,
                "beams": np.array([beams], np.int64),
                "weights": parts,
                **self.bind(live),
            }
        )
        return SearchResult(**outputs)

    def bind(self, live: LiveTree) -> dict[str, Any]:
        """The tree's arrays where the graph runs."""
        structure, masses = self.bound.of(live)
        used = {**structure, **masses}
        return {name: value for name, value in used.items() if name in self.session.inputs}

    def _structure(self, live: LiveTree) -> dict[str, Any]:
        tree = live.tree
        arrays: dict[str, np.ndarray] = {}
        for depth, code in enumerate(tree.code, start=1):
            vectors = live.node_vectors(depth - 1)
            keys = vectors.astype(np.float32) @ self.keys
            arrays[f"code_{depth}"] = code.astype(np.int32)
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
        return {
            f"log_mass_{depth}": self.runtime.resident(mass.astype(np.float32))
            for depth, mass in enumerate(live.log_mass, start=1)
        }


def _leaf_counts(tree: PrefixTree) -> list[np.ndarray]:
    """Number of leaves below the nodes of depth 1 … L-1."""
    return list(tree.node_sums(np.ones(tree.leaf_count, np.int64))[:-1])
