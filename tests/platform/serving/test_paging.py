"""Pages: tokens, and that walking them is the one big answer, whatever happens between two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.catalogue.changes import Change
from onesearch.contracts import ShopperState
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.releases.release import Release
from onesearch.serving.paging import Page, digest, turned
from onesearch.serving.pipeline import Pipeline
from onesearch.serving.requests import Limits, SearchAnswer, SearchRequest
from onesearch.shoppers.state import Ring, item_key

LIMITS = Limits()


def _walk(pipeline: Pipeline, request: SearchRequest, states: list[ShopperState]) -> list[SearchAnswer]:
    """All pages, each by another state of the shopper in turn."""
    answers: list[SearchAnswer] = []
    token = ""
    while True:
        asked = replace(request, page_token=token)
        asked = turned(asked, LIMITS) if token else asked
        answer = pipeline.search(asked, states[len(answers) % len(states)])
        answers.append(answer)
        ids = [hit.item_id for hit in answer.hits]
        page = Page.after(asked, answer.release, answer.generation, ids, LIMITS)
        if page is None:
            return answers
        token = page.pack()


@pytest.mark.parametrize(
    "request_",
    [
        SearchRequest("red lamp", k=7),
        SearchRequest("lamp", k=1, beams=9),
        SearchRequest("oak desk", k=50, rerank=False),
        SearchRequest("wool rug", k=3, filters=Filters(category=("rug",), in_stock=True)),
        SearchRequest("a lamp", k=5, filters=Filters(brands=("nobody",))),
        SearchRequest("chair", k=400),
    ],
)
def test_walking_all_pages_is_the_one_big_answer(pipeline: Pipeline, request_: SearchRequest) -> None:
    whole = pipeline.search(replace(request_, k=1_000))
    pages = _walk(pipeline, request_, [ShopperState()])
    hits = [hit for page in pages for hit in page.hits]
    assert hits == list(whole.hits)
    assert all(len(page.hits) == request_.k for page in pages[:-1])


def test_a_shopper_who_clicks_between_pages_sees_everything_once(toy_release: Release) -> None:
    plain = Pipeline.of_release(toy_release)
    encoder = type(plain.user_encoder)(plain.context, (2, 256))  # type: ignore[call-arg]
    pipeline = Pipeline(plain.context, plain.tokenizer, encoder, plain.generator, plain.reward)
    keys = [np.array([item_key(f"i{at}") for at in range(low, low + 9)], np.uint64) for low in (0, 50, 200)]
    states = [
        ShopperState("ann", Ring(own, np.arange(9, dtype=np.uint32), np.zeros(9, np.uint8))) for own in keys
    ]
    request = SearchRequest("steel shelf", k=6, beams=400)
    rankings = [pipeline.search(replace(request, k=1_000), state) for state in states]
    assert len({tuple(hit.item_id for hit in one.hits) for one in rankings}) == 3
    hits = [hit for page in _walk(pipeline, request, states) for hit in page.hits]
    ids = [hit.item_id for hit in hits]
    assert len(set(ids)) == len(ids) and set(ids) == {hit.item_id for hit in rankings[0].hits}
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_pages_end_at_the_most_that_may_be_asked(pipeline: Pipeline) -> None:
    request, limits = SearchRequest("lamp", k=10), Limits(k=25)
    first = Page.after(request, "toy", 7, [f"i{at}" for at in range(10)], limits)
    assert first is not None
    second = turned(replace(request, page_token=first.pack()), limits)
    assert second.before == 10
    page = Page.after(second, "toy", 7, [f"j{at}" for at in range(10)], limits)
    assert page is not None
    with pytest.raises(UsageError, match="k: 10 after 20 results leaves the first 25"):
        turned(replace(request, page_token=page.pack()), limits)
    last = turned(replace(request, k=5, page_token=page.pack()), limits)
    assert Page.after(last, "toy", 7, [f"k{at}" for at in range(5)], limits) is None
    assert Page.after(request, "toy", 7, ["i1"], limits) is None  # not a full page: there is no more


@given(
    st.text(max_size=20).filter(lambda name: len(name.encode()) < 256),
    st.integers(0, 2**62),
    st.binary(min_size=8, max_size=8),
    st.lists(st.binary(min_size=8, max_size=8), max_size=5),
)
def test_tokens_come_back_as_they_were(
    release: str, generation: int, asked: bytes, keys: list[bytes]
) -> None:
    page = Page(release, generation, asked, b"".join(keys))
    assert Page.unpack(page.pack()) == page


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="page_token: not the token of an earlier answer"):
        Page.unpack(token)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    request = SearchRequest("lamp", k=2)
    page = Page("toy", 7, digest(request), b"12345678")
    token = page.pack()
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    changed = token[:at] + other + token[at + 1 :]
    try:
        assert Page.unpack(changed) == page  # the last letter holds bits that say nothing
    except UsageError:
        assert changed != token


def test_a_token_belongs_to_its_request() -> None:
    request = SearchRequest("lamp", k=2)
    token = Page.after(request, "toy", 7, ["a", "b"], LIMITS).pack()  # type: ignore[union-attr]
    for other in (
        replace(request, query="desk"),
        replace(request, filters=Filters(in_stock=True)),
        replace(request, beams=3),
        replace(request, rerank=False),
    ):
        with pytest.raises(UsageError, match="page_token: of another request"):
            turned(replace(other, page_token=token), LIMITS)
    with pytest.raises(UsageError, match="offset: 3 beside a page_token"):
        turned(replace(request, offset=3, page_token=token), LIMITS)
    assert turned(replace(request, user_id="ann", k=9, page_token=token), LIMITS).before == 2


def test_pages_go_on_over_a_catalogue_that_moved_on(toy_release: Release, tmp_path: object) -> None:
    from pathlib import Path

    from onesearch.catalogue.applying import Applier

    old = Pipeline.of_release(toy_release)
    request = SearchRequest("purple lamp", k=5)
    first = old.search(request)
    ids = [hit.item_id for hit in first.hits]
    token = Page.after(request, first.release, first.generation, ids, LIMITS).pack()  # type: ignore[union-attr]
    applier = Applier(Path(str(tmp_path)), toy_release)
    gone = old.search(replace(request, k=6)).hits[5].item_id
    applier.accept([Change("new", title="purple lamp", category=("home", "lamp")), Change(gone, "withdraw")])
    new = old.renewed(toy_release, applier.index)
    second = new.search(turned(replace(request, page_token=token), LIMITS))
    assert second.generation == 8 and second.hits[0].item_id == "new"
    shown = {hit.item_id for hit in second.hits}
    assert not shown & {*ids, gone} and second.hits[0].rank == 6
