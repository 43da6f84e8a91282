from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.compiling.runtime import Runtime
from onesearch.config import Config, parse_config
from onesearch.contracts.offers import ROLES
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.index import ITEM_COLUMNS, CatalogueIndex
from onesearch.plugins import GROUP, Plugins, collect
from onesearch.progress import SilentProgress
from onesearch.releases.release import serving_context
from onesearch.training.corpus import Corpus
from onesearch.training.split import split_logs
from onesearch.vocabulary import Vocabulary

TESTS = Path(__file__).parents[2]
COLOURS = ("red", "blue", "green", "white", "black", "grey")
THINGS = ("lamp", "chair", "table", "rug", "shelf", "sofa", "desk", "mirror")
FIRST_DAY = datetime(2024, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Toy:
    """The toy parts as an installed distribution."""

    plugins: Plugins
    pythonpath: str

    def toml(self, **settings: object) -> str:
        lines = "".join(f"{key} = {str(value).lower()}\n" for key, value in settings.items())
        return (
            "[tracking]\nenabled = false\n\n"
            + "".join(f'[{role}]\nname = "toylearn"\n[{role}.toylearn]\n{lines}\n' for role in ROLES)
            + "[training]\nvocabulary_size = 600\nreward_beams = 16\nreward_queries = 200\n"
            + "judged_searches = 20\npreference_lists = 60\n"
            + ("" if settings.get("prefers") else "preference = []\n")
        )

    def config(self, extra: str = "", **settings: object) -> Config:
        return parse_config(self.toml(**settings) + extra, plugins=self.plugins)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": self.pythonpath, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("site")
    about = folder / "onesearch_toylearn-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: onesearch-toylearn\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[onesearch]\ntoylearn = onesearch_toylearn.plugin\n")
    added = [str(folder), str(TESTS / "toy"), str(Path(__file__).parent / "parts")]
    sys.path[:0] = added
    try:
        yield Toy(collect(entry_points(group=GROUP)), ":".join(added))
    finally:
        for path in added:
            sys.path.remove(path)


def catalogue(count: int) -> pl.DataFrame:
    """``count`` pieces of furniture; brands and colours as attributes."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(count):
        colour, thing = str(rng.choice(COLOURS)), str(rng.choice(THINGS))
        rows.append(
            {
                "item_id": f"i{number}",
                "title": f"{colour} {thing} number {number}",
                "category": ["home", thing],
                "attributes": [
                    {"type": "Brand", "value": f"Maker{number % 5}"},
                    {"type": "Color", "value": colour},
                    {"type": "Entity", "value": thing},
                ],
                "in_stock": True,
            }
        )
    return pl.DataFrame(rows)


def events(items: pl.DataFrame, days: int = 8, a_day: int = 150) -> pl.DataFrame:
    """Searches like "red lamp", nearly the same every day: impressions, clicks, and some orders."""
    rng = np.random.default_rng(7)
    groups = (
        items.select("item_id", pl.col("title").str.split(" ").list.slice(0, 2).list.join(" ").alias("query"))
        .group_by("query", maintain_order=True)
        .agg("item_id")
        .rows()
    )
    rows = []
    for day in range(days):
        for number in range(a_day):
            query, found = groups[int(rng.integers(len(groups)))]
            if day == days - 1 and number % 10 == 0:
                query = f"new {query}"
            moment = FIRST_DAY + timedelta(days=day, seconds=int(rng.integers(86_000)))
            item = found[int(min(rng.geometric(0.5) - 1, len(found) - 1))]
            for action in ("impression", "click", "order")[: 2 + int(rng.random() < 0.3)]:
                rows.append(
                    {
                        "event_id": f"{day}-{number}-{action}",
                        "ts": moment,
                        "user_id": f"u{number % 9}",
                        "scene": "search",
                        "query": query.upper() if number % 3 == 0 else query,
                        "item_id": item,
                        "action": action,
                    }
                )
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a log whose searches recur."""
    path = tmp_path_factory.mktemp("logged")
    items = catalogue(240)
    with StoreWriter(path, "test") as writer:
        writer.write("items", items)
        writer.write("interactions", events(items))
    return Store.open(path)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with judgements only: queries of one or two words of a title, three items each."""
    path = tmp_path_factory.mktemp("judged")
    items = catalogue(240)
    words = items["title"].str.split(" ").to_list()
    rng = np.random.default_rng(3)
    rows = []
    for number, title in enumerate(words):
        query = f"{title[0]} {title[1]} {title[3]}"
        rows.append({"query": query, "item_id": f"i{number}", "grade": 1.0})
        for other in rng.integers(240, size=2):
            if other != number:
                rows.append(
                    {"query": query, "item_id": f"i{other}", "grade": float(rng.choice([0.0, 0.5, 0.8]))}
                )
    with StoreWriter(path, "test") as writer:
        writer.write("items", items)
        writer.write("relevance", pl.DataFrame(rows).with_columns(pl.col("grade").cast(pl.Float32)))
    return Store.open(path)


@pytest.fixture
def corpus_of(toy: Toy) -> Callable[..., Corpus]:
    """The corpus of a store, by the toy parts."""
    from onesearch_toy.servers import LEVELS, ToyTokenizer, ToyUserEncoder, embed, quantise
    from onesearch_toylearn.learners import TokenizerLearner
    from onesearch_toylearn.plugin import ToyLearnConfig

    def build(store: Store, tmp_path: Path, share: float = 0.2) -> Corpus:
        items = store.items()
        vectors = embed(items["title"].to_list())
        shown = items.with_columns(brand=pl.lit(None, pl.String)).select(ITEM_COLUMNS)
        index = CatalogueIndex.build(shown, quantise(vectors), vectors, np.ones(len(items)), LEVELS)
        vocabulary = Vocabulary.train(items["title"].to_list(), LEVELS, 600)
        context = serving_context(tmp_path, vocabulary, index, Runtime())
        return Corpus.build(
            items, split_logs(store, share, 0.66, 14.0).positives(), index, vocabulary,
            TokenizerLearner(ToyLearnConfig()), ToyTokenizer(),
            ToyUserEncoder(context, (0, 0)), 2, 0, SilentProgress(),
        )  # fmt: skip

    return build
