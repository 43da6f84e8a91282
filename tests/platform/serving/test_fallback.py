from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.errors import ArtifactError
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.fallback import MostClicked, words, write_most_clicked


def _table(titles: list[str], popularity: list[float]) -> ItemTable:
    count = len(titles)
    items = pl.DataFrame(
        {
            "item_id": [f"i{at}" for at in range(count)],
            "title": titles,
            "category": [["x"]] * count,
            "brand": [""] * count,
            "price": [1.0] * count,
            "in_stock": [True] * count,
        }
    )
    return ItemTable(items, np.zeros((count, 2), np.int32), np.array(popularity, np.float32), 0)


TITLES = ["oak desk", "oak chair", "steel desk", "Oak Desk XL", "红色台灯", "蓝色台灯"]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    pairs = pl.DataFrame(
        {
            "query": ["oak desk", "oak desk", "oak desk", "lamp"],
            "item": [2, 0, 1, 4],
            "weight": [3.0, 1.0, 0.0, 1.0],
        },
        schema_overrides={"item": pl.Int32, "weight": pl.Float32},
    )
    write_most_clicked(pairs, tmp_path / "fallback")
    return tmp_path


def test_logged_items_come_first_then_those_that_share_words(release: Path) -> None:
    most = MostClicked.of_release(release, _table(TITLES, [1, 5, 1, 2, 1, 1]))
    # 2 and 0 by weight, then by shared words: both words before one, then the popular one; never twice.
    assert most.items("  OAK   desk ").tolist() == [2, 0, 3, 1]


def test_an_unseen_query_goes_by_rare_words_then_popularity(release: Path) -> None:
    most = MostClicked.of_release(release, _table(TITLES, [1, 5, 1, 2, 1, 1]))
    assert most.items("steel oak").tolist()[0] == 2
    assert most.items("desk").tolist() == [3, 0, 2]
    assert most.items("zzz").tolist() == []


def test_scripts_without_spaces_match_by_character(release: Path) -> None:
    most = MostClicked.of_release(release, _table(TITLES, [1] * 6))
    assert most.items("蓝灯").tolist() == [5, 4]
    assert words("红色LED台灯 20W") == ["红", "色", "led", "台", "灯", "20w"]


def test_filters_hold_for_the_fallback_too(release: Path) -> None:
    most = MostClicked.of_release(release, _table(TITLES, [1] * 6))
    passing = np.array([True, False, False, True, True, True])
    assert most.items("oak desk", passing).tolist() == [0, 3]


def test_a_release_without_logs_has_only_words(tmp_path: Path) -> None:
    most = MostClicked.of_release(tmp_path, _table(TITLES, [1] * 6))
    assert most.items("steel").tolist() == [2]


def test_words_of_any_script() -> None:
    assert words("Red-Lamp 台灯 foo_bar Ünï 3.5mm") == [
        "red", "lamp", "台", "灯", "foo", "bar", "ünï", "3", "5mm"
    ]  # fmt: skip
    assert words("हिन्दी") == ["हिन्दी"] and words(" ,;_") == []


def test_an_empty_catalogue_answers_nothing(tmp_path: Path) -> None:
    assert MostClicked.of_release(tmp_path, _table([], [])).items("oak").tolist() == []


def test_a_broken_file_is_named(release: Path) -> None:
    (release / "fallback" / "most_clicked.parquet").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"most_clicked\.parquet"):
        MostClicked.of_release(release, _table(TITLES, [1] * 6))
