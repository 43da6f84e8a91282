"""A log as a file of searches: rows of the table ``interactions``, with propensities where they were kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.errors import DataError, UsageError
from onesearch.evaluation.metrics import Relevant
from onesearch.evaluation.propensity import Logged
from onesearch.evaluation.searches import Searches, parquet_rows
from onesearch.training.attribution import exposures

COLUMNS = (
    "ts",
    "user_id",
    "request_id",
    "scene",
    "query",
    "item_id",
    "action",
    "position",
    "propensity",
)
CLICKED, ORDERED = 0.5, 1.0
"""Grades of what a shopper clicked and of what they ordered."""


def read_log(path: Path, item_ids: Sequence[str], sample: int | None = None, seed: int = 0) -> Searches:
    """The searches of a log, those without a click included; what was clicked or ordered is relevant.

    Args:
        path: a Parquet file with the columns :data:`COLUMNS`. Queries are taken in their normalised form.
        item_ids: of the catalogue, in item-number order.
        sample: draw so many of the searches at most, by ``seed``.

    Raises:
        UsageError: no such file, or it shows nothing in searches.
        DataError: a column is missing or does not fit.
    """
    rows = parquet_rows(path)
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(f"{path}: column '{missing[0]}' is missing; format log has {', '.join(COLUMNS)}")
    try:
        shown = exposures(rows.select(COLUMNS)).filter(
            (pl.col("scene") == "search") & pl.col("query").is_not_null() & pl.col("shown")
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: a column has values of another type ({error})") from error
    numbers = pl.DataFrame(
        {"item_id": item_ids, "item": np.arange(len(item_ids), dtype=np.int32)},
        schema={"item_id": pl.String, "item": pl.Int32},
    )
    found = (
        shown.join(numbers, on="item_id", how="left", maintain_order="left")
        .sort("list", "position", maintain_order=True)
        .group_by("list", maintain_order=True)
        .agg(
            pl.col("query", "user_id").first(),
            pl.col("ts").min().dt.epoch("s").alias("moment"),
            pl.col("item").fill_null(-1),
            "position",
            "propensity",
            "clicked",
            "ordered",
        )
    )
    if not len(found):
        raise UsageError(f"{path}: no search of this log showed anything")
    if sample is not None and sample < len(found):
        chosen = np.random.default_rng(seed).choice(len(found), sample, replace=False)
        found = found[np.sort(chosen).tolist()]
    logged = [_logged(row) for row in found.select(*_LISTS).iter_rows()]
    relevant = [_relevant(one) for one in logged]
    known = all(np.isfinite(one.propensity).all() and (one.position >= 0).all() for one in logged)
    return Searches(
        queries=found["query"].to_list(),
        user_ids=found["user_id"].fill_null("").to_list(),
        relevant=relevant,
        moments=found["moment"].to_numpy().astype(np.int64),
        missing=sum(int((truth.items < 0).sum()) for truth in relevant),
        skipped=sum(not len(truth.items) for truth in relevant),
        logged=tuple(logged) if known else None,
    )


_LISTS = ("item", "position", "propensity", "clicked", "ordered")


def _logged(row: tuple[list[object], ...]) -> Logged:
    items, position, propensity, clicked, ordered = row
    places = [-1 if place is None else place for place in position]
    return Logged(
        np.array(items, np.int32),
        np.array(places, np.int32),
        np.array(propensity, np.float32),  # None becomes NaN
        np.array(clicked, bool),
        np.array(ordered, bool),
    )


def _relevant(one: Logged) -> Relevant:
    """What was clicked or ordered; items that the catalogue lacks are misses, with numbers of their own."""
    good = one.clicked | one.ordered
    items = np.where(one.items < 0, -2 - np.arange(len(one.items)), one.items)[good].astype(np.int32)
    grades = np.where(one.ordered, ORDERED, CLICKED)[good].astype(np.float32)
    best = dict(sorted(zip(items.tolist(), grades.tolist(), strict=True), key=lambda pair: pair[1]))
    return Relevant(np.array(list(best), np.int32), np.array(list(best.values()), np.float32))
