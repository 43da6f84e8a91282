"""The constrained beam search as a graph whose every shape is a number: what TensorRT and CUDA graphs need.

It finds what :mod:`onesearch_seq2seq.search_graph` finds. Notation: B queries, K beams, R rows, V = BLOCK
children a row, N_ℓ room for nodes at depth ℓ.

The children of a beam take as many rows of V as they need, at least one, and all rows together are R a query.
So a wide node costs what it has and not what the widest could have, and yet a softmax is a plain reduction of
rows, and then of the few rows of a beam. Where R is not enough, the least likely of the beams that need more
than one row are dropped with all of their mass, which the certificate counts as it counts every other cut.

The K best are chosen without a sort, for TensorRT leaves open which of equal scores its TopK takes:
everything above the K-th best score, and of those equal to it the first. What is chosen keeps the order of
its nodes; whoever reads the result sorts it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onesearch_seq2seq.config import Dimensions
from onesearch_seq2seq.graphs import FLOAT, INT32, Graph, Precision
from onesearch_seq2seq.network_graph import Cache, Memory
from onesearch_seq2seq.search_parts import SearchParts
from onesearch_seq2seq.shape import SID_START, Shape
from onesearch_seq2seq.sizes import BLOCK, Sizes

_DEAD = np.array(-np.inf, dtype=np.float32)
_ZERO = np.array(0, dtype=np.float32)


@dataclass
class _Beams:
    """K beams a query, in the order of their nodes.

    Attributes:
        node, score: i32[B, K] and f32[B, K]; a score of -inf marks a place without a beam.
        parent: i32[B, K], the beam of the step before that this one continues; None after the first step.
    """

    node: str
    score: str
    parent: str | None


@dataclass
class _Children:
    """The children of all beams in rows of V.

    Attributes:
        node: i32[B, R, V]. live: bool[B, R, V]. beam: i32[B, R], the beam that a row belongs to.
        start, rows: i32[B, K], where a beam's rows begin and how many there are.
        most: rows that a beam can have.
    """

    node: str
    live: str
    beam: str
    start: str
    rows: str
    most: int


class StaticSearch(SearchParts):
    """Builds the graph. See :func:`build_static_graph` for its inputs and outputs."""

    def __init__(
        self,
        weights: dict[str, np.ndarray],
        shape: Shape,
        dims: Dimensions,
        steer_rank: int,
        post_norm: bool,
        precision: Precision,
        sizes: Sizes,
    ) -> None:
        super().__init__("onesearch_static_search", weights, shape, dims, steer_rank, post_norm, precision)
        self.sizes = sizes

    def build(self) -> Graph:
        """Inputs, search, outputs."""
        g, sizes, f32, i32 = self.g, self.sizes, np.float32, np.int32
        batch, before = sizes.batch, sizes.prefixes
        ids = g.input("ids", i32, [batch, sizes.tokens])
        seen = g.input("seen", np.bool_, [batch, before + sizes.tokens])
        prefix = g.input("prefix", f32, [batch, before, self.dims.width]) if before else None
        self.query = g.input("query_vec", f32, [batch, self.shape.vector])
        parts = g.input("weights", f32, [4, self.depth])
        self._declare_tree()
        self.part = [[self._scalar(parts, part, level) for level in range(self.depth)] for part in range(4)]
        memory = self.network.encode(ids, seen, prefix)
        beams = self._search(memory)
        leaves = g.Where(g.IsInf(beams.score), np.array(-1, i32), beams.node)
        g.output(leaves, "leaves", i32, [batch, sizes.beams])
        g.output(beams.score, "log_probs", f32, [batch, sizes.beams])
        self.tell_dropped(batch)
        g.output(g.Concat(*self.cuts.branches, axis=1), "branches", i32, [batch, self.depth])
        return g

    def _declare_tree(self) -> None:
        g, nodes, depths = self.g, self.sizes.nodes, range(1, self.depth + 1)
        self.mass = [g.input(f"log_mass_{d}", np.float32, [nodes[d - 1]]) for d in depths]
        self.vectors = [
            g.input(f"vectors_{d}", np.float16, [nodes[d - 1], self.shape.vector]) for d in depths
        ]
        self.first = [g.input(f"first_child_{d}", np.int32, [nodes[d - 1] + 1]) for d in depths[:-1]]
        heard = depths[: self.speaking]
        self.code = [g.input(f"code_{d}", np.int32, [nodes[d - 1]]) for d in heard]
        steered = heard if self.steer_rank else ()
        self.keys = [g.input(f"keys_{d}", np.float32, [nodes[d - 1], self.steer_rank]) for d in steered]

    def _scalar(self, parts: str, part: int, level: int) -> str:
        """Weight of a part of the score at a level, f32[1]."""
        row = self.g.Slice(parts, [part, level], [part + 1, level + 1], [0, 1])
        return str(self.g.Reshape(row, np.array([1])))

    def _search(self, memory: Memory) -> _Beams:
        g, batch = self.g, self.sizes.batch
        start = np.full((batch, 1), SID_START, np.int32)
        states, past = self.network.decode(g.value(start), 0, memory, None)
        scores = self._first_scores(g.Squeeze(states, [1]))
        chosen, kept = self._cut(scores, self.sizes.nodes[0])
        beams = _Beams(chosen, kept, None)
        for level in range(1, self.depth):
            if level < self.speaking:
                ids = g.Add(
                    g.Gather(self.code[level - 1], beams.node), np.int32(self.shape.offset(level - 1))
                )
                states, past = self.network.decode(ids, level, memory, self._follow(past, beams, level))
            children = self._expand(beams, level)
            beams = self._keep(self._child_scores(beams, children, states, level), children, level)
        return beams

    def _follow(self, past: Cache, beams: _Beams, level: int) -> Cache:
        """The past of each beam's parent."""
        g, batch, beams_n, width = self.g, self.sizes.batch, self.sizes.beams, self.dims.width

        def moved(cached: str) -> str:
            if beams.parent is None:
                return str(g.Expand(cached, np.array([batch, beams_n, 1, width])))
            flat = g.Reshape(cached, np.array([batch * beams_n, level, width]))
            return str(g.Gather(flat, self._flat(beams.parent)))

        return Cache([moved(keys) for keys in past.keys], [moved(values) for values in past.values])

    def _flat(self, beam: str) -> str:
        """Beams i32[B, n] of their queries → rows of a [B · K] list."""
        first = np.arange(self.sizes.batch, dtype=np.int32)[:, None] * self.sizes.beams
        return str(self.g.Add(beam, first))

    def _steered(self, states: str, level: int) -> str:
        """Where the network points among the keys, weighed: [..., d] → [..., r]."""
        return str(self.g.Mul(self.pointing(states, level), self.part[1][level]))

    def _first_scores(self, states: str) -> str:
        """Log-probabilities f32[B, N_1] of all roots: dense, nothing is gathered."""
        g = self.g
        logits = g.Mul(g.Gather(self.head(states, 0), self.code[0], axis=1), self.part[0][0])
        vectors = g.Transpose(g.Cast(self.vectors[0], to=FLOAT), perm=[1, 0])
        logits = g.Add(logits, g.Mul(g.MatMul(self.query, vectors), self.part[2][0]))
        if self.steer_rank:
            keys = g.Transpose(self.keys[0], perm=[1, 0])
            logits = g.Add(logits, g.MatMul(self._steered(states, 0), keys))
        return str(
            g.LogSoftmax(self._with_mass(logits, self.mass[0], g.Not(g.IsInf(self.mass[0])), 0), axis=1)
        )

    def _with_mass(self, logits: str, mass: str, live: str, level: int) -> str:
        """Add η · log-mass where a child is live; the dead get -inf whatever η is."""
        g = self.g
        weighed = g.Mul(g.Where(live, mass, _ZERO), self.part[3][level])
        return str(g.Where(live, g.Add(logits, weighed), _DEAD))

    def _cut(self, scores: str, width: int) -> tuple[str, str]:
        """The K best of f32[B, width]: where they stand i32[B, K], rising, and their scores, -inf in places
        that nothing is left for. Notes what was dropped."""
        g, batch, beams = self.g, self.sizes.batch, self.sizes.beams
        if width < beams:
            scores = g.Concat(scores, np.full((batch, beams - width), _DEAD), axis=1)
            width = beams
        best, _ = g.TopK(scores, np.array([beams]), axis=1, outputs=2)
        last = g.Slice(best, [beams - 1], [beams], [1])
        above = g.Greater(scores, last)
        live = g.Greater(scores, _DEAD)
        equal = g.And(live, g.Equal(scores, last))
        room = g.Sub(np.int32(beams), g.ReduceSum(g.Cast(above, to=INT32), [1], keepdims=1))
        nth = g.CumSum(g.Cast(equal, to=INT32), np.array(1))
        chosen = g.Or(above, g.And(equal, g.LessOrEqual(nth, room)))
        rank = g.Sub(g.CumSum(g.Cast(chosen, to=INT32), np.array(1)), np.int32(1))
        # What is not chosen goes to places of its own, which are cut off: no two write to the same one.
        aside = (beams + np.arange(width, dtype=np.int32))[None]
        place = g.Where(chosen, rank, aside)
        own = np.broadcast_to(np.arange(width, dtype=np.int32), (batch, width))
        spread = g.ScatterElements(np.full((batch, beams + width), -1, np.int32), place, own, axis=1)
        positions = g.Slice(spread, [0], [beams], [1])
        empty = g.Less(positions, np.int32(0))
        positions = g.Where(empty, np.int32(0), positions)
        kept = g.Where(empty, _DEAD, g.GatherElements(scores, positions, axis=1))
        self._drop(g.Where(chosen, _DEAD, scores))
        self.cuts.branches.append(g.ReduceSum(g.Cast(live, to=INT32), [1], keepdims=1))
        return positions, kept

    def _drop(self, scores: str) -> None:
        """Note scores f32[B, n] as dropped; -inf is nothing."""
        g = self.g
        best = g.ReduceMax(scores, [1], keepdims=1)
        self.cuts.best.append(best)
        self.cuts.sums.append(g.ReduceSum(g.Exp(g.Sub(scores, self.finite(best))), [1], keepdims=1))

    def _expand(self, beams: _Beams, level: int) -> _Children:
        """The children of all beams."""
        g, sizes, one, none = self.g, self.sizes, np.int32(1), np.int32(0)
        rows = sizes.rows[level - 1]
        begin = g.Gather(self.first[level - 1], beams.node)
        end = g.Gather(self.first[level - 1], g.Add(beams.node, one))
        end = g.Where(g.IsInf(beams.score), begin, end)
        count = g.Max(g.Sub(end, begin), one)
        further = g.Div(g.Sub(count, one), np.int32(BLOCK))
        most = min(-(-self.shape.levels[level] // BLOCK), rows - sizes.beams + 1)
        if sizes.beams * (-(-self.shape.levels[level] // BLOCK) - 1) > rows - sizes.beams:
            fits = self._fitting(beams.score, further, rows - sizes.beams)
            self._drop(g.Where(fits, _DEAD, beams.score))
            further, end = g.Where(fits, further, none), g.Where(fits, end, begin)
        taken = g.Add(further, one)
        start = g.Sub(g.CumSum(taken, np.array(1)), taken)
        marks = np.zeros((sizes.batch, rows), np.int32)
        ones = np.ones((sizes.batch, sizes.beams), np.int32)
        beam = g.Sub(g.CumSum(g.ScatterElements(marks, start, ones, axis=1), np.array(1)), one)
        within = g.Sub(np.arange(rows, dtype=np.int32)[None], g.GatherElements(start, beam, axis=1))
        first = g.Add(g.GatherElements(begin, beam, axis=1), g.Mul(within, np.int32(BLOCK)))
        node = g.Add(g.Unsqueeze(first, [2]), np.arange(BLOCK, dtype=np.int32)[None, None])
        legal = g.Less(node, g.Unsqueeze(g.GatherElements(end, beam, axis=1), [2]))
        node = g.Where(legal, node, none)
        live = g.And(legal, g.Not(g.IsInf(g.Gather(self.mass[level], node))))
        return _Children(node, live, beam, start, taken, most)

    def _fitting(self, scores: str, further: str, room: int) -> str:
        """Which beams are expanded bool[B, K], where those may have ``room`` rows beyond one each: those that
        need none, and of the others the best."""
        g, beams = self.g, self.sizes.beams
        mine, theirs = g.Unsqueeze(scores, [2]), g.Unsqueeze(scores, [1])
        earlier = np.tril(np.ones((beams, beams), bool))[None]
        sooner = g.Or(g.Greater(theirs, mine), g.And(g.Equal(theirs, mine), earlier))
        used = g.ReduceSum(g.Where(sooner, g.Unsqueeze(further, [1]), np.int32(0)), [2], keepdims=0)
        return str(g.Or(g.Equal(further, np.int32(0)), g.LessOrEqual(used, np.int32(room))))

    def _child_scores(self, beams: _Beams, children: _Children, states: str, level: int) -> str:
        """Log-probabilities f32[B, R · V] of all children's prefixes."""
        g, sizes = self.g, self.sizes
        logits = self._child_logits(children, states, level)
        rows_of = g.Add(
            g.Unsqueeze(children.start, [2]), np.arange(children.most, dtype=np.int32)[None, None]
        )
        own = g.Less(np.arange(children.most, dtype=np.int32)[None, None], g.Unsqueeze(children.rows, [2]))
        flat = g.Reshape(g.Where(own, rows_of, np.int32(0)), np.array([sizes.batch, -1]))

        def of_beams(values: str, nothing: np.ndarray) -> str:
            """Values f32[B, R] of rows → f32[B, K, most] of the rows of each beam."""
            found = g.GatherElements(values, flat, axis=1)
            found = g.Reshape(found, np.array([sizes.batch, sizes.beams, children.most]))
            return str(g.Where(own, found, nothing))

        highest = g.ReduceMax(of_beams(g.ReduceMax(logits, [2], keepdims=0), _DEAD), [2], keepdims=0)
        highest = self.finite(highest)
        shifted = g.Sub(logits, g.Unsqueeze(g.GatherElements(highest, children.beam, axis=1), [2]))
        sums = g.ReduceSum(g.Exp(shifted), [2], keepdims=0)
        sums = g.ReduceSum(of_beams(sums, _ZERO), [2], keepdims=0)
        base = g.Sub(beams.score, g.Log(sums))
        base = g.Where(g.Greater(sums, _ZERO), base, _DEAD)
        scores = g.Add(shifted, g.Unsqueeze(g.GatherElements(base, children.beam, axis=1), [2]))
        return str(g.Reshape(scores, np.array([sizes.batch, -1])))

    def _child_logits(self, children: _Children, states: str, level: int) -> str:
        """Logits f32[B, R, V]: what the score weighs, for each child."""
        g, sizes = self.g, self.sizes
        rows, wide = sizes.rows[level - 1], self.shape.vector
        vectors = g.Cast(g.Gather(self.vectors[level], children.node), to=FLOAT)
        vectors = g.Reshape(vectors, np.array([sizes.batch, rows * BLOCK, wide]))
        towards = g.MatMul(vectors, g.Unsqueeze(self.query, [2]))
        logits = g.Mul(g.Reshape(towards, np.array([sizes.batch, rows, BLOCK])), self.part[2][level])
        if level < self.speaking:
            logits = g.Add(logits, self._network_logits(children, states, level))
        return self._with_mass(logits, g.Gather(self.mass[level], children.node), children.live, level)

    def _network_logits(self, children: _Children, states: str, level: int) -> str:
        """The network's part of the logits f32[B, R, V]."""
        g, sizes, codes = self.g, self.sizes, self.shape.levels[level]
        rows = sizes.rows[level - 1]
        dense = g.Reshape(self.head(states, level), np.array([sizes.batch, sizes.beams * codes]))
        at = g.Unsqueeze(g.Mul(children.beam, np.int32(codes)), [2])
        at = g.Reshape(g.Add(at, g.Gather(self.code[level], children.node)), np.array([sizes.batch, -1]))
        found = g.Reshape(g.GatherElements(dense, at, axis=1), np.array([sizes.batch, rows, BLOCK]))
        logits = g.Mul(found, self.part[0][level])
        if self.steer_rank:
            pointing = g.Reshape(self._steered(states, level), np.array([-1, self.steer_rank]))
            pointing = g.Unsqueeze(g.Gather(pointing, self._flat(children.beam)), [2])
            keys = g.Gather(self.keys[level], children.node)
            logits = g.Add(logits, g.ReduceSum(g.Mul(keys, pointing), [3], keepdims=0))
        return str(logits)

    def _keep(self, scores: str, children: _Children, level: int) -> _Beams:
        """The K best children as beams."""
        g, sizes = self.g, self.sizes
        positions, kept = self._cut(scores, sizes.rows[level - 1] * BLOCK)
        nodes = g.Reshape(children.node, np.array([sizes.batch, -1]))
        node = g.GatherElements(nodes, positions, axis=1)
        parent = g.GatherElements(children.beam, g.Div(positions, np.int32(BLOCK)), axis=1)
        return _Beams(node, kept, parent)


def build_static_graph(
    weights: dict[str, np.ndarray],
    shape: Shape,
    dims: Dimensions,
    steer_rank: int,
    post_norm: bool,
    precision: Precision,
    sizes: Sizes,
) -> Graph:
    """The search of a network with these weights (by their names in its state), for one set of sizes.

    Inputs: ids i32[B, T]; seen bool[B, P + T], false for what only fills up; prefix f32[B, P, d] where P is
    not 0; query_vec f32[B, D]; weights f32[4, L] of head, steer, prior and mass; and the tree, whose arrays
    are filled up to the room there is (with a log_mass of -inf, and all else as it may be): for every depth ℓ
    log_mass_ℓ f32[N_ℓ] and vectors_ℓ f16[N_ℓ, D]; for depths 1 … L-1 first_child_ℓ i32[N_ℓ + 1]; for depths
    1 … S, where the network has a say (see :func:`onesearch_seq2seq.search_graph.build_search_graph`), code_ℓ
    i32[N_ℓ] and keys_ℓ f32[N_ℓ, r].

    Outputs: leaves i32[B, K] and log_probs f32[B, K] in the order of the leaves (-1 and -inf where there is
    none), dropped f32[B], dropped_mass f32[B], branches i32[B, L].
    """
    return StaticSearch(weights, shape, dims, steer_rank, post_norm, precision, sizes).build()
