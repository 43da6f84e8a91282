"""What tokenizers promise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from onesearch.contracts.conformance._common import TEXTS, Answers, ComponentSuite, shaped
from onesearch.contracts.conformance._world import ODD_TEXTS
from onesearch.contracts.tokenizer import Keyword, TokenizerLearner, TokenizerServer
from onesearch.data.schemas import ATTRIBUTE_TYPES
from onesearch.progress import SilentProgress


class TokenizerSuite(ComponentSuite):
    """Shapes, unit vectors, legal codes; learner and server agree."""

    def fit(self, learner: TokenizerLearner, work: Path) -> Any:
        """Fit on the world's store."""
        return learner.fit(self.world.store, work, SilentProgress())

    def answers(self, server: TokenizerServer, texts: Sequence[str]) -> Answers:
        """Embeddings, SIDs and keywords."""
        vectors = server.embed(texts)
        keywords = [
            json.dumps([[word.text, word.attribute] for word in row]) for row in server.keywords(texts)
        ]
        return {
            "embed": vectors,
            "quantise": server.quantise(vectors),
            "keywords": np.array(keywords, dtype=str),
        }

    @property
    def _learner(self) -> TokenizerLearner:
        return cast(TokenizerLearner, self.subject.learner)

    @property
    def _server(self) -> TokenizerServer:
        return cast(TokenizerServer, self.subject.server)

    def check_levels(self) -> None:
        """``levels`` and ``dim`` are known after fit, and the server's are the learner's."""
        levels, dim = self._learner.levels, self._learner.dim
        assert levels and all(isinstance(size, int) and size > 0 for size in levels), f"levels is {levels!r}"
        assert isinstance(dim, int) and dim > 0, f"dim is {dim!r}"
        assert (tuple(self._server.levels), self._server.dim) == (tuple(levels), dim), "the server's differ"

    def check_items(self) -> None:
        """``encode_items``: SIDs i32[N, L] of legal codes, unit vectors f32[N, D]; new items too."""
        items = self.world.store.items()
        new = items.head(3).with_columns(
            item_id="new-" + items.head(3)["item_id"], title=items.head(3)["title"] + " xl"
        )
        for rows in (items, new, items.clear()):
            sids, vectors = self._learner.encode_items(rows)
            self._legal("SIDs of items", sids, len(rows))
            self._unit("vectors of items", vectors, len(rows))

    def check_new_items_while_serving(self) -> None:
        """The server's ``embed_items`` and ``assign`` are the learner's ``encode_items`` for new items: the
        same vectors within 2e-2, the same SIDs for the same vectors."""
        rows = self.world.store.items().head(5)
        new = rows.with_columns(item_id="new-" + rows["item_id"], title=rows["title"] + " xl")
        taken = self._learner.encode_items(self.world.store.items())[0]
        for row in range(len(new)):
            one = new[row : row + 1]
            sid, vector = self._learner.encode_items(one)
            served = self._server.embed_items(one)
            self._unit("embed_items", served, 1)
            gap = float(np.abs(served - vector).max())
            assert gap <= 2e-2, f"embed_items: {gap:.3g} away from the learner's encode_items"
            given = self._server.assign(vector, taken)
            self._legal("assign", given, 1)
            assert np.array_equal(given, sid), f"assign: {given.tolist()}, the learner's is {sid.tolist()}"
        self._legal("assign", self._server.assign(self._server.embed_items(new), taken), len(new))
        nothing = self._server.embed_items(new.clear())
        self._unit("embed_items", nothing, 0)
        self._legal("assign", self._server.assign(nothing, taken), 0)

    def check_texts(self) -> None:
        """``embed``: unit vectors f32[B, D]; ``encode``, ``quantise``: legal SIDs i32[B, L]; of any text."""
        for texts in (TEXTS, ODD_TEXTS, ()):
            for half in (self._learner, self._server):
                for role in ("query", "item"):
                    self._unit(f"{type(half).__name__}.embed", half.embed(texts, role), len(texts))
            self._legal("encode", self._learner.encode(texts), len(texts))
            self._legal("quantise", self._server.quantise(self._server.embed(texts)), len(texts))

    def check_server_agrees(self) -> None:
        """The server's embeddings are the learner's within 2e-2."""
        for role in ("query", "item"):
            gap = np.abs(self._server.embed(TEXTS, role) - self._learner.embed(TEXTS, role)).max()
            assert gap <= 2e-2, (
                f"the server's embeddings of role {role} are {gap:.3g} away from the learner's"
            )

    def check_batch_does_not_matter(self) -> None:
        """A text's embedding does not depend on the texts beside it."""
        alone = np.concatenate([self._server.embed([text]) for text in TEXTS])
        assert np.abs(self._server.embed(TEXTS) - alone).max() <= 1e-4, "embeddings change with the batch"

    def check_keywords(self) -> None:
        """Keywords are of the 18 attribute types, one list a text."""
        for texts in (TEXTS, ODD_TEXTS, ()):
            rows = self._server.keywords(texts)
            assert len(rows) == len(texts), f"{len(rows)} lists of keywords for {len(texts)} texts"
            for word in (word for row in rows for word in row):
                assert isinstance(word, Keyword), f"{word!r} is no Keyword"
                assert word.attribute in ATTRIBUTE_TYPES, f"{word!r} is of no known attribute type"

    def check_describe(self) -> None:
        """``describe`` says something of each code: one string a level."""
        for sid in self._server.quantise(self._server.embed(TEXTS)):
            told = self._server.describe(sid.tolist())
            assert len(told) == len(sid) and all(isinstance(text, str) for text in told), f"{told!r}"

    def _unit(self, name: str, vectors: np.ndarray, count: int) -> None:
        shaped(name, vectors, (count, self._learner.dim), np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.allclose(lengths, 1, atol=1e-2), (
            f"{name}: lengths are {lengths.min():.3f} … {lengths.max():.3f}"
        )

    def _legal(self, name: str, sids: np.ndarray, count: int) -> None:
        shaped(name, sids, (count, len(self._learner.levels)), np.int32)
        assert (sids >= 0).all() and (sids < np.array(self._learner.levels)).all(), (
            f"{name}: a code is out of its level"
        )
