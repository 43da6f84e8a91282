"""The importers of published sets, on the real files; skipped where those are not at hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from onesearch.data.importers.hm import import_hm
from onesearch.data.importers.homedepot import import_homedepot
from onesearch.data.importers.kuaisearch import import_kuaisearch
from onesearch.data.importing import run_import
from onesearch.data.schemas import ATTRIBUTE_TYPES
from onesearch.data.store import Store
from onesearch.errors import DataError

pytestmark = pytest.mark.data


def test_homedepot(data: Path, tmp_path: Path) -> None:
    report = run_import("homedepot", partial(import_homedepot, data / "homedepot"), tmp_path / "s")
    assert report.counts == {"items": 54_667, "shoppers": 0, "interactions": 0, "relevance": 67_800}
    assert (report.rejected, report.unknown_items) == (0, 0)
    items, relevance = report.store.items(), report.store.relevance().collect()
    assert items.row(0)[:2] == ("100001", "Simpson Strong-Tie 12-Gauge Angle")
    judged = relevance.filter((pl.col("query") == "l bracket") & (pl.col("item_id") == "100001"))
    assert judged["grade"].to_list() == [0.75]  # (2.5 − 1) / 2
    assert (relevance["grade"].min(), relevance["grade"].max()) == (0.0, 1.0)


def test_a_relevance_off_the_scale_is_named_as_the_file_has_it(tmp_path: Path) -> None:
    pl.DataFrame({"product_uid": [1], "product_title": ["nail"]}).write_parquet(tmp_path / "products.parquet")
    pl.DataFrame({"search_term": ["n"], "product_uid": [1], "relevance": [3.5]}).write_parquet(
        tmp_path / "labels.parquet"
    )
    with pytest.raises(
        DataError, match=r"labels.parquet, row 1, column 'relevance': 3.5 is outside the range of grades"
    ):
        run_import("homedepot", partial(import_homedepot, tmp_path), tmp_path / "s", max_rejected=0)


@pytest.fixture(scope="module")
def hm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    report = run_import("hm", partial(import_hm, data / "hm"), tmp_path_factory.mktemp("hm") / "s")
    assert report.counts == {"items": 105_542, "shoppers": 60_492, "interactions": 207_445, "relevance": 0}
    assert report.rejected == 0
    return report.store


def test_hm_titles_hold_the_words_of_their_queries(hm: Store) -> None:
    items = hm.items()
    first = items.row(0, named=True)
    assert first["title"] == "Women Black Strap top Vest top Womens Everyday Basics Jersey Basic"
    assert first["category"] == ["Ladieswear", "Garment Upper body", "Vest top"]
    assert {"type": "Audience", "value": "Women"} in first["attributes"]
    orders = hm.interactions().select("query", "item_id").collect().join(items, on="item_id")
    words = pl.col("query").str.split(" ").list.eval(pl.element().str.strip_chars(",-."))
    title = pl.col("title").str.to_lowercase().str.split(" ").list.eval(pl.element().str.strip_chars(",-."))
    missing = orders.select(words.list.set_difference(title).list.len() > 0).to_series().mean()
    assert isinstance(missing, float) and missing < 0.03


def test_hm_orders_are_orders_and_nothing_else(hm: Store) -> None:
    orders = hm.interactions().collect()
    assert orders["action"].unique().to_list() == ["order"]
    assert orders["scene"].unique().to_list() == ["search"]
    assert orders["event_id"].is_unique().all()
    assert orders["event_id"][0] == "hm/2020-09-16/0/0786022008"
    # A day's rows are baskets, in no known order: they carry the same time.
    days = [datetime(2020, 9, day, tzinfo=UTC) for day in range(16, 22)]
    assert orders["ts"].unique().sort().to_list() == days
    assert orders["propensity"].null_count() == len(orders)
    sold = hm.items().filter(pl.col("item_id") == "0786022008")["price"].item()
    assert 0.04 < sold < 0.06


def test_kuaisearch(data: Path, tmp_path: Path) -> None:
    report = run_import("kuaisearch", partial(import_kuaisearch, data / "kuaisearch-demo"), tmp_path / "s")
    assert report.counts == {"items": 400, "shoppers": 200, "interactions": 26_032, "relevance": 200}
    assert report.rejected == 0
    assert report.unknown_items == 26_030  # the demo rows of recall and items hardly meet
    store = report.store
    items = store.items()
    coat = items.filter(pl.col("item_id") == "3359347").row(0, named=True)
    assert coat["category"] == ["女装", "皮草"]
    assert coat["attributes"] == [
        {"type": "Brand", "value": "金粟兰"},
        {"type": "Entity", "value": "皮草"},
        {"type": "Anchor", "value": "施施高端皮草工厂店"},
    ]
    judged = store.relevance().collect().join(items, on="item_id")
    assert len(judged) == 200
    assert set((judged["grade"] * 3).round(4).to_list()) <= {0.0, 1.0, 2.0, 3.0}
    types = items.explode("attributes").unnest("attributes")["type"].drop_nulls().unique().to_list()
    assert {"Season", "Audience", "Modifier"} <= set(types) <= set(ATTRIBUTE_TYPES)
    events = store.interactions().group_by("action").len().collect()
    assert dict(events.iter_rows()) == {"impression": 25_430, "click": 583, "order": 19}
    assert store.shoppers().collect()["profile"][0].to_list() == [
        "gender:M",
        "age:31-40",
        "province:辽宁",
        "city:鞍山",
    ]


def test_kuaisearch_events_of_one_session(tmp_path: Path) -> None:
    item = {
        "item_id": 5,
        "item_title": "红裙",
        "category_level1_name": "女装",
        "category_level2_name": "UNKNOWN",
    }
    session = {
        "user_id": 1,
        "session_id": 9,
        "query": "裙子",
        "time_index": 100,
        "impressed_item_ids": [5, 6, 5],
        "clicked_item_ids": [6],
        "purchased_item_ids": [6],
        "split": "train",
    }
    judged = {"query": "裙子", "item_title": "红裙", "attr_value": "红色", "score": 3}
    price = {"target_item_id": 5, "target_item_price": 5990.0}
    for name, row in (("items", item), ("recall", session), ("relevance", judged), ("rank", price)):
        (tmp_path / f"{name}_lite.jsonl").write_text(
            json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    report = run_import("kuaisearch", partial(import_kuaisearch, tmp_path), tmp_path / "s")
    assert report.counts == {"items": 1, "shoppers": 0, "interactions": 4, "relevance": 1}
    assert report.store.items()["price"].to_list() == [59.9]
    assert report.store.relevance().collect().row(0) == ("裙子", "5", 1.0)
    events = report.store.interactions().select("event_id", "item_id", "action", "position").collect().rows()
    assert events == [
        ("9-1-i-5", "5", "impression", 0),
        ("9-1-i-6", "6", "impression", 1),
        ("9-1-c-6", "6", "click", 1),
        ("9-1-o-6", "6", "order", 1),
    ]


def test_folders_without_the_set_are_told(tmp_path: Path) -> None:
    for name, importer in (
        ("hm", import_hm),
        ("homedepot", import_homedepot),
        ("kuaisearch", import_kuaisearch),
    ):
        with pytest.raises(DataError, match=r"no such file|no items\.jsonl"):
            run_import(name, partial(importer, tmp_path), tmp_path / "s")
