"""Home Depot: ``products.parquet`` and ``labels.parquet`` → items and judged pairs, no interactions."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from onesearch.data.importing import Import
from onesearch.data.schemas import Column

PRODUCTS = {
    "product_uid": Column(pl.String(), required=True),
    "product_title": Column(pl.String(), required=True),
}
LABELS = {
    "search_term": Column(pl.String(), required=True),
    "product_uid": Column(pl.String(), required=True),
    "relevance": Column(pl.Float32(), required=True),
}


def import_homedepot(source: Path, job: Import) -> None:
    """Read the folder. A human relevance of 1 … 3 becomes the grade ``(relevance − 1) / 2``."""
    for batch in job.parquet(source / "products.parquet", PRODUCTS):
        job.add("items", batch.rename({"product_uid": "item_id", "product_title": "title"}))
    for batch in job.parquet(source / "labels.parquet", LABELS):
        named = batch.rename({"search_term": "query", "product_uid": "item_id", "relevance": "grade"})
        job.add("relevance", named.map(lambda rows: rows.with_columns(grade=(pl.col("grade") - 1) / 2)))
