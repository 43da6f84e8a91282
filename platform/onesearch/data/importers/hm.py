"""H&M: a folder with ``articles.parquet`` and ``searches.parquet`` → items, shoppers and orders.

The set has real users and real orders, with queries made from attributes of the article bought; it has
neither impressions nor clicks. Each row becomes one ``order`` in the scene ``search``, and nothing else is
made up. Its times are days, and stay so: the rows of one day are a shopper's basket, in no known order, and
whoever asks for what came *before* an order must not be given the rest of its basket.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.data.importing import Import, Seen, hashes
from onesearch.data.schemas import ATTRIBUTES, TIME, Column
from onesearch.data.sources import ROW

_TEXT = Column(pl.String(), required=True)
ARTICLES = {
    "article_id": _TEXT,
    "prod_name": _TEXT,
    "product_type_name": _TEXT,
    "product_group_name": _TEXT,
    "graphical_appearance_name": _TEXT,
    "colour_group_name": _TEXT,
    "perceived_colour_master_name": _TEXT,
    "index_name": _TEXT,
    "index_group_name": _TEXT,
    "section_name": _TEXT,
    "garment_group_name": _TEXT,
    "detail_desc": Column(pl.String()),
}
SEARCHES = {
    "day": Column(TIME, required=True),
    "user_id": _TEXT,
    "query": _TEXT,
    "article_id": _TEXT,
    "price": Column(pl.Float64()),
}

# Who a department sells to, in the words that shoppers use.
AUDIENCE = {
    "Ladieswear": "Women",
    "Menswear": "Men",
    "Divided": "Teen",
    "Baby/Children": "Kids",
    "Sport": "Sport",
}
_UNSAID = ("Unknown", "undefined", "Other")


def import_hm(source: Path, job: Import) -> None:
    """Read the folder; an item's price is the median of what was paid for it."""
    prices = _prices(source / "searches.parquet", job)
    for batch in job.parquet(source / "articles.parquet", ARTICLES):
        job.add("items", batch.rename({"article_id": "item_id"}).map(lambda rows: _items(rows, prices)))
    orders, shoppers = Seen(), Seen()
    for batch in job.parquet(source / "searches.parquet", SEARCHES):
        named = batch.rename({"day": "ts", "article_id": "item_id"}).map(lambda rows: _orders(rows, orders))
        job.add("interactions", named)
        users = named.rows.select(ROW, "user_id").unique("user_id", keep="first", maintain_order=True)
        new = users.filter(pl.Series(~shoppers.repeated(hashes(users["user_id"]))))
        job.add("shoppers", replace(named, rows=new))


def _prices(path: Path, job: Import) -> pl.DataFrame:
    paid = [batch.rows.select("article_id", "price").drop_nulls() for batch in job.parquet(path, SEARCHES)]
    rows = pl.concat(paid) if paid else pl.DataFrame(schema={"article_id": pl.String, "price": pl.Float64})
    return rows.group_by("article_id").agg(pl.col("price").median()).rename({"article_id": "item_id"})


def _items(rows: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Titles are stacked: audience, colour, pattern, name, type, section, garment group."""
    audience = pl.col("index_group_name").replace_strict(AUDIENCE, default=pl.col("index_group_name"))
    # "Strap top (1)": the number tells runs of the same product apart and means nothing to a shopper.
    name = (
        pl.col("prod_name")
        .str.replace_all(r"\s*\([^)]*\)", " ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
    )
    name = pl.when(name == "").then("prod_name").otherwise(name)
    pattern = pl.col("graphical_appearance_name")
    parts = [
        audience,
        pl.col("colour_group_name"),
        pl.when(pattern != "Solid").then(pattern).otherwise(pl.lit("")),
        name,
        pl.when(name.str.to_lowercase().str.ends_with(pl.col("product_type_name").str.to_lowercase()))
        .then(pl.lit(""))
        .otherwise(pl.col("product_type_name")),
        pl.col("section_name"),
        pl.col("garment_group_name"),
    ]
    title = pl.concat_str(parts, separator=" ").str.replace_all(r"\s+", " ").str.strip_chars()
    brand = pl.when(pl.col("index_group_name") == "Divided").then(pl.lit("Divided")).otherwise(pl.lit("H&M"))
    attributes = [
        ("Entity", pl.col("product_type_name")),
        ("Brand", brand),
        ("Color", pl.col("colour_group_name")),
        ("Color", pl.col("perceived_colour_master_name")),
        ("Pattern", pattern),
        ("Audience", audience),
        ("Style", pl.col("garment_group_name")),
        ("Series", pl.col("section_name")),
        ("Model", name),
    ]
    made = rows.with_columns(
        title=title,
        category=pl.concat_list("index_group_name", "product_group_name", "product_type_name"),
        attributes=_typed(attributes),
        detail_text=pl.col("detail_desc"),
    )
    return made.join(prices, on="item_id", how="left", maintain_order="left")


def _typed(attributes: list[tuple[str, pl.Expr]]) -> pl.Expr:
    entries = [
        pl.when(~value.is_in(_UNSAID)).then(pl.struct(pl.lit(kind).alias("type"), value.alias("value")))
        for kind, value in attributes
    ]
    return pl.concat_list(entries).list.drop_nulls().list.unique(maintain_order=True).cast(ATTRIBUTES)


def _orders(rows: pl.DataFrame, known: Seen) -> pl.DataFrame:
    """Orders with stable ids: day, user and article; an order of the same again adds its row's number."""
    day = pl.col("ts").dt.strftime("%Y-%m-%d")
    rows = rows.with_columns(session_id=pl.concat_str("user_id", day, separator="/"))
    rows = rows.with_columns(event_id=pl.concat_str(pl.lit("hm"), day, "user_id", "item_id", separator="/"))
    again = pl.Series(known.repeated(hashes(rows["event_id"])) if len(rows) else np.zeros(0, dtype=bool))
    numbered = pl.concat_str("event_id", ROW, separator="/")
    return rows.with_columns(
        event_id=pl.when(again).then(numbered).otherwise("event_id"),
        ts=pl.col("ts").dt.truncate("1d"),
        scene=pl.lit("search"),
        action=pl.lit("order"),
    ).with_columns(request_id=pl.col("event_id"))
