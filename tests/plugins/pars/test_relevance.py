import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError, ConfigError, OneSearchError
from onesearch.index import CatalogueIndex
from onesearch.progress import SilentProgress
from onesearch.shoppers.tastes import Tastes
from onesearch.training.lists import RankedLists
from onesearch_pars.config import RelevanceConfig
from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, PARTS, FeatureMaker, Fields, categories_of
from onesearch_pars.learner import RelevanceLearner
from onesearch_pars.listwise import different
from onesearch_pars.plugin import reward
from onesearch_pars.server import RelevanceServer
from onesearch_pars.text import Analyser

Trained = tuple[Path, RankedLists, dict[str, Any]]
WORDS = [
    "red",
    "blue",
    "shirt",
    "trouser",
    "lamp",
    "bracket",
    "steel",
    "garden",
    "hose",
    "12",
    "ft",
    "裙子",
    "红色",
]
ITEMS, DIM, LISTS, WIDTH = 120, 8, 60, 30


def catalogue(seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    titles = [" ".join(rng.choice(WORDS, 4)) for _ in range(ITEMS)]
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "title": titles,
            "category": [["home"] if n % 2 else ["wear"] for n in range(ITEMS)],
            "brand": [None] * ITEMS,
            "price": [1.0] * ITEMS,
            "in_stock": [True] * ITEMS,
        },
        schema_overrides={"brand": pl.String},
    )
    return items, vectors.astype(np.float16)


def ranked_lists(folder: Path) -> RankedLists:
    """Lists whose good candidates hold every word of the query."""
    items, vectors = catalogue()
    rng = np.random.default_rng(1)
    queries = [" ".join(rng.choice(WORDS, 2, replace=False)) for _ in range(LISTS)]
    numbers = np.stack([rng.choice(ITEMS, WIDTH, replace=False) for _ in range(LISTS)]).astype(np.int32)
    numbers[:, -2:] = -1
    log_probs = -np.sort(rng.random((LISTS, WIDTH)).astype(np.float32), axis=1)
    log_probs[:, -2:] = -np.inf
    titles = items["title"].to_list()
    gain = np.array(
        [
            [n >= 0 and all(word in titles[n].split() for word in query.split()) for n in row]
            for query, row in zip(queries, numbers, strict=True)
        ],
        dtype=np.float32,
    )
    pairs = pl.DataFrame(
        {"query": ["red shirt", "red shirt"], "item": [3, 5], "weight": [4.0, 0.0]},
        schema={"query": pl.String, "item": pl.Int32, "weight": pl.Float32},
    )
    query_vecs = rng.normal(size=(LISTS, DIM)).astype(np.float32)
    popularity = np.ones(ITEMS, np.float32)
    found = Candidates(numbers, log_probs)
    return RankedLists(queries, query_vecs, found, gain, pairs, items, vectors, popularity, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("reward")
    lists = ranked_lists(folder)
    learner = RelevanceLearner(RelevanceConfig())
    figures = learner.fit(lists, folder, SilentProgress())
    learner.export(folder)
    return folder, lists, figures


def opened(folder: Path, items: int = ITEMS) -> RelevanceServer:
    frame, vectors = catalogue()
    index = CatalogueIndex.build(
        frame[:items], np.zeros((items, 2), np.int32), vectors[:items], np.ones(items), (1, 1)
    )
    unused: Any = None
    context = ServingContext(folder, vocabulary=unused, index=index, runtime=unused)
    return RelevanceServer.open(folder, context, RelevanceConfig())


def test_fitting_learns_what_makes_candidates_good(trained: Trained) -> None:
    _, _, figures = trained
    assert figures["loss"] < figures["loss_default"]
    assert figures["recall_10"] > 0.95 > figures["recall_10_generator"]
    assert min(figures["weights"].values()) >= 0


def repeated(lists: RankedLists, rows: list[int], gain: np.ndarray | None = None) -> RankedLists:
    found = Candidates(lists.candidates.items[rows], lists.candidates.log_probs[rows])
    return replace(
        lists,
        queries=[lists.queries[row] for row in rows],
        query_vecs=lists.query_vecs[rows],
        candidates=found,
        gain=lists.gain[rows] if gain is None else gain,
        states=(),
    )


def test_equal_lists_are_fitted_once_and_shoppers_who_chose_otherwise_are_heard(tmp_path: Path) -> None:
    lists = ranked_lists(tmp_path)
    good = [row for row in range(LISTS) if lists.gain[row].sum() >= 2][:2]
    # Three equal lists of the first query, and one whose shopper chose one of the good items only.
    own = repeated(lists, [good[0]] * 4 + [good[1]])
    own.gain[3] = 0
    own.gain[3, np.flatnonzero(lists.gain[good[0]])[0]] = 1.0
    first, like, of_query = different(own)
    times = np.bincount(like)
    assert all(own.queries[row] == own.queries[first[at]] for row, at in enumerate(like))
    order = np.argsort(first)
    assert first[order].tolist() == [0, 3, 4] and times[order].tolist() == [3, 1, 1]
    numbers = of_query[order].tolist()
    assert numbers[0] == numbers[1] != numbers[2], "lists of a query are judged by others' alone"
    figures = RelevanceLearner(RelevanceConfig()).fit(own, tmp_path, SilentProgress())
    assert figures["lists"] == 5 and np.isfinite(figures["loss"])
    nothing = different(repeated(lists, []))
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_parts_sum_to_totals_and_padding_is_last(trained: Trained) -> None:
    folder, lists, _ = trained
    server = opened(folder)
    totals, parts = server.score(lists.queries, lists.query_vecs, [ShopperState()] * LISTS, lists.candidates)
    real = lists.candidates.items >= 0
    assert totals.shape == real.shape and parts.shape == (*real.shape, len(server.parts))
    assert totals.dtype == parts.dtype == np.float32
    np.testing.assert_allclose(parts.sum(-1)[real], totals[real], rtol=1e-5)
    assert np.isneginf(totals[~real]).all() and not parts[~real].any()
    assert server.parts == PARTS and set(PARTS) == {feature.part for feature in FEATURES}


def test_a_row_scores_the_same_alone_and_in_a_batch(
    trained: Trained,
) -> None:
    folder, lists, _ = trained
    server = opened(folder)
    together, _ = server.score(lists.queries, lists.query_vecs, [ShopperState()] * LISTS, lists.candidates)
    found = Candidates(lists.candidates.items[7:8], lists.candidates.log_probs[7:8])
    alone, _ = server.score(lists.queries[7:8], lists.query_vecs[7:8], [ShopperState()], found)
    np.testing.assert_allclose(alone[0], together[7], rtol=1e-5)


def test_logged_evidence_lifts_the_item_that_was_bought(
    trained: Trained,
) -> None:
    folder, _, _ = trained
    found = Candidates(np.array([[3, 5]], np.int32), np.zeros((1, 2), np.float32))
    _, parts = opened(folder).score(["  Red SHIRT"], np.zeros((1, DIM), np.float32), [ShopperState()], found)
    evidence = parts[0, :, PARTS.index("evidence")]
    assert evidence[0] == pytest.approx(np.log1p(4.0) + 1.0, rel=1e-3) and evidence[1] == 0


def test_learner_round_trip(trained: Trained, tmp_path: Path) -> None:
    folder, _, _ = trained
    RelevanceLearner.load(folder, RelevanceConfig()).save(tmp_path)
    for name in ("relevance.json", "relevance.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["relevance.json", "relevance.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_broken_artifact_is_named(trained: Trained, tmp_path: Path, name: str, damage: str) -> None:
    folder, _, _ = trained
    for file in ("relevance.json", "relevance.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage == "truncated":
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=name):
        opened(tmp_path)


def test_another_format_or_catalogue_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder, _, _ = trained
    with pytest.raises(ArtifactError, match=f"{ITEMS} items, the catalogue has 100"):
        opened(folder, items=100)
    (tmp_path / "relevance.safetensors").write_bytes((folder / "relevance.safetensors").read_bytes())
    about = json.loads((folder / "relevance.json").read_text())
    (tmp_path / "relevance.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(ArtifactError, match="format 99"):
        opened(tmp_path)


def test_saving_before_fitting_and_unknown_languages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OneSearchError, match="fitted"):
        RelevanceLearner(RelevanceConfig()).save(tmp_path)
    learner = RelevanceLearner(RelevanceConfig(language="klingon"))
    with pytest.raises(ConfigError, match="klingon"):
        learner.fit(ranked_lists(tmp_path), tmp_path, SilentProgress())


def test_the_offer_names_both_halves() -> None:
    offer, _ = reward()
    assert (offer.name, offer.learner_class(), offer.server_class()) == (
        "relevance",
        RelevanceLearner,
        RelevanceServer,
    )


def test_the_most_similar_vote_for_their_categories() -> None:
    """By hand: similarities 1, 1 and 0 vote e^0, e^0 and e^-20, so two kinds share all but nothing."""
    items = pl.DataFrame({"category": [["home", "desk", "oak"], ["home", "desk", "elm"], ["wear"], None]})
    assert categories_of(items).tolist() == [[2, 1], [1, 1], [3, 2], [0, 0]]
    assert categories_of(items.drop("category").with_columns(title=pl.lit("x"))).tolist() == [[0, 0]] * 4
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float16)
    empty = Fields.build(pl.DataFrame({"title": [""] * 4}), Analyser("english"), 0.5, 0.5)
    none = Evidence.build(pl.DataFrame(schema={"query": pl.String, "item": pl.Int32, "weight": pl.Float32}))
    ids = pl.DataFrame({"item_id": ["a", "b", "c", "d"]})
    maker = FeatureMaker(
        Analyser("english"), empty, none, Tastes.build(ids), vectors, np.ones(4), categories_of(items)
    )
    found = Candidates(np.array([[0, 1, 2, -1]], np.int32), np.zeros((1, 4), np.float32))
    made = maker.features(["desk"], np.array([[1.0, 0.0]], np.float32), [ShopperState()], found)[0]
    names = [feature.name for feature in FEATURES]
    assert made[:, names.index("kind_share")] == pytest.approx([0.5, 0.5, 0, 0], abs=1e-6)
    assert made[:, names.index("category_share")] == pytest.approx([1, 1, 0, 0], abs=1e-6)
    # Of an item that stands in no list the catalogue's most similar tell.
    alone = maker.relevant("desk", np.array([1.0, 0.0], np.float32), np.array([1, 3], np.int32))
    assert alone[:, -2:] == pytest.approx(np.array([[0.5, 1], [0, 0]]), abs=1e-6)
