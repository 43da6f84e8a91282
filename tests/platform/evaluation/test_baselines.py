import numpy as np
import pytest
from onesearch.config import TrainingConfig
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.baselines import HYBRID_WEIGHTS, Dense, Hybrid, Lexical, Parts, Popular
from onesearch.evaluation.cascade import Cascade
from onesearch.evaluation.known import Known
from onesearch.evaluation.systems import BASELINES, check_names
from onesearch.index import CatalogueIndex
from onesearch.progress import SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline

PROGRESS = SilentProgress()


@pytest.fixture(scope="module")
def parts(release: Release, store: Store) -> Parts:
    pipeline = Pipeline.of_release(release)
    return Parts(Known.of(store, pipeline.context.index, pipeline.tokenizer, TrainingConfig()))


def test_tuning_knows_nothing_of_the_held_out_searches(parts: Parts) -> None:
    tuning, counters = parts.known.tuning, parts.known.counters
    assert tuning.queries and all(len(truth.items) for truth in tuning.relevant)
    assert tuning.counters.popularity.sum() < counters.popularity.sum()
    everything = {query: known[1].sum() for query, known in counters.by_query.items()}
    for query, known in tuning.counters.by_query.items():
        assert known[1].sum() < everything[query]


def test_lexical_finds_what_holds_the_words(parts: Parts) -> None:
    found = Lexical(parts).rank("green sofa")
    words = [set(parts.known.texts[n].split()) for n in found]
    assert len(words) and all(held & {"green", "sofa"} for held in words)
    assert words[0] >= {"green", "sofa"}
    assert len(Lexical(parts).rank("xyzzy")) == 0


def test_dense_is_exact(parts: Parts) -> None:
    vector = parts.known.embed("red lamp")
    expected = np.argsort(-(parts.known.vectors @ vector), kind="stable")[:350]
    assert Dense(parts).rank("red lamp").tolist() == expected.tolist()


def test_hybrid_takes_the_best_of_its_weights(parts: Parts) -> None:
    hybrid = Hybrid(parts, PROGRESS)
    assert hybrid.tuned["weight"] in HYBRID_WEIGHTS and hybrid.tuned["searches"] == len(
        parts.known.tuning.queries
    )
    bm25 = parts.stemmed if hybrid.tuned["stemmed"] else parts.plain
    scores = parts.cosines("white desk") + hybrid.tuned["weight"] * bm25.scores("white desk")
    assert hybrid.rank("white desk").tolist() == np.argsort(-scores, kind="stable")[:350].tolist()


def test_popular_puts_the_most_bought_first(parts: Parts) -> None:
    items, weights = parts.known.counters.evidence("  RED lamp")
    found = Popular(parts).rank("red lamp")
    assert found[0] == items[np.argmax(weights)]
    assert set(found[: len(items)].tolist()) == set(items.tolist())
    unseen = Popular(parts).rank("oak")
    assert len(unseen) and all("oak" in parts.known.texts[n] for n in unseen)


def test_cascade_learns_from_the_counters(parts: Parts) -> None:
    cascade = Cascade(parts, PROGRESS)
    assert cascade.tuned["searches"] >= 10 and cascade.tuned["rounds"] >= 1
    first = [cascade.rank(query)[0] for query in parts.known.tuning.queries]
    best = []
    for query in parts.known.tuning.queries:
        items, weights = parts.known.counters.evidence(query)
        best.append(items[np.argmax(weights)])
    assert np.mean(np.array(first) == np.array(best)) > 0.5
    found = cascade.rank("blue chair")
    assert len(set(found.tolist())) == len(found) <= 350


def test_another_catalogue_is_refused(release: Release, store: Store) -> None:
    pipeline = Pipeline.of_release(release)
    index = pipeline.context.index
    arrays = (array[1:] for array in (index.sids, index.vectors, index.popularity))
    fewer = CatalogueIndex.build(index.items[1:], *arrays, levels=(16, 8, 8))
    with pytest.raises(UsageError, match="catalogue"):
        Known.of(store, fewer, pipeline.tokenizer, TrainingConfig())


def test_names_of_baselines() -> None:
    assert check_names(" bm25, dense,bm25") == ("bm25", "dense")
    assert check_names("") == ()
    with pytest.raises(UsageError, match=f"nonsense: known are {', '.join(BASELINES)}"):
        check_names("bm25,nonsense")
