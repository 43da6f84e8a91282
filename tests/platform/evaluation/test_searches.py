from pathlib import Path

import polars as pl
import pytest
from onesearch.errors import DataError, UsageError
from onesearch.evaluation.query_files import read_searches

IDS = ["10", "11", "12"]


def written(path: Path, columns: dict[str, list[object]]) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_homedepot_terms_with_positives(tmp_path: Path) -> None:
    file = written(
        tmp_path / "q.parquet",
        {
            "search_term": ["lamp", "lamp", "lamp", "rug"],
            "product_uid": [10, 11, 12, 10],
            "relevance": [3.0, 2.33, 2.0, 1.0],
        },
    )
    found = read_searches(file, "homedepot", IDS)
    assert found.queries == ["lamp"] and found.skipped == 1 and found.missing == 0
    assert found.relevant[0].items.tolist() == [0, 1]
    assert found.relevant[0].grades.tolist() == pytest.approx([1.0, 0.665])


def test_a_relevance_of_2_33_in_single_precision_counts(tmp_path: Path) -> None:
    frame = pl.DataFrame({"search_term": ["a"], "product_uid": ["10"], "relevance": [2.33]})
    frame.with_columns(pl.col("relevance").cast(pl.Float32)).write_parquet(tmp_path / "q.parquet")
    assert len(read_searches(tmp_path / "q.parquet", "homedepot", IDS)) == 1


def test_every_hm_row_is_a_search(tmp_path: Path) -> None:
    file = written(
        tmp_path / "q.parquet",
        {
            "day": ["2020-09-22"] * 4,
            "user_id": [1, 1, 2, None],
            "query": ["dress", "dress", "sock", "hat"],
            "article_id": ["10", "10", "12", "99"],
        },
    )
    found = read_searches(file, "hm", IDS)
    assert found.queries == ["dress", "dress", "sock", "hat"] and found.user_ids == ["1", "1", "2", ""]
    assert [truth.items.tolist() for truth in found.relevant[:3]] == [[0], [0], [2]]
    assert found.missing == 1 and found.relevant[3].items[0] < -1


def test_parquet_with_and_without_grades(tmp_path: Path) -> None:
    plain = written(tmp_path / "p.parquet", {"query": ["a", "a"], "item_id": ["11", "10"]})
    assert read_searches(plain, "parquet", IDS).relevant[0].items.tolist() == [1, 0]
    graded = written(
        tmp_path / "g.parquet",
        {
            "query": ["a", "a", "a", "b"],
            "item_id": ["11", "11", "10", "10"],
            "grade": [0.5, 0.25, 0.0, 0.0],
        },
    )
    found = read_searches(graded, "parquet", IDS)
    assert found.queries == ["a"] and found.skipped == 1
    assert found.relevant[0].items.tolist() == [1] and found.relevant[0].grades.tolist() == [0.5]


def test_a_sample_is_seeded(tmp_path: Path) -> None:
    rows = {"query": [f"q{n}" for n in range(50)], "item_id": ["10"] * 50}
    file = written(tmp_path / "q.parquet", rows)
    first = read_searches(file, "parquet", IDS, sample=7, seed=1)
    assert len(first) == 7 and first.queries == sorted(first.queries, key=rows["query"].index)
    assert read_searches(file, "parquet", IDS, sample=7, seed=1).queries == first.queries
    assert read_searches(file, "parquet", IDS, sample=7, seed=2).queries != first.queries
    assert len(read_searches(file, "parquet", IDS, sample=500)) == 50


@pytest.mark.parametrize(
    ("form", "columns", "told"),
    [
        ("homedepot", {"search_term": ["a"], "relevance": [3.0]}, "'product_uid' is missing"),
        (
            "homedepot",
            {"search_term": ["a", "b"], "product_uid": [1, 2], "relevance": [3.0, 4.0]},
            "row 2, column 'relevance': 4.0",
        ),
        ("hm", {"query": ["a", " "], "article_id": ["1", "2"], "user_id": [1, 2]}, "row 2, column 'query'"),
        ("parquet", {"query": ["a"], "item_id": [None]}, "row 1, column 'item_id'"),
        ("parquet", {"query": ["a"], "item_id": ["1"], "grade": ["much"]}, "another type"),
        ("parquet", {"query": ["a"], "item_id": ["1"], "grade": [-0.5]}, "between 0 and 1"),
    ],
)
def test_bad_files_are_told_by_row_and_column(
    tmp_path: Path, form: str, columns: dict[str, list[object]], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        read_searches(written(tmp_path / "q.parquet", columns), form, IDS)


def test_no_file_no_parquet_no_format_nothing_relevant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_searches(tmp_path / "none.parquet", "hm", IDS)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_searches(tmp_path / "broken.parquet", "hm", IDS)
    file = written(tmp_path / "q.parquet", {"query": ["a"], "item_id": ["10"], "grade": [0.0]})
    with pytest.raises(UsageError, match="homedepot, hm, parquet"):
        read_searches(file, "csv", IDS)
    with pytest.raises(UsageError, match="no search has a relevant item"):
        read_searches(file, "parquet", IDS)
    with pytest.raises(UsageError, match="--sample 0"):
        read_searches(file, "parquet", IDS, sample=0)
