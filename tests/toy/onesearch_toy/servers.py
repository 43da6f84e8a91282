"""The four parts as servers. Words are hashed to vectors, SIDs are nearest codes of fixed codebooks."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from onesearch.codebooks import Codebooks
from onesearch.contracts import (
    Candidates,
    GeneratorServer,
    Keyword,
    Prompt,
    RawPrompt,
    RewardServer,
    SearchResult,
    ServingContext,
    ShopperState,
    TextRole,
    TokenizerServer,
    UserEncoderServer,
)
from onesearch.contracts.generator import Guide
from onesearch.errors import UsageError
from onesearch.index import LiveTree
from onesearch.semantic_ids import format_sid
from onesearch.vocabulary import QUERY, SEP, pad
from pydantic import BaseModel

DIM, LEVELS = 16, (16, 8, 8)
CODEBOOKS = [
    np.random.default_rng(level).normal(size=(size, DIM)).astype(np.float32)
    for level, size in enumerate(LEVELS)
]


def embed(texts: Sequence[str]) -> np.ndarray:
    """Normalised sums of fixed random word vectors, f32[B, DIM]."""
    rows = np.zeros((len(texts), DIM), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIM).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def codebooks() -> Codebooks:
    """Of fixed random centroids."""
    return Codebooks.of([book * 0.4 / 2**level for level, book in enumerate(CODEBOOKS)])


def quantise(vectors: np.ndarray) -> np.ndarray:
    """Nearest code level by level on residuals, i32[B, L]."""
    rest, codes = vectors.astype(np.float32).copy(), []
    for book in codebooks().levels:
        code = ((rest[:, None, :] - book) ** 2).sum(-1).argmin(1)
        rest -= book[code]
        codes.append(code)
    return np.stack(codes, axis=1).astype(np.int32)


class ToyTokenizer(TokenizerServer):
    levels, dim = LEVELS, DIM

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        # Without an encoding, as many write it: inside Triton this would be ASCII if nobody saw to it.
        assert "词" in (folder / "toy.json").read_text()
        return cls()

    def keywords(self, texts: Sequence[str]) -> list[list[Keyword]]:
        return [[Keyword(word, "Entity") for word in text.lower().split()] for text in texts]

    def embed(self, texts: Sequence[str], role: TextRole = "query") -> np.ndarray:
        return embed(texts)

    def quantise(self, vectors: np.ndarray) -> np.ndarray:
        return quantise(vectors)

    def describe(self, sid: Sequence[int]) -> list[str]:
        return [f"things like {code}" for code in sid]


class ToyUserEncoder(UserEncoderServer):
    """The last click as a token, and all clicks as the mean of their items' vectors."""

    def __init__(self, context: ServingContext, prefix: tuple[int, int]) -> None:
        self.vocabulary, self.index, self.prefix = context.vocabulary, context.index, prefix

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        return cls(context, config.prefix)  # type: ignore[attr-defined]

    def raw(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> RawPrompt:
        texts = self.vocabulary.text_ids(queries, 16)
        sids = self.vocabulary.sid_ids(query_sids)
        clicks = [[int(state.clicks.items[-1] % 7) + 1] if len(state.clicks) else [] for state in states]
        rows = [[QUERY, *a, SEP, *b.tolist(), *c] for a, b, c in zip(texts, sids, clicks, strict=True)]
        ids, mask = pad(rows)
        history = np.zeros((len(rows), 1, DIM), np.float32)
        for row, state in enumerate(states):
            clicked = self._clicked(state)
            if len(clicked):
                history[row, 0] = self.index.vectors[clicked].mean(axis=0)
        return RawPrompt(ids, mask, history, history.any(axis=2))

    def features(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> Prompt:
        raw = self.raw(states, queries, query_sids, stand_ins)
        prefix = np.zeros((len(queries), *self.prefix), np.float32)
        if prefix.size:
            prefix[:, :, :DIM] = raw.history / self.prefix[0]
        return Prompt(raw.ids, raw.mask, prefix)

    def explain(
        self, states: Sequence[ShopperState], queries: Sequence[str], query_sids: np.ndarray
    ) -> list[dict[str, Any]]:
        return [self._explained(state) for state in states]

    def _explained(self, state: ShopperState) -> dict[str, Any]:
        clicked = self._clicked(state)
        if not len(clicked):
            best = np.argsort(-self.index.popularity, kind="stable")[:3]
            return {"stand_ins": [self._item(number) for number in best]}
        pairs = [
            (pair.query, self.index.numbers_of(np.array([pair.item], np.uint64))[0]) for pair in state.recent
        ]
        kinds = [self.index.items["category"][int(number)][-1] for number in clicked]
        return {
            "user_id_tokens": {
                "recent": self._item(clicked[-1])["sid"],
                "long": self._item(clicked[0])["sid"],
            },
            "recent": [{"query": query, **self._item(number)} for query, number in pairs],
            "interests": [{"name": k, "weight": kinds.count(k) / len(kinds)} for k in dict.fromkeys(kinds)],
        }

    def _clicked(self, state: ShopperState) -> np.ndarray:
        numbers = self.index.numbers_of(state.clicks.items)
        return numbers[numbers >= 0]

    def _item(self, number: int) -> dict[str, str]:
        if number < 0:
            return {}
        item_id = self.index.items["item_id"][int(number)]
        return {"item_id": item_id, "sid": format_sid(self.index.sids[number].tolist())}


class ToyGenerator(GeneratorServer):
    def __init__(self, sleep_s: float, sharpness: float = 8.0) -> None:
        self.sleep_s, self.sharpness = sleep_s, sharpness

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        path = folder / "state.json"
        backwards = path.exists() and "backwards" in json.loads(path.read_text(encoding="utf-8"))
        return cls(config.sleep_ms / 1000, -8.0 if backwards else 8.0)  # type: ignore[attr-defined]

    def search(
        self,
        prompt: Prompt,
        query_vec: np.ndarray,
        tree: LiveTree,
        beams: int,
        guide: Guide = "guided",
        certify: int = 0,
    ) -> SearchResult:
        """A plain beam search over the legal, live children."""
        if beams == 13:
            raise UsageError("beams: 13 brings bad luck")
        time.sleep(self.sleep_s)
        wanted = query_vec + prompt.prefix.sum(axis=1)[:, :DIM] if prompt.prefix.size else query_vec
        widths, rows = [], []
        for vector in wanted:
            width = min(2, beams) if certify else beams
            row = self._one(vector, tree, width)
            while width < beams and not (len(row[1]) >= certify and row[1][certify - 1] >= row[2]):
                width = min(2 * width, beams)
                row = self._one(vector, tree, width)
            widths.append(width)
            rows.append(row)
        width = max(len(leaves) for leaves, *_ in rows)
        leaves = np.full((len(rows), width), -1, np.int32)
        log_probs = np.full((len(rows), width), -np.inf, np.float32)
        for at, (found, scores, *_) in enumerate(rows):
            leaves[at, : len(found)], log_probs[at, : len(found)] = found, scores
        return SearchResult(
            leaves,
            log_probs,
            np.array([row[2] for row in rows], np.float32),
            np.array([row[3] for row in rows], np.float32),
            np.array([row[4] for row in rows], np.int32),
            np.array(widths, np.int32),
        )

    def _one(
        self, query: np.ndarray, live: LiveTree, beams: int
    ) -> tuple[np.ndarray, np.ndarray, float, float, list[int]]:
        nodes, scores = np.zeros(1, np.int64), np.zeros(1, np.float32)
        cut: list[np.ndarray] = []
        branches = []
        for level in range(live.tree.depth):
            next_nodes, next_scores = [], []
            for node, score in zip(nodes, scores, strict=True):
                low, high = live.tree.first_child[level][node : node + 2]
                children = np.arange(low, high)[np.isfinite(live.log_mass[level][low:high])]
                logits = self.sharpness * (live.node_vectors(level)[children].astype(np.float32) @ query)
                if len(children):
                    next_nodes.append(children)
                    next_scores.append(
                        score + logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
                    )
            nodes = np.concatenate([np.zeros(0, np.int64), *next_nodes])
            scores = np.concatenate([np.zeros(0, np.float32), *next_scores])
            branches.append(len(nodes))
            order = np.argsort(-scores, kind="stable")
            cut.append(scores[order[beams:]])
            nodes, scores = nodes[order[:beams]], scores[order[:beams]].astype(np.float32)
        lost = np.concatenate(cut)
        dropped = float(lost.max()) if len(lost) else -np.inf
        mass = float(np.log(np.exp(lost).sum())) if len(lost) else -np.inf
        return nodes, scores, dropped, mass, branches


class ToyReward(RewardServer):
    parts = ("log_prob", "words")

    def __init__(self, context: ServingContext) -> None:
        self.words = [set(title.lower().split()) for title in context.index.items["title"].to_list()]

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        return cls(context)

    def score(
        self,
        queries: Sequence[str],
        query_vecs: np.ndarray,
        states: Sequence[ShopperState],
        candidates: Candidates,
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = np.zeros((*candidates.items.shape, 2), dtype=np.float32)
        parts[..., 0] = np.where(candidates.items >= 0, candidates.log_probs, 0)
        for row, query in enumerate(queries):
            wanted = set(query.lower().split())
            parts[row, :, 1] = [
                len(wanted & self.words[item]) if item >= 0 else 0 for item in candidates.items[row]
            ]
        totals = np.where(candidates.items >= 0, parts.sum(-1), -np.inf).astype(np.float32)
        return totals, parts
