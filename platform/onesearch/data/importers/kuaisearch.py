"""KuaiSearch's published schema: ``items``, ``users``, ``recall``, ``rank``, ``relevance`` as JSONL, Chinese.

Decisions that the schema leaves open:

- ``recall`` names items that the item file may not hold (of the published demo rows, nearly all). Their
  events are kept: a log names items that are gone. Readers join on ``item_id``; the import counts them.
- ``relevance`` judges titles, not ids. A title that an item carries is that item; any other becomes an item
  of its own, ``judged-<hash of the title>``, as the judgements would otherwise be lost.
- ``time_index`` has no published unit. It is read as seconds after 2025-01-01: order is right, distances
  are not.
- ``rank`` repeats the sessions of ``recall`` with features; only its prices are taken, as hundredths of a
  yuan.
- ``attr_value`` lists values without their types: seasons and ages are told by their form, the rest are
  Modifiers.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl

from onesearch.data.importing import Import
from onesearch.data.schemas import ATTRIBUTES, Column
from onesearch.data.sources import ROW
from onesearch.errors import DataError

_TEXT, _MAYBE = Column(pl.String(), required=True), Column(pl.String())
_IDS = Column(pl.List(pl.String()), default=[])
_NUMBER = Column(pl.Float64(), required=True)
ITEMS = {
    "item_id": _TEXT,
    "item_title": _TEXT,
    "brand_name": _MAYBE,
    "seller_name": _MAYBE,
    "category_level1_name": _MAYBE,
    "category_level2_name": _MAYBE,
    "category_level3_name": _MAYBE,
}
USERS = {
    "user_id": _TEXT,
    "gender": _MAYBE,
    "age_bucket": _MAYBE,
    "fre_province": _MAYBE,
    "fre_city": _MAYBE,
}
RECALL = {
    "user_id": _TEXT,
    "session_id": _TEXT,
    "query": _TEXT,
    "time_index": _NUMBER,
    "impressed_item_ids": _IDS,
    "clicked_item_ids": _IDS,
    "purchased_item_ids": _IDS,
}
RANK = {"target_item_id": _TEXT, "target_item_price": _NUMBER}
RELEVANCE = {
    "query": _TEXT,
    "item_title": _TEXT,
    "brand": _MAYBE,
    "seller_name": _MAYBE,
    "attr_value": _MAYBE,
    "score": _NUMBER,
}
START = datetime(2025, 1, 1, tzinfo=UTC)
TOP_SCORE = 3
_RECALL_ROWS = 2_000  # sessions a batch; each has hundreds of impressions
_UNSAID = ("UNKNOWN", "", "无品牌", "其他", "其他/other", "否", "是", "通用", "无")
_SEASON = r"[春夏秋冬]|四季|不限季节"
_AGE = r"岁|个月|孕|婴|童|少年|青年|中年|老年"


def import_kuaisearch(source: Path, job: Import) -> None:
    """Read the folder; ``items`` and ``recall`` or ``relevance`` must be there, the rest may be missing."""
    files = {
        name: sorted(source.glob(f"{name}*.jsonl"))
        for name in ("items", "users", "recall", "rank", "relevance")
    }
    if not files["items"]:
        raise DataError(f"{source}: no items.jsonl")
    prices = _prices(files["rank"], job)
    titles = _import_items(files["items"], prices, job)
    _import_judged(files["relevance"], titles, job)
    for path in files["users"]:
        for batch in job.jsonl(path, USERS):
            job.add("shoppers", batch.map(_shoppers))
    for path in files["recall"]:
        for batch in job.jsonl(path, RECALL, _RECALL_ROWS):
            job.add("interactions", batch.map(_events))


def _prices(files: list[Path], job: Import) -> pl.DataFrame:
    paid = [
        batch.rows.select("target_item_id", "target_item_price")
        for path in files
        for batch in job.jsonl(path, RANK)
    ]
    if not paid:
        return pl.DataFrame(schema={"item_id": pl.String, "price": pl.Float64})
    price = pl.col("target_item_price").median() / 100
    return pl.concat(paid).group_by(item_id=pl.col("target_item_id")).agg(price=price)


def _said(column: str) -> pl.Expr:
    return pl.when(~pl.col(column).is_in(_UNSAID)).then(pl.col(column))


def _typed(kind: str, value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_not_null()).then(pl.struct(pl.lit(kind).alias("type"), value.alias("value")))


def _import_items(files: list[Path], prices: pl.DataFrame, job: Import) -> dict[str, str]:
    """Write the items; returns ids by title."""
    titles: dict[str, str] = {}

    def item(rows: pl.DataFrame) -> pl.DataFrame:
        levels = [_said(f"category_level{level}_name") for level in (1, 2, 3)]
        entries = [
            _typed("Brand", _said("brand_name")),
            _typed("Entity", pl.coalesce(levels[::-1])),
            _typed("Anchor", _said("seller_name")),
        ]
        made = rows.with_columns(
            category=pl.concat_list(levels).list.drop_nulls(),
            attributes=pl.concat_list(entries).list.drop_nulls().cast(ATTRIBUTES),
        )
        return made.join(prices, on="item_id", how="left", maintain_order="left")

    for path in files:
        for batch in job.jsonl(path, ITEMS):
            named = batch.rename({"item_title": "title"})
            job.add("items", named.map(item))
            titles.update(named.rows.select("title", "item_id").iter_rows())
    return titles


def _import_judged(files: list[Path], titles: dict[str, str], job: Import) -> None:
    for path in files:
        for batch in job.jsonl(path, RELEVANCE):
            named = batch.rename({"item_title": "title", "score": "grade"})
            wanted = named.rows["title"].to_list()
            ids = [titles.get(title) or _judged_id(title) for title in wanted]
            known = pl.Series([title in titles for title in wanted], dtype=pl.Boolean)
            judged = named.map(partial(_with_ids, ids=ids))
            job.add("items", judged.map(partial(_judged_items, known=known)))
            titles.update(zip(wanted, ids, strict=True))
            job.add("relevance", judged.map(lambda rows: rows.with_columns(pl.col("grade") / TOP_SCORE)))


def _judged_id(title: str) -> str:
    return "judged-" + hashlib.blake2b(title.encode(), digest_size=8).hexdigest()


def _with_ids(rows: pl.DataFrame, ids: list[str]) -> pl.DataFrame:
    return rows.with_columns(item_id=pl.Series(ids, dtype=pl.String))


def _judged_items(rows: pl.DataFrame, known: pl.Series) -> pl.DataFrame:
    """Rows of the table ``items`` for the judged titles that are not known yet."""
    rows = rows.filter(~known)
    value = pl.element().str.strip_chars()
    kind = (
        pl.when(value.str.contains(_SEASON))
        .then(pl.lit("Season"))
        .when(value.str.contains(_AGE))
        .then(pl.lit("Audience"))
        .otherwise(pl.lit("Modifier"))
    )
    # The list repeats the brand, which has a column of its own.
    values = (
        pl.col("attr_value")
        .fill_null("")
        .str.split(",")
        .list.set_difference(pl.concat_list(pl.col("brand").fill_null("")))
    )
    told = values.list.eval(
        pl.struct(type=kind, value=value).filter(~value.is_in(_UNSAID) & (value.str.len_chars() > 0))
    )
    entries = pl.concat_list(
        _typed("Brand", _said("brand")), _typed("Anchor", _said("seller_name"))
    ).list.drop_nulls()
    attributes = pl.concat_list(entries.cast(ATTRIBUTES), told.cast(ATTRIBUTES))
    return rows.unique("item_id", keep="first", maintain_order=True).with_columns(attributes=attributes)


def _shoppers(rows: pl.DataFrame) -> pl.DataFrame:
    labels = [
        pl.concat_str(pl.lit(f"{label}:"), _said(column))
        for label, column in (
            ("gender", "gender"),
            ("age", "age_bucket"),
            ("province", "fre_province"),
            ("city", "fre_city"),
        )
    ]
    return rows.with_columns(profile=pl.concat_list(labels).list.drop_nulls())


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    """An event for each impressed, clicked and purchased item; its position is that of the impression."""
    places = rows.select(
        ROW, item_id="impressed_item_ids", position=pl.int_ranges(pl.col("impressed_item_ids").list.len())
    ).explode("item_id", "position", empty_as_null=False)
    places = places.unique([ROW, "item_id"], keep="first", maintain_order=True)
    parts = []
    for delay, (action, column) in enumerate(
        (("impression", "impressed_item_ids"), ("click", "clicked_item_ids"), ("order", "purchased_item_ids"))
    ):
        seconds = pl.col("time_index") * 1_000_000 + delay * 1_000
        part = rows.select(
            ROW,
            "user_id",
            "session_id",
            "query",
            item_id=pl.col(column).list.unique(maintain_order=True),
            ts=pl.lit(START).cast(pl.Datetime("us", "UTC"))
            + pl.duration(microseconds=seconds.cast(pl.Int64)),
            action=pl.lit(action),
        )
        parts.append(part.explode("item_id", empty_as_null=False))
    events = pl.concat(parts).join(places, on=[ROW, "item_id"], how="left", maintain_order="left")
    request = pl.concat_str("session_id", ROW, separator="-")
    return events.with_columns(
        scene=pl.lit("search"),
        request_id=request,
        event_id=pl.concat_str(request, pl.col("action").str.head(1), "item_id", separator="-"),
    )
