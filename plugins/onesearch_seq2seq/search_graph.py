"""The whole constrained beam search as one static graph: encoder, unrolled steps, tree, top-k, certificate.

Notation: B queries, K beams, A decoder rows a query, M children of all beams of all queries, W the most
children of one query, n_ℓ nodes at depth ℓ.

Three things keep it fast. A beam whose prefix has one leaf below it is decided: it walks down to the leaf for
nothing, and only the others go through the decoder (A rows, compacted). At the deep levels where the
network's fitted weights are zero, there is no decoder at all. Children are gathered as one flat
list, as many as there are, so that a wide node costs no padding to the others. Beams are kept in the order of
their nodes, so that of equal scores TopK, which prefers the lower position, prefers the lower node.

Shapes of the flat lists depend on the data, which ONNX Runtime allows. For TensorRT, which does not, there is
:mod:`onesearch_seq2seq.static_graph`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onesearch_seq2seq.config import Dimensions
from onesearch_seq2seq.graphs import Graph, Precision
from onesearch_seq2seq.network_graph import Cache, Memory
from onesearch_seq2seq.search_parts import SearchParts
from onesearch_seq2seq.shape import SID_START, Shape

_DEAD = np.array([-np.inf], dtype=np.float32)
_ZERO, _NONE = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.int64)


@dataclass
class _Beams:
    """K beams a query, in the order of their nodes.

    Attributes:
        node, score: i64[B, K] and f32[B, K]; a score of -inf marks a place without a beam.
        row: i64[B, K], the decoder row (within the query) that the beam's parent had.
    """

    node: str
    score: str
    row: str


@dataclass
class _Children:
    """The M legal children of all beams, query by query, beam by beam.

    Attributes:
        node, beam: i64[M], the child and which of the B · K beams is its parent.
        place: i64[M], where it stands in the [B · W] matrix of its query's children.
        first: i64[B, 1], where a query's children begin. width: i64[1], W. count: i64[1], M.
    """

    node: str
    beam: str
    place: str
    first: str
    width: str
    count: str


class SearchGraph(SearchParts):
    """Builds the graph of a network. See :func:`build_search_graph` for its inputs and outputs."""

    def build(self) -> Graph:
        """Inputs, search, outputs."""
        g, f32, i32, i64 = self.g, np.float32, np.int32, np.int64
        ids = g.input("ids", i32, ["B", "T"])
        mask = g.input("mask", np.bool_, ["B", "T"])
        prefix = g.input("prefix", f32, ["B", "P", self.dims.width])
        self.query = g.input("query_vec", f32, ["B", self.shape.vector])
        self.beams = g.input("beams", i64, [1])
        parts = g.input("weights", f32, [4, self.depth])
        self._declare_tree()
        self.part = [
            g.Split(row, axis=1, num_outputs=self.depth, outputs=self.depth) if self.depth > 1 else [row]
            for row in g.Split(parts, axis=0, num_outputs=4, outputs=4)
        ]
        self.batch = g.size(ids, 0)
        self.query_columns = g.Transpose(self.query, perm=[1, 0])
        before = g.Expand(True, g.shape(g.size(prefix, 0), g.size(prefix, 1)))
        memory = self.network.encode(ids, g.Concat(before, mask, axis=1), prefix)
        leaves, scores = self._search(memory)
        g.output(leaves, "leaves", i32, ["B", "K"])
        g.output(scores, "log_probs", f32, ["B", "K"])
        self.tell_dropped("B")
        branches = g.Cast(g.Concat(*self.cuts.branches, axis=1), to=6)
        g.output(branches, "branches", i32, ["B", self.depth])
        return g

    def _declare_tree(self) -> None:
        g, f32, i32, wide = self.g, np.float32, np.int32, self.shape.vector + self.steer_rank
        self.roots = g.input("roots", f32, [wide, "n1"])
        self.code = [g.input(f"code_{d}", i32, [f"n{d}"]) for d in range(1, self.depth + 1)]
        self.mass = [g.input(f"log_mass_{d}", f32, [f"n{d}"]) for d in range(1, self.depth + 1)]
        deep = range(2, self.depth + 1)
        self.vectors = [g.input(f"vectors_{d}", np.float16, [f"n{d}", self.shape.vector]) for d in deep]
        heard = range(2, self.speaking + 1)
        self.keys = [g.input(f"keys_{d}", f32, [f"n{d}", self.steer_rank]) for d in heard if self.steer_rank]
        self.first = [g.input(f"first_child_{d}", i32, [f"n{d}+1"]) for d in range(1, self.depth)]
        self.open = [g.input(f"open_{d}", np.bool_, [f"n{d}"]) for d in range(1, self.speaking)]

    def _search(self, memory: Memory) -> tuple[str, str]:
        g = self.g
        start = g.Expand(np.array([[SID_START]], np.int32), g.shape(self.batch, 1))
        states, past = self.network.decode(start, 0, memory, None)
        scores = self._first_scores(g.Squeeze(states, [1]))
        if self.depth == 1:
            values, positions, _ = self._cut(scores)
            return self._leaves(values, positions, None), values
        beams = self._first_beams(scores)
        slot = beams.row
        for level in range(1, self.depth):
            if level < self.speaking:
                rows, slot, past = self._active_rows(beams, level, past)
                states, past = self.network.decode(rows, level, memory, past)
            children = self._expand(beams, level)
            found = self._child_scores(beams, children, states, slot, level)
            if level < self.depth - 1:
                beams = self._keep(found, children, slot)
        values, positions, _ = self._cut(found)
        return self._leaves(values, positions, children), values

    def _first_scores(self, states: str) -> str:
        """Log-probabilities f32[B, n_1] of all roots: dense, nothing is gathered."""
        g = self.g
        head, steer, prior, mass = (row[0] for row in self.part)
        logits = g.Mul(g.Gather(self.head(states, 0), self.code[0], axis=1), head)
        pointing = g.Mul(self.query, prior)
        if self.steer_rank:
            pointing = g.Concat(pointing, g.Mul(self.pointing(states, 0), steer), axis=1)
        logits = g.Add(logits, g.MatMul(pointing, self.roots))
        return g.LogSoftmax(self._with_mass(logits, self.mass[0], mass), axis=1)

    def _with_mass(self, logits: str, log_mass: str, weight: str) -> str:
        """Add η · log-mass; the dead get -inf whatever η is."""
        g = self.g
        dead = g.IsInf(log_mass)
        live = g.Where(dead, np.float32(0), log_mass)
        return g.Where(dead, _DEAD, g.Add(logits, g.Mul(live, g.Reshape(weight, np.array([1])))))

    def _first_beams(self, scores: str) -> _Beams:
        g = self.g
        _, positions, padded = self._cut(scores)
        positions = self._ascending(positions)
        last = g.Sub(g.size(scores, 1), np.array([1]))
        kept = g.GatherElements(padded, positions, axis=1)
        return _Beams(g.Min(positions, last), kept, self.g.filled(_NONE, self.batch, self.beams))

    def _cut(self, scores: str) -> tuple[str, str, str]:
        """The K best of f32[B, W], best first, and the matrix padded to at least K; notes what was
        dropped."""
        g = self.g
        missing = g.Max(g.Sub(self.beams, g.size(scores, 1)), np.array([0]))
        padded = g.Concat(scores, g.filled(_DEAD, self.batch, missing), axis=1)
        values, positions = g.TopK(padded, self.beams, axis=1, outputs=2)
        rest = g.ScatterElements(padded, positions, g.filled(_DEAD, self.batch, self.beams), axis=1)
        best = g.ReduceMax(rest, [1], keepdims=1)
        self.cuts.best.append(best)
        self.cuts.sums.append(g.ReduceSum(g.Exp(g.Sub(rest, self.finite(best))), [1], keepdims=1))
        legal = g.Cast(g.Greater(scores, _DEAD), to=7)
        self.cuts.branches.append(g.ReduceSum(legal, [1], keepdims=1))
        return values, positions, padded

    def _ascending(self, positions: str) -> str:
        values, _ = self.g.TopK(positions, self.beams, axis=1, largest=0, outputs=2)
        return values

    def _keep(self, found: str, children: _Children, slot: str) -> _Beams:
        """The K best children as beams."""
        g = self.g
        _, positions, padded = self._cut(found)
        positions = self._ascending(positions)
        kept = g.GatherElements(padded, positions, axis=1)
        at = self._in_list(positions, children)
        return _Beams(
            g.Gather(children.node, at), kept, g.Gather(g.reshape(slot, -1), g.Gather(children.beam, at))
        )

    def _in_list(self, positions: str, children: _Children) -> str:
        """Positions i64[B, K] in the matrix of children → positions in the flat list (any, where there is no
        child)."""
        g = self.g
        return g.Min(g.Add(positions, children.first), g.Sub(children.count, np.array([1])))

    def _leaves(self, values: str, positions: str, children: _Children | None) -> str:
        g = self.g
        nodes = positions if children is None else g.Gather(children.node, self._in_list(positions, children))
        return g.Cast(g.Where(g.IsInf(values), np.array([-1]), nodes), to=6)

    def _active_rows(self, beams: _Beams, level: int, past: Cache) -> tuple[str, str, Cache]:
        """The decoder rows of the beams that are not decided yet.

        Returns the token ids i32[B, A] of the rows, the row of each beam i64[B, K] (any, for a decided one),
        and the past of the rows.
        """
        g = self.g
        alive = g.Not(g.IsInf(beams.score))
        active = g.And(alive, g.Gather(self.open[level - 1], beams.node))
        rank = g.CumSum(g.Cast(active, to=7), np.array(1))
        rows = g.Max(g.ReduceMax(rank, keepdims=0), np.int64(1))
        rows = g.Unsqueeze(rows, [0])  # a query without any still has one, so that no tensor is empty
        slot = g.Where(
            active, g.Sub(rank, np.array([1])), rows
        )  # decided beams share a column that is cut off
        places = g.Expand(g.range(self.beams), g.shape(self.batch, self.beams))
        wide = g.filled(_NONE, self.batch, g.Add(rows, np.array([1])))
        beam = g.Slice(g.ScatterElements(wide, slot, places, axis=1), [0], rows, [1])
        node = g.GatherElements(beams.node, beam, axis=1)
        ids = g.Add(g.Gather(self.code[level - 1], node), np.array([self.shape.offset(level - 1)], np.int32))
        parent = g.GatherElements(beams.row, beam, axis=1)
        before = g.size(past.keys[0], 1)
        parent = g.Add(parent, g.Mul(g.Unsqueeze(g.range(self.batch), [1]), before))

        def follow(cached: str) -> str:
            flat = g.Reshape(cached, np.array([-1, level, self.dims.width]))
            return g.Gather(flat, parent)

        moved = Cache([follow(keys) for keys in past.keys], [follow(values) for values in past.values])
        return ids, g.Where(active, slot, np.array([0])), moved

    def _expand(self, beams: _Beams, level: int) -> _Children:
        """All children of all beams as one flat list: marks at the segments' starts, summed up, number the
        beams."""
        g, first = self.g, self.first[level - 1]
        begin = g.Cast(g.Gather(first, beams.node), to=7)
        end = g.Cast(g.Gather(first, g.Add(beams.node, np.array([1]))), to=7)
        count = g.Where(g.IsInf(beams.score), np.array([0]), g.Sub(end, begin))
        flat = g.reshape(count, -1)
        starts = g.CumSum(flat, np.array(0), exclusive=1)
        total = g.ReduceSum(flat, [0], keepdims=1)
        # Beams without children start where the next one does: marks add up, and the last may stand behind
        # the end.
        marks = g.filled(_NONE, g.Add(total, np.array([1])))
        ones = g.Expand(np.array([1]), g.Shape(flat))
        marks = g.ScatterElements(marks, starts, ones, axis=0, reduction="add")
        beam = g.Sub(g.CumSum(g.Slice(marks, [0], total, [0]), np.array(0)), np.array([1]))
        everyone = g.range(total)
        node = g.Add(g.Gather(g.Sub(g.reshape(begin, -1), starts), beam), everyone)
        totals = g.ReduceSum(count, [1], keepdims=1)
        width = g.Unsqueeze(g.ReduceMax(totals, keepdims=0), [0])
        query_first = g.CumSum(totals, np.array(0), exclusive=1)
        shift = g.Sub(g.Mul(g.Unsqueeze(g.range(self.batch), [1]), width), query_first)
        shift = g.reshape(g.Expand(shift, g.shape(self.batch, self.beams)), -1)
        place = g.Add(everyone, g.Gather(shift, beam))
        return _Children(node, beam, place, query_first, width, total)

    def _child_scores(self, beams: _Beams, children: _Children, states: str, slot: str, level: int) -> str:
        """Log-probabilities f32[B, W] of all children's prefixes."""
        g = self.g
        logits = self._child_logits(children, states, slot, level)
        empty = g.filled(_DEAD, g.Mul(self.batch, self.beams))
        highest = g.ScatterElements(empty, children.beam, logits, axis=0, reduction="max")
        logits = g.Sub(logits, g.Gather(highest, children.beam))
        none = g.filled(_ZERO, g.Mul(self.batch, self.beams))
        sums = g.ScatterElements(none, children.beam, g.Exp(logits), axis=0, reduction="add")
        logits = g.Sub(logits, g.Gather(g.Log(sums), children.beam))
        scores = g.Add(logits, g.Gather(g.reshape(beams.score, -1), children.beam))
        matrix = g.filled(_DEAD, g.Mul(self.batch, children.width))
        return g.reshape(
            g.ScatterElements(matrix, children.place, scores, axis=0), self.batch, children.width
        )

    def _child_logits(self, children: _Children, states: str, slot: str, level: int) -> str:
        """Logits f32[M]: what the score weighs, for each child."""
        g = self.g
        _, _, prior, mass = (row[level] for row in self.part)
        vectors = g.Cast(g.Gather(self.vectors[level - 1], children.node), to=1)
        query = g.Div(children.beam, self.beams)
        towards = g.MatMul(vectors, self.query_columns)  # [M, B]: one product beats M gathers of q
        towards = g.Squeeze(g.GatherElements(towards, g.Unsqueeze(query, [1]), axis=1), [1])
        logits = g.Mul(towards, g.reshape(prior, 1))
        if level < self.speaking:
            logits = g.Add(logits, self._network_logits(children, states, slot, level))
        return self._with_mass(logits, g.Gather(self.mass[level], children.node), mass)

    def _network_logits(self, children: _Children, states: str, slot: str, level: int) -> str:
        """The network's part of the logits f32[M]."""
        g = self.g
        head, steer, _, _ = (row[level] for row in self.part)
        offsets = g.Mul(g.Unsqueeze(g.range(self.batch), [1]), g.size(states, 1))
        row = g.Gather(g.reshape(g.Add(slot, offsets), -1), children.beam)
        code = g.Cast(g.Gather(self.code[level], children.node), to=7)
        dense = g.reshape(self.head(states, level), -1)
        at = g.Add(g.Mul(row, np.array([self.shape.levels[level]])), code)
        logits = g.Mul(g.Gather(dense, at), g.reshape(head, 1))
        if self.steer_rank:
            pointing = g.reshape(g.Mul(self.pointing(states, level), steer), -1, self.steer_rank)
            keys = g.Gather(self.keys[level - 1], children.node)
            logits = g.Add(logits, g.ReduceSum(g.Mul(keys, g.Gather(pointing, row)), [1], keepdims=0))
        return logits


def build_search_graph(
    weights: dict[str, np.ndarray],
    shape: Shape,
    dims: Dimensions,
    steer_rank: int,
    post_norm: bool,
    precision: Precision,
) -> Graph:
    """The search of a network with these weights (by their names in its state) as one graph.

    Inputs: ids i32[B, T], mask bool[B, T], prefix f32[B, P, d], query_vec f32[B, D], beams i64[1] (K),
    weights f32[4, L] of head, steer, prior and mass; and the tree: roots f32[D + r, n_1] (the vectors and
    keys of depth 1 as columns); for every depth ℓ code_ℓ i32[n_ℓ] and log_mass_ℓ f32[n_ℓ]; for depths 2 … L
    vectors_ℓ f16[n_ℓ, D]; for depths 1 … L-1 first_child_ℓ i32[n_ℓ + 1]; and where the network has a say
    (levels 1 … S, see below) keys_ℓ f32[n_ℓ, r] for depths 2 … S and open_ℓ bool[n_ℓ] (more than one leaf
    below) for depths 1 … S-1. At least one root must be alive.

    Behind the last level S at which ``served`` gives head or steer a weight, the graph holds no decoder, and
    weights of head and steer given there count for nothing.

    Outputs: leaves i32[B, K], log_probs f32[B, K], dropped f32[B], dropped_mass f32[B], branches i32[B, L].
    """
    return SearchGraph("onesearch_search", weights, shape, dims, steer_rank, post_norm, precision).build()
