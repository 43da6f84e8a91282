"""A tiny shop to check in: real store, vocabulary and index; embeddings and SIDs that need no learning."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.codebooks import Codebooks
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import Prompt, ShopperState
from onesearch.data.schemas import schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.index import CatalogueIndex
from onesearch.shoppers.log import EventLog
from onesearch.shoppers.state import Recent, Ring, item_keys
from onesearch.training.attribution import exposures
from onesearch.training.examples import Examples, Ragged, SidTask, TextTask
from onesearch.training.impressions import Impressions, impressions_of
from onesearch.training.lists import RankedLists
from onesearch.vocabulary import EOS, QUERY, SEP, Vocabulary, pad

COLOURS = ("red", "blue", "green", "white", "black", "红色", "蓝色")
MATERIALS = ("oak", "steel", "glass", "wool")
THINGS = ("lamp", "chair", "table", "rug", "shelf", "台灯", "椅子")
QUERIES = (*THINGS, *(f"{colour} {thing}" for colour in COLOURS for thing in THINGS))
LEVELS, DIM = (8, 8, 4, 4, 4), 24
ODD_TEXTS = (
    "",
    " ",
    "\x00\x07\u200b",
    "красная лампа",
    "🪑🛋️",
    "ﬁne Ⅳ ①",
    "a" * 20_000,
    "lamp\r\n\tred",
    "%s {} <pad> <a_3>",
)


@dataclass(frozen=True)
class World:
    """The shop, in a folder; opened again from the same folder it is the same."""

    folder: Path

    @cached_property
    def store(self) -> Store:
        """Catalogue, shoppers, a month of logs and some judgements."""
        path = self.folder / "store"
        if not path.exists():
            with StoreWriter(path, "conformance") as writer:
                writer.write("items", _items())
                writer.write("shoppers", pl.DataFrame({"user_id": [f"u{n}" for n in range(12)]}))
                writer.write("interactions", _interactions())
                writer.write("relevance", _relevance())
        return Store.open(path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Text tokens of titles and queries, and the codes of :data:`LEVELS`."""
        path = self.folder / "vocabulary"
        if not path.exists():
            Vocabulary.train([*self.titles, *QUERIES], LEVELS, 600).save(path)
        return Vocabulary.load(path)

    @cached_property
    def index(self) -> CatalogueIndex:
        """The catalogue with stand-in vectors and SIDs; some items share one."""
        brand = pl.col("attributes").list.eval(
            pl.element().struct.field("value").filter(pl.element().struct.field("type") == "Brand")
        )
        items = self.store.items().with_columns(brand=brand.list.first())
        vectors = embed(self.titles)
        return CatalogueIndex.build(items, quantise(vectors), vectors, self.popularity, LEVELS, generation=3)

    @cached_property
    def titles(self) -> list[str]:
        """Of all items."""
        return self.store.items()["title"].to_list()

    @cached_property
    def popularity(self) -> np.ndarray:
        """f32[N], positive."""
        return np.random.default_rng(5).integers(1, 40, len(self.titles)).astype(np.float32)

    def context(self) -> ServingContext:
        """What servers may use; no siblings: a component must serve on its own."""
        codebooks().save(self.folder / "index")
        context = ServingContext(self.folder, self.vocabulary, self.index, Runtime(threads=1))
        return replace(context, query_sids=lambda texts: quantise(embed(texts)))

    def prompt(self, texts: Sequence[str]) -> Prompt:
        """``<query> text <sep> SID``: what the plainest user encoder makes."""
        ids, mask = pad(self._prompt_rows(texts))
        return Prompt(ids, mask, np.zeros((len(texts), 0, 0), dtype=np.float32))

    def _prompt_rows(self, texts: Sequence[str]) -> list[list[int]]:
        sids = self.vocabulary.sid_ids(quantise(embed(texts))).tolist()
        words = self.vocabulary.text_ids(texts, 16)
        return [[QUERY, *text, SEP, *sid] for text, sid in zip(words, sids, strict=True)]

    def examples(self) -> Examples:
        """Query text → item SID and → item text, for the words that a title holds."""
        pairs = [(query, item) for query in QUERIES for item in _matches(query, self.titles)[:4]]
        queries = [query for query, _ in pairs]
        leaves = self.index.live.tree.find_leaves(self.index.sids[[item for _, item in pairs]])
        prompts = Ragged.of(self._prompt_rows(queries))
        number = {query: at for at, query in enumerate(QUERIES)}
        vector = np.array([number[query] for query in queries], dtype=np.int32)
        ones = np.ones(len(pairs), dtype=np.float32)
        texts = self.vocabulary.text_ids([self.titles[item] for _, item in pairs], 12)
        held_out = vector % 8 == 0
        to_sid = SidTask("query text → item SID", prompts, vector, leaves, ones, held_out)
        to_text = TextTask("query text → item text", prompts, Ragged.of([[*ids, EOS] for ids in texts]), ones)
        vectors = embed(QUERIES).astype(np.float16)
        return Examples(self.vocabulary, self.index.live, vectors, (to_sid,), (to_text,))

    def candidates(self, texts: Sequence[str], count: int = 24) -> Candidates:
        """The items nearest to each text, with some padding in every row but the first."""
        scores = embed(texts) @ self.index.vectors.astype(np.float32).T
        items = np.argsort(-scores, axis=1, kind="stable")[:, :count].astype(np.int32)
        log_probs = np.take_along_axis(scores, items, axis=1).astype(np.float32) - 1.0
        for row in range(1, len(texts)):
            items[row, count - row % count :] = -1
            log_probs[row, count - row % count :] = -np.inf
        return Candidates(items, log_probs)

    def lists(self) -> RankedLists:
        """Candidates of all queries; what holds the query's words is good."""
        found = self.candidates(QUERIES)
        gain = np.zeros(found.items.shape, dtype=np.float32)
        rows = []
        for row, query in enumerate(QUERIES):
            good = _matches(query, self.titles)
            gain[row] = np.isin(found.items[row], good)
            rows += [(query, item, 3, 1, 9, 1.0, 1.0) for item in good]
        columns = ("query", "item", "clicks", "orders", "impressions", "grade", "weight")
        pairs = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
            pl.col("item").cast(pl.Int32),
            pl.col("grade", "weight").cast(pl.Float32),
            last_ts=pl.lit(datetime(2026, 1, 31, tzinfo=UTC)),
        )
        return RankedLists(
            list(QUERIES), embed(QUERIES), found, gain, pairs, self.store.items(),
            self.index.vectors, self.popularity, {},
        )  # fmt: skip

    def impressions(self) -> Impressions:
        """The month's log as a reward reads it; its second half is fresh."""
        store = self.store
        return impressions_of(
            exposures(store.interactions()), store.items(), store.relevance().collect(), embed,
            EventLog.of_store(store).states_before, learnt_until=datetime(2026, 1, 1, 15, tzinfo=UTC),
        )  # fmt: skip

    def states(self, count: int) -> list[ShopperState]:
        """Shoppers known and unknown."""
        recent = Recent("lamp", int(self.ring([0]).items[0]), 1_767_222_000)
        known = ShopperState("u1", self.ring([0, 3, 5]), self.ring([3]), (recent,), (9, 3, 1))
        return [known if at % 2 else ShopperState() for at in range(count)]

    def ring(self, items: Sequence[int]) -> Ring:
        """A minute between two events. Numbers beyond the catalogue are items that it no longer has."""
        keys = item_keys([f"i{item}" for item in items])
        times = np.uint32(1_767_222_000) + 60 * np.arange(len(keys), dtype=np.uint32)
        return Ring(keys, times, np.zeros(len(keys), np.uint8))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors f32[B, DIM] from hashed words: texts that share words are near."""
    rows = np.full((len(texts), DIM), 1e-3, dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in set(text.split()):
            row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIM).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@cache
def codebooks() -> Codebooks:
    """Fixed random codes."""
    return Codebooks.of(
        [
            np.random.default_rng(level).normal(size=(size, DIM)) * 0.2 / (level + 1)
            for level, size in enumerate(LEVELS)
        ]
    )


def quantise(vectors: np.ndarray) -> np.ndarray:
    """SIDs i32[B, L]: the nearest of fixed random codes, level by level."""
    return codebooks().quantise(vectors)


def _matches(query: str, titles: Sequence[str]) -> list[int]:
    return [at for at, title in enumerate(titles) if set(query.split()) <= set(title.split())]


def _items() -> pl.DataFrame:
    names = [(c, m, t) for t in THINGS for m in MATERIALS for c in COLOURS]
    rows = [
        {
            "item_id": f"i{at}",
            "title": f"{colour} {material} {thing}",
            "category": ["home", thing],
            "attributes": [
                {"type": "Entity", "value": thing},
                {"type": "Color", "value": colour},
                {"type": "Material", "value": material},
                {"type": "Brand", "value": f"Brand{at % 5}"},
            ],
            "price": None if at % 11 == 0 else 5.0 + at,
            "detail_text": f"A {thing} made of {material}." if at % 2 else None,
            "in_stock": at % 9 != 0,
        }
        for at, (colour, material, thing) in enumerate(names)
    ]
    return pl.DataFrame(rows, schema={k: v for k, v in schema("items").items() if k in rows[0]})


def _interactions() -> pl.DataFrame:
    titles = _items()["title"].to_list()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[dict[str, object]] = []
    for at, query in enumerate(QUERIES * 3):
        good = _matches(query, titles)
        chosen = good[at % len(good)]
        for place, item in enumerate([chosen, (chosen + 7 * at + 1) % len(titles)]):
            for action in ("impression", "click", "order")[: 1 if place else 2 + at % 2]:
                rows.append(
                    {
                        "event_id": f"e{len(rows)}",
                        "ts": start + timedelta(minutes=11 * at, seconds=len(action)),
                        "user_id": f"u{at % 12}",
                        "session_id": f"s{at // 2}",
                        "request_id": f"r{at}",
                        "scene": "recommend" if at % 7 == 6 else "search",
                        "query": None if at % 7 == 6 else query,
                        "item_id": f"i{item}",
                        "action": action,
                        "position": place,
                    }
                )
    return pl.DataFrame(rows, schema={k: v for k, v in schema("interactions").items() if k in rows[0]})


def _relevance() -> pl.DataFrame:
    titles = _items()["title"].to_list()
    rows = [(query, f"i{item}", 1.0) for query in QUERIES[::3] for item in _matches(query, titles)[:3]]
    return pl.DataFrame(rows, schema=schema("relevance"), orient="row")
