from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.training.pairs import split_queries
from onesearch_khqe.samples import Pairs, pseudo_queries, split_pairs

ROWS = [
    # query, item, clicks, orders, impressions, grade, weight
    ("lamp", 0, 1, 1, 5, None, 3.0),
    ("lamp", 1, 1, 0, 5, None, 1.0),
    ("lamp", 2, 0, 0, 5, None, 0.0),
    ("red lamp", 0, 0, 0, 0, 1.0, 1.0),
    ("red lamp", 3, 0, 0, 0, 0.3, 0.0),
    ("rug", 4, 2, 0, 9, None, 2.0),
]
NAMES = ["query", "item", "clicks", "orders", "impressions", "grade", "weight"]
FRAME = pl.DataFrame(ROWS, schema=NAMES, orient="row").with_columns(pl.col("item").cast(pl.Int32))
NUMBER = {"lamp": 0, "red lamp": 1, "rug": 2}


def test_every_partner_is_what_it_says() -> None:
    pairs = Pairs(FRAME, NUMBER)
    rng = np.random.default_rng(0)
    assert {(int(pairs.query[at]), int(pairs.item[at])) for at in pairs.positive} == {
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 4),
    }
    seen: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for _ in range(60):
        batch = pairs.batch(pairs.positive, rng)
        for row in zip(
            batch.query,
            batch.item,
            batch.other_query,
            batch.other_item,
            batch.worse,
            batch.steps,
            strict=True,
        ):
            seen.setdefault((int(row[0]), int(row[1])), set()).add(tuple(int(value) for value in row[2:]))
    # Ordered item 0: the other query of it, the other positive of "lamp", and what is one or two steps worse.
    assert {row[0] for row in seen[0, 0]} == {-1, 1} and {row[1] for row in seen[0, 0]} == {-1, 1}
    assert {row[2:] for row in seen[0, 0]} == {(1, 1), (2, 2)}
    assert {row[2:] for row in seen[0, 1]} == {(2, 1)}
    assert {row[2:] for row in seen[1, 0]} == {(3, 1)}, "judged relevant counts as clicked"
    assert seen[2, 4] == {(-1, -1, -1, 0)}


def test_grades() -> None:
    pairs = Pairs(FRAME, NUMBER)
    rows = pairs.positive[pairs.query[pairs.positive] == 1]
    batch = pairs.batch(rows, np.random.default_rng(0))
    assert batch.grade.tolist() == [1.0] and batch.worse_grade.tolist() == pytest.approx([0.3])
    assert np.isnan(pairs.batch(pairs.positive[:1], np.random.default_rng(0)).grade).all()


def test_a_pass_sees_every_positive_once_or_draws_by_weight() -> None:
    pairs = Pairs(FRAME, NUMBER)
    rows = np.concatenate(pairs.epoch(2, 100, np.random.default_rng(0)))
    assert sorted(rows.tolist()) == sorted(pairs.positive.tolist())
    drawn = np.concatenate(
        [row for seed in range(300) for row in pairs.epoch(1, 2, np.random.default_rng(seed))]
    )
    share = (pairs.item[drawn] == 4).mean()
    root = np.sqrt([3, 1, 1, 2])
    assert share == pytest.approx(root[3] / root.sum(), abs=0.06)


def test_no_pairs() -> None:
    pairs = Pairs(FRAME.clear(), {})
    assert len(pairs) == 0 and pairs.epoch(4, 4, np.random.default_rng(0)) == []
    assert len(pairs.batch(np.zeros(0, np.int64), np.random.default_rng(0)).query) == 0


def test_held_out_queries_are_those_of_all_stages() -> None:
    names = [f"query {number}" for number in range(300)]
    frame = pl.DataFrame({"query": [name for name in names for _ in range(2)], "item": list(range(600))})
    learn, held_out = split_pairs(frame, 0.1)
    assert set(held_out["query"]) == {
        name for name, out in zip(names, split_queries(names), strict=True) if out
    }
    assert not set(learn["query"]) & set(held_out["query"]) and len(learn) + len(held_out) == 600


@settings(max_examples=40)
@given(st.lists(st.text(alphabet="ab 皮衣x", max_size=20), min_size=1, max_size=5), st.integers(0, 99))
def test_pseudo_queries_are_cut_from_their_titles(titles: list[str], seed: int) -> None:
    texts, items = pseudo_queries(titles, 20, np.random.default_rng(seed))
    assert len(texts) == len(items)
    for text, item in zip(texts, items.tolist(), strict=True):
        assert 1 <= len(text.split()) <= 4
        assert all(word in titles[item] for word in text.split())


def test_pseudo_queries_of_a_title_without_spaces() -> None:
    texts, _ = pseudo_queries(["高级静奢风法式长款遮肉显瘦进口貂皮大衣"], 50, np.random.default_rng(0))
    assert max(len(text) for text in texts) <= 6 * 4 + 3 and len(set(texts)) > 10
    assert pseudo_queries([], 5, np.random.default_rng(0))[0] == []
