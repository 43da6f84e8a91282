from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onesearch.contracts import Candidates, SearchResult, ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.index import Filters
from onesearch.serving import steps
from onesearch.serving.pipeline import Pipeline, SearchRequest


def test_search_returns_ranked_items_of_the_catalogue(pipeline: Pipeline) -> None:
    answer = pipeline.search(SearchRequest("red oak lamp", k=5))
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
    assert answer.release == "toy" and answer.generation == 7 and not answer.degraded
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    index = pipeline.context.index
    for hit in answer.hits:
        number = index.number(hit.item_id)
        assert number is not None and tuple(index.sids[number]) == hit.sid
        assert hit.title == index.items["title"][number]
        assert hit.score == pytest.approx(sum(hit.parts.values()), abs=1e-4)


def test_pages_follow_each_other(pipeline: Pipeline) -> None:
    whole = pipeline.search(SearchRequest("glass table", k=12)).hits
    pages = [pipeline.search(SearchRequest("glass table", k=4, offset=at)).hits for at in (0, 4, 8)]
    assert [hit for page in pages for hit in page] == list(whole)


def test_a_page_past_the_end_is_empty(pipeline: Pipeline) -> None:
    assert pipeline.search(SearchRequest("lamp", k=10, offset=900, beams=1)).hits == ()


def test_filters_prune_the_search_itself(pipeline: Pipeline) -> None:
    filters = Filters(category=("rug",), max_price=60.0, in_stock=True)
    answer = pipeline.search(SearchRequest("white wool rug", k=100, filters=filters))
    passing = {
        pipeline.context.index.items["item_id"][int(at)]
        for at in np.flatnonzero(pipeline.context.index.passing(filters))
    }
    assert answer.hits and {hit.item_id for hit in answer.hits} <= passing
    assert all(hit.in_stock and hit.price is not None and hit.price <= 60 for hit in answer.hits)


def test_the_reward_reorders_but_never_adds(pipeline: Pipeline) -> None:
    reranked = pipeline.search(SearchRequest("black steel desk", k=1000))
    plain = pipeline.search(SearchRequest("black steel desk", k=1000, rerank=False))
    assert {hit.item_id for hit in reranked.hits} == {hit.item_id for hit in plain.hits}
    assert [hit.item_id for hit in reranked.hits] != [hit.item_id for hit in plain.hits]
    assert all(hit.parts == {"log_prob": pytest.approx(hit.log_prob)} for hit in plain.hits)


def test_explanation(pipeline: Pipeline) -> None:
    told = pipeline.search(SearchRequest("red lamp", explain=True, beams=4)).explanation
    assert told is not None
    assert [word.text for word in told.keywords] == ["red", "lamp"]
    assert len(told.query_sid) == len(told.meanings) == len(told.branches) == 3
    assert told.found == len(told.beams) == 4
    assert [log_prob for _, log_prob in told.beams] == sorted((p for _, p in told.beams), reverse=True)
    wide = pipeline.search(SearchRequest("red lamp", explain=True, beams=1000)).explanation
    assert wide is not None and wide.missing == 0 and wide.exact == wide.found and wide.dropped == -np.inf
    assert pipeline.search(SearchRequest("red lamp")).explanation is None


def test_a_search_widens_until_the_best_are_proven(pipeline: Pipeline) -> None:
    request = SearchRequest("red lamp", explain=True, k=3, rerank=False)
    wide = pipeline.search(replace(request, beams=64)).explanation
    sure = pipeline.search(replace(request, beams=64, certify=3)).explanation
    narrow = pipeline.search(replace(request, beams=64, certify=1)).explanation
    assert wide is not None and sure is not None and narrow is not None
    assert wide.width == 64 and narrow.width <= sure.width < 64
    assert sure.exact >= 3 and sure.beams[:3] == wide.beams[:3]
    pipeline.certify = 3
    try:
        assert pipeline.search(replace(request, beams=64)).explanation == sure
        assert pipeline.search(replace(request, beams=64, certify=0)).explanation == wide
    finally:
        pipeline.certify = 0


def test_exact_beams_agree_with_wider_ones(pipeline: Pipeline) -> None:
    narrow = pipeline.search(SearchRequest("blue glass mirror", explain=True, beams=24)).explanation
    wide = pipeline.search(SearchRequest("blue glass mirror", explain=True, beams=1000)).explanation
    assert narrow is not None and wide is not None
    assert narrow.exact > 0
    top = min(narrow.exact, 10)
    assert [sid for sid, _ in narrow.beams[:top]] == [sid for sid, _ in wide.beams[:top]]


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (SearchRequest(""), "query: empty"),
        (SearchRequest(" \t\n "), "query: empty"),
        (SearchRequest("x" * 100_000), "query: longer"),
        (SearchRequest("语" * 2_000), "query: longer"),
        (SearchRequest("a\x00b"), "U+0000 at position 1"),
        (SearchRequest("a\x1b[31m"), "U+001B"),
        (SearchRequest("lamp", k=0), "k: 0"),
        (SearchRequest("lamp", k=10_000), "k: 10000"),
        (SearchRequest("lamp", offset=-1), "offset: -1"),
        (SearchRequest("lamp", k=10, offset=995), "offset: 995"),
        (SearchRequest("lamp", beams=0), "beams: 0"),
        (SearchRequest("lamp", guide="mystery"), "guide: 'mystery'"),  # type: ignore[arg-type]
        (SearchRequest("lamp", filters=Filters(min_price=9, max_price=1)), "above max_price"),
        (SearchRequest("lamp", filters=Filters(max_price=float("nan"))), "max_price"),
        (SearchRequest("lamp", filters=Filters(brands=("x",) * 100)), "filters.brands"),
        (SearchRequest("lamp", user_id="u" * 1000), "user_id"),
    ],
)
def test_requests_out_of_bounds_are_refused_by_name(
    pipeline: Pipeline, request_: SearchRequest, names: str
) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline.search(request_)
    assert names in str(caught.value) and len(str(caught.value)) < 200


def test_requests_of_different_options_are_searched_apart_and_put_back_in_order(pipeline: Pipeline) -> None:
    queries = ["red lamp", "wool rug", "oak desk"]
    vectors, sids = steps.encode(pipeline.tokenizer, queries)
    prompt = steps.prompt(pipeline.user_encoder, [ShopperState()] * 3, queries, sids)
    rugs = Filters(category=("rug",))
    options = [steps.SearchOptions(8), steps.SearchOptions(16, filters=rugs), steps.SearchOptions(8)]
    trees = steps.Trees(pipeline.context.index)
    result, candidates = steps.retrieve(pipeline.generator, trees, prompt, vectors, options)
    assert result.leaves.shape[0] == candidates.items.shape[0] == 3
    for row, (query, option) in enumerate(zip(queries, options, strict=True)):
        alone = pipeline.candidates([query], beams=option.beams, filters=option.filters)
        width = alone.candidates.items.shape[1]
        np.testing.assert_array_equal(candidates.items[row, :width], alone.candidates.items[0])
        assert (candidates.items[row, width:] == -1).all()
        np.testing.assert_allclose(result.dropped_mass[row], alone.result.dropped_mass[0])


def test_narrowed_trees_are_kept_and_forgotten(pipeline: Pipeline) -> None:
    trees = steps.Trees(pipeline.context.index, keep=2)
    first = trees.of(Filters(brands=("Brand1",)))
    assert trees.of(Filters(brands=("Brand1",))) is first
    trees.of(Filters(brands=("Brand2",)))
    trees.of(Filters(brands=("Brand3",)))
    assert trees.of(Filters(brands=("Brand1",))) is not first
    assert trees.of(Filters()) is pipeline.context.index.live


def test_a_reward_of_the_wrong_shape_is_named(pipeline: Pipeline) -> None:
    class Wrong(type(pipeline.reward)):  # type: ignore[misc]
        def score(self, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((1, 3)), np.zeros((1, 3, 2))

    candidates = Candidates(np.zeros((1, 5), np.int32), np.zeros((1, 5), np.float32))
    with pytest.raises(ServingError, match=r"reward Wrong: totals \(1, 3\)"):
        steps.rank(Wrong(pipeline.context), ["q"], np.zeros((1, 16)), [], candidates)


def test_rank_keeps_padding_last_and_ties_in_the_generators_order() -> None:
    items = np.array([[4, 2, 9, -1]], np.int32)
    candidates = Candidates(items, np.array([[-1.0, -2.0, -2.0, 5.0]], np.float32))
    ranked = steps.rank(None, ["q"], np.zeros((1, 2)), [], candidates)
    assert ranked.order.tolist() == [[0, 1, 2, 3]] and ranked.totals[0, 3] == -np.inf
    assert steps.page(ranked, candidates, 0, 10, 1).tolist() == [1, 2]


def test_certificate_arithmetic() -> None:
    result = SearchResult(
        np.array([[0, 1, 2, -1]]), np.array([[-1.0, -2.0, -3.0, -np.inf]]),
        np.array([-2.0]), np.array([-1.0]), np.zeros((1, 3), int),
    )  # fmt: skip
    assert steps.exact_count(result).tolist() == [2]
    assert steps.exact_count(replace(result, dropped=np.array([-np.inf]))).tolist() == [3]
    log_probs = np.array([-1.0, -2.0, -np.inf])
    assert steps.missing_bound(-3.0, log_probs, 2) == 0  # e^(-1) of a SID
    assert steps.missing_bound(-1.0, log_probs, 2) == 2  # e^1
    assert steps.missing_bound(3.0, log_probs, 2) is None
    assert steps.missing_bound(-np.inf, log_probs, 2) == 0
