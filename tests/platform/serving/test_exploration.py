from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.serving.exploration import Exploration
from onesearch.serving.requests import Hit, SearchRequest


def hits(count: int) -> list[Hit]:
    return [
        Hit(rank, f"i{rank}", "", (), "", None, True, (), -float(rank), 0.0, {})
        for rank in range(1, count + 1)
    ]


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 10), st.integers(1, 12), st.floats(0.01, 0.5), st.text())
def test_a_page_is_whole_and_nothing_stands_twice(
    count: int, k: int, depth: int, share: float, request_id: str
) -> None:
    ranking = hits(count)
    page = Exploration(share, depth).draw(ranking, k, request_id)
    assert [hit.rank for hit in page] == list(range(1, min(k, count) + 1))
    assert len({hit.item_id for hit in page}) == len(page)
    below = ranking[k : k + depth]
    for place, hit in enumerate(page, 1):
        if hit.item_id == f"i{place}":
            free = place > len(page) - len(below)
            assert hit.propensity == (pytest.approx(1 - share) if free else 1.0)
        else:
            assert hit.item_id in {one.item_id for one in below}
            assert hit.propensity == pytest.approx(share / len(below))
            assert hit.score == -float(hit.item_id[1:])
    assert page == Exploration(share, depth).draw(ranking, k, request_id)


@pytest.mark.parametrize(("count", "k", "depth", "share"), [(14, 4, 8, 0.2), (7, 5, 50, 0.4)])
def test_propensities_are_the_frequencies(count: int, k: int, depth: int, share: float) -> None:
    """Every item at every place as often as its propensity says, or never where none was ever told."""
    trials, ranking, exploration = 6_000, hits(count), Exploration(share, depth)
    shown = np.zeros((k, count + 1))
    told: dict[tuple[int, int], float] = {}
    for trial in range(trials):
        for place, hit in enumerate(exploration.draw(ranking, k, f"request {trial}")):
            item = int(hit.item_id[1:])
            shown[place, item] += 1
            assert told.setdefault((place, item), hit.propensity) == hit.propensity
    for (place, item), propensity in told.items():
        spread = np.sqrt(trials * propensity * (1 - propensity))
        assert abs(shown[place, item] - trials * propensity) <= 4.5 * spread, (place, item)
    for place in range(k):
        assert sum(propensity for (at, _), propensity in told.items() if at == place) == pytest.approx(1)


def test_not_by_offset_nor_where_explained() -> None:
    some = Exploration(0.1, 20)
    assert some.applies(SearchRequest("q")) and some.widened(SearchRequest("q", k=10)).k == 30
    assert some.applies(SearchRequest("q", shown=bytes(8))) and not some.applies(
        SearchRequest("q", offset=10)
    )
    assert not some.applies(SearchRequest("q", explain=True))
    assert not Exploration().applies(SearchRequest("q"))
