"""Searches with static graphs on a device: TensorRT's or torch's. Which of them, this file does not know.

A device keeps the tree's arrays and runs graphs of fixed sizes. What a request brings is filled up to those
sizes; what it asks for that none of them has room for, the other engine does, which takes any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onesearch.arrays import map_arrays, write_arrays
from onesearch.contracts.generator import SearchResult
from onesearch.index import LiveTree

from onesearch_seq2seq.config import SIZES, Dimensions, GpuConfig
from onesearch_seq2seq.remembering import Remembered
from onesearch_seq2seq.shape import Shape
from onesearch_seq2seq.sizes import Sizes, fits, padded, padded_mass, room_for, rows_for

if TYPE_CHECKING:
    from onesearch_seq2seq.graphs import Graph

FILE = "network.safetensors"
_log = logging.getLogger(__name__)


class Program(Protocol):
    """A static graph, ready to run."""

    def run(
        self, request: Mapping[str, np.ndarray], structure: Mapping[str, Any], masses: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Outputs by name; ``structure`` and ``masses`` are what the device made of a tree's arrays."""


class Device(Protocol):
    """Where static graphs run.

    Attributes:
        name: of the engine. rebuilds: whether a graph is built fast enough to do it while requests wait.
    """

    name: str
    rebuilds: bool

    def resident(self, array: np.ndarray) -> Any:
        """Put an array onto the device, to be used by many runs."""

    def program(self, graph: Graph) -> Program:
        """Make a graph ready to run."""


class Engine(Protocol):
    """What the server searches with."""

    name: str

    def bind(self, live: LiveTree) -> Any:
        """Make ready to search a tree."""

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
        """Search B queries; see :func:`~onesearch_seq2seq.search_graph.build_search_graph` for the inputs."""


@dataclass(frozen=True)
class StoredNetwork:
    """A network's weights by their names, in float32, and what fixes its sizes."""

    weights: dict[str, np.ndarray]
    shape: Shape
    size: str
    steer_rank: int
    post_norm: bool

    @property
    def dims(self) -> Dimensions:
        """Its width, layers and heads."""
        return SIZES[self.size]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the weights in one rename; return what :meth:`load` needs beside them."""
        partial = folder / "network.partial"
        write_arrays(partial, self.weights)
        partial.replace(folder / FILE)
        about = {"size": self.size, "steer_rank": self.steer_rank, "post_norm": self.post_norm}
        return {"shape": self.shape.as_json(), **about}

    @classmethod
    def load(cls, folder: Path, about: Mapping[str, Any]) -> StoredNetwork:
        """Map the weights into memory. Raises OSError, ValueError or KeyError."""
        told = dict(about["shape"])
        shape = Shape(told["vocabulary"], told["text"], tuple(told["levels"]), told["vector"])
        weights = map_arrays(folder / FILE)
        return cls(weights, shape, about["size"], about["steer_rank"], about["post_norm"])


class StaticEngine:
    """Static graphs, one for each width and batch size, over trees that a device keeps."""

    def __init__(
        self,
        device: Device,
        network: StoredNetwork,
        settings: GpuConfig,
        tokens: int,
        other: Callable[[], Engine],
    ) -> None:
        self.device, self.network, self.settings, self.tokens = device, network, settings, tokens
        self.name = device.name
        self.bound = Remembered(self._structure, self._mass)
        self._make_other = other
        self._other_made: Engine | None = None
        self._nodes: tuple[int, ...] = ()
        self._programs: dict[Sizes, Program] = {}
        self._rows: dict[int, tuple[int, ...]] = {}

    def bind(self, live: LiveTree) -> Any:
        """Put a tree onto the device; the first, and one that has outgrown the room, decides how much there
        is. What takes long to build is built now, so that no request waits for it."""
        if not self._nodes or (self.device.rebuilds and not fits(live.tree, self._nodes)):
            self.make_room(live)
        if not fits(live.tree, self._nodes):
            _log.warning(
                "the catalogue has outgrown the device's graphs: the processor searches until the next start"
            )
            return self._other().bind(live)
        return self.bound.of(live)

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
        """Search B queries with the next wider graph. ``certify`` changes nothing: a graph has one width."""
        width = next((width for width in sorted(self.settings.beams) if width >= beams), 0)
        if not width or prefix.shape[1] > self.settings.prefixes:
            return self._other().search(ids, mask, prefix, query, live, beams, parts, certify)
        bound = self.bind(live)
        if not fits(live.tree, self._nodes):
            return self._other().search(ids, mask, prefix, query, live, beams, parts, certify)
        step = self.settings.batch
        pieces = []
        for start in range(0, len(ids), step):
            rows = slice(start, start + step)
            batch = 1 if len(ids[rows]) == 1 else step
            request = self._request(ids[rows], mask[rows], prefix[rows], query[rows], batch)
            found = self._program(batch, width).run(request | {"weights": parts}, *bound)
            pieces.append({name: array[: len(ids[rows])] for name, array in found.items()})
        return finished(
            {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, beams
        )

    def _other(self) -> Engine:
        if self._other_made is None:
            self._other_made = self._make_other()
        return self._other_made

    def _request(
        self, ids: np.ndarray, mask: np.ndarray, prefix: np.ndarray, query: np.ndarray, batch: int
    ) -> dict[str, np.ndarray]:
        """A request filled up to the graph's sizes."""
        count, length, before = len(ids), ids.shape[1], self.settings.prefixes
        own = prefix.shape[1]
        seen = np.zeros((batch, before + self.tokens), np.bool_)
        seen[:count, before - own : before] = True
        # A prompt of which nothing is to be seen is read as it is, for there is nothing else.
        seen[:count, before : before + length] = mask | ~(mask.any(axis=1, keepdims=True) | (own > 0))
        whole = {"ids": _rows(ids, (batch, self.tokens)), "seen": seen, "query_vec": _rows(query, (batch,))}
        if before:
            vectors = np.zeros((batch, before, self.network.dims.width), np.float32)
            vectors[:count, before - own :] = prefix
            whole["prefix"] = vectors
        return whole

    def _program(self, batch: int, beams: int) -> Program:
        sizes = Sizes(batch, self.tokens, self.settings.prefixes, beams, self._nodes, self._rows[beams])
        if sizes not in self._programs:
            from onesearch_seq2seq.static_graph import build_static_graph

            one = self.network
            graph = build_static_graph(
                one.weights,
                one.shape,
                one.dims,
                one.steer_rank,
                one.post_norm,
                self.settings.precision,
                sizes,
            )
            self._programs[sizes] = self.device.program(graph)
        return self._programs[sizes]

    def make_room(self, live: LiveTree) -> None:
        """Let go of what is on the device, and size everything anew for a tree."""
        self._programs.clear()
        self.bound = Remembered(self._structure, self._mass)
        self._nodes = room_for(live.tree)
        limit = self.settings.candidates
        self._rows = {beams: rows_for(live.tree, beams, limit) for beams in self.settings.beams}
        if not self.device.rebuilds:
            for beams in self.settings.beams:
                for batch in {1, self.settings.batch}:
                    self._program(batch, beams)

    def _structure(self, live: LiveTree) -> dict[str, Any]:
        arrays = padded(live, self._nodes, self.network.weights["keys"])
        return {name: self.device.resident(array) for name, array in arrays.items()}

    def _mass(self, live: LiveTree) -> dict[str, Any]:
        masses = padded_mass(live, self._nodes)
        return {name: self.device.resident(array) for name, array in masses.items()}


def finished(found: dict[str, np.ndarray], beams: int) -> SearchResult:
    """What a static graph found, best first, of equal ones the lower leaf; what is past ``beams`` is dropped
    as a search of that width drops it."""
    order = np.lexsort((found["leaves"], -found["log_probs"]), axis=-1)
    leaves = np.take_along_axis(found["leaves"], order, axis=1)
    log_probs = np.take_along_axis(found["log_probs"], order, axis=1)
    dropped, mass = found["dropped"], found["dropped_mass"]
    if leaves.shape[1] > beams:
        rest = log_probs[:, beams:]
        dropped = np.maximum(dropped, rest[:, 0])
        mass = np.logaddexp(mass, np.logaddexp.reduce(rest, axis=1))
    return SearchResult(leaves[:, :beams], log_probs[:, :beams], dropped, mass, found["branches"])


def _rows(array: np.ndarray, outer: tuple[int, ...]) -> np.ndarray:
    """An array in the corner of one of zeros."""
    whole = np.zeros((*outer, *array.shape[len(outer) :]), array.dtype)
    whole[tuple(slice(0, length) for length in array.shape[: len(outer)])] = array
    return whole
