from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from onesearch.data.store import Store
from onesearch.training import sft
from onesearch.training.corpus import Corpus, _legal_leaves, _sample
from onesearch.training.examples import Examples, Ragged
from onesearch.training.pairs import split_queries
from onesearch.training.split import split_logs
from onesearch.vocabulary import CATEGORY, EOS, ITEM, MASK, QUERY, SEP


@pytest.fixture
def corpus(logged: Store, corpus_of, tmp_path) -> Corpus:
    return corpus_of(logged, tmp_path)


@pytest.fixture
def judged_corpus(judged: Store, corpus_of, tmp_path) -> Corpus:
    return corpus_of(judged, tmp_path)


def contains(rows: Ragged, wanted: list[int]) -> list[bool]:
    text = "," + ",".join(map(str, wanted)) + ","
    return [text in "," + ",".join(map(str, rows.row(at).tolist())) + "," for at in range(len(rows))]


@pytest.mark.parametrize("stage", [sft.alignment, sft.cooccurrence])
@pytest.mark.parametrize("which", ["corpus", "judged_corpus"])
def test_held_out_queries_are_never_learnt_from(stage, which: str, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(which)
    hidden = [query for query, out in zip(corpus.queries, corpus.held_out, strict=True) if out]
    assert 0 < len(hidden) < len(corpus.queries)
    assert which == "corpus" or split_queries(hidden, 0.2).all()
    examples: Examples = stage(corpus)
    tokens = corpus.vocabulary.text_ids(hidden, 40)
    for task in examples.sid_tasks:
        trained = np.flatnonzero(~task.held_out)
        prompts = task.prompts.take(trained)
        for query, ids in zip(hidden, tokens, strict=True):
            served = [QUERY, *ids, SEP]
            for lead in (served, [MASK, QUERY, QUERY, *ids]):
                found = np.array(contains(prompts, lead), bool)
                whole = [len(prompts.row(at)) <= len(lead) + 3 for at in np.flatnonzero(found)]
                assert not any(whole), (task.name, query)
    for text_task in examples.text_tasks:
        for ids in tokens:
            for at in range(len(text_task.targets)):
                assert text_task.targets.row(at).tolist() != [*ids, EOS], text_task.name
                assert text_task.prompts.row(at).tolist()[3:] != ids, text_task.name


def test_pairs_of_the_held_out_slice_are_never_learnt_from(logged: Store, corpus: Corpus) -> None:
    made = split_logs(logged, 0.2, 0.66, 14.0)
    assert made.kind == "time"
    known = set(made.trained.filter(pl.col("weight") > 0).select("query", "item").rows())
    served = next(task for task in sft.cooccurrence(corpus).sid_tasks if task.name == sft.SERVED_TASK)
    leaves = {(query, int(corpus.item_leaf[item])) for query, item in known}
    learnt = np.flatnonzero(~served.held_out)
    assert {(corpus.queries[served.vector[at]], int(served.leaf[at])) for at in learnt} == leaves
    assert served.held_out.sum() >= len(made.held_out)


def test_served_prompts_are_the_user_encoders(corpus: Corpus) -> None:
    served = next(task for task in sft.cooccurrence(corpus).sid_tasks if task.name == sft.SERVED_TASK)
    others = [
        task
        for task in sft.cooccurrence(corpus).sid_tasks
        if task.name not in (sft.SERVED_TASK, sft.PSEUDO_TASK)
    ]
    assert {int(served.prompts.row(at)[0]) for at in range(len(served.prompts))} == {QUERY}
    assert {int(task.prompts.row(at)[0]) for task in others for at in range(len(task.prompts))} == {MASK}
    at = 0
    query = corpus.queries[int(served.vector[at])]
    row = served.prompts.row(at).tolist()
    assert row[: 1 + len(corpus.vocabulary.text_ids([query], 16)[0])] == [
        QUERY,
        *corpus.vocabulary.text_ids([query], 16)[0],
    ]


def test_stages_have_their_tasks(corpus: Corpus) -> None:
    one, two = sft.alignment(corpus), sft.cooccurrence(corpus)
    assert [task.name for task in (*one.sid_tasks, *one.text_tasks)] == [
        "query text → item SID", "pseudo-query → item SID", "query text → SID", "item text → SID",
        "SID → query text", "SID → item text", "query text → category", "item text → category",
    ]  # fmt: skip
    assert [task.name for task in (*two.sid_tasks, *two.text_tasks)] == [
        "query text → item SID", "pseudo-query → item SID", "item text → query SID", "query SID → item SID",
        "item SID → query SID", "query text → item text", "item text → query text",
    ]  # fmt: skip
    assert one.share["query text → item SID"] == 0 and one.sid_tasks[0].held_out.all()
    for examples in (one, two):
        assert sum(examples.share.values()) == pytest.approx(1)
        for task in examples.sid_tasks:
            count = len(task.prompts)
            assert {len(task.vector), len(task.leaf), len(task.weight), len(task.held_out)} == {count}
            assert (task.leaf >= 0).all() and (task.leaf < examples.tree.tree.leaf_count).all()
            assert (task.vector < len(examples.vectors)).all()


def test_a_catalogue_without_categories_has_no_category_tasks(judged: Store, corpus_of, tmp_path) -> None:
    corpus = corpus_of(judged, tmp_path)
    bare = replace(corpus, items=corpus.items.with_columns(category=pl.lit([], pl.List(pl.String))))
    names = [task.name for task in sft.alignment(bare).text_tasks]
    assert names == ["SID → query text", "SID → item text"]


def test_golden_examples_of_one_item(corpus: Corpus) -> None:
    examples = sft.alignment(corpus)
    by_name = {task.name: task for task in (*examples.sid_tasks, *examples.text_tasks)}
    title = corpus.items["title"][0]
    category = " > ".join(corpus.items["category"][0])
    text = by_name["item text → category"].prompts.row(0).tolist()
    assert text[:3] == [MASK, CATEGORY, ITEM]
    assert corpus.vocabulary.text_of(text).startswith(title)
    target = by_name["item text → category"].targets.row(0).tolist()
    assert corpus.vocabulary.text_of(target) == category and target[-1] == EOS
    sid = corpus.vocabulary.sid_ids(corpus.index.sids[0]).tolist()
    assert by_name["SID → item text"].prompts.row(0).tolist() == [MASK, ITEM, ITEM, *sid]
    leaf = by_name["item text → SID"].leaf[0]
    assert examples.tree.tree.leaf_sids()[leaf].tolist() == corpus.index.sids[0].tolist()
    assert examples.vectors[by_name["item text → SID"].vector[0]].tolist() == corpus.index.vectors[0].tolist()


def test_heavy_pairs_are_repeated_not_weighed(corpus: Corpus) -> None:
    pairs = pl.DataFrame({"query": [0, 1, 2], "item": [5, 6, 7], "weight": [1.0, 1.0, 9.0]})
    pairs = pairs.with_columns(held_out=pl.Series([False, True, False]))
    query, item, weight, held_out = sft._pairs(replace(corpus, pairs=pairs))
    assert query.tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert item.tolist() == [5, 6, 7, 7, 7, 7, 7]
    assert held_out.tolist() == [False, True, *[False] * 5]
    assert weight.tolist() == pytest.approx([1, 1, *[1.8] * 5])


def test_illegal_sids_go_to_the_nearest_item(corpus: Corpus) -> None:
    index = corpus.index
    tree = index.live.tree
    legal = index.sids[:3]
    missing = np.array([[15, 7, 7]])
    while tree.find_leaves(missing)[0] >= 0:
        missing -= 1
    vectors = index.vectors[[0, 1, 2, 40]].astype(np.float32)
    leaves = _legal_leaves(index, np.concatenate([legal, missing]).astype(np.int32), vectors)
    assert leaves[:3].tolist() == tree.find_leaves(legal).tolist()
    assert leaves[3] == tree.find_leaves(index.sids[[40]])[0]


def test_a_sample_prefers_what_weighs() -> None:
    pairs = pl.DataFrame({"weight": [0.001] * 500 + [10.0] * 50})
    assert (_sample(pairs, 50, 0)["weight"] == 10.0).sum() >= 48


def test_taking_rows_of_ragged() -> None:
    rows = Ragged.of([[1], [], [2, 3, 4]])
    taken = rows.take(np.array([2, 1, 0, 2]))
    assert [taken.row(at).tolist() for at in range(4)] == [[2, 3, 4], [], [1], [2, 3, 4]]
    assert len(rows.take(np.zeros(0, int))) == 0
