"""Query files → searches with what is relevant for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl

from onesearch.data.casting import cast, takes
from onesearch.data.schemas import TIME
from onesearch.errors import DataError, UsageError
from onesearch.evaluation.logged import read_log
from onesearch.evaluation.metrics import Relevant
from onesearch.evaluation.searches import ALWAYS, Searches, parquet_rows

Format = Literal["homedepot", "hm", "parquet"]
LOG = "log"
FORMATS: tuple[str, ...] = (*get_args(Format), LOG)
RELEVANT_FROM = 2.33
"""Home Depot's mean of human judgements (1 … 3) from which a pair counts as relevant."""

_F32_ROUNDING = 1e-6
_SAID = {"ts": "time"}
_COLUMNS: dict[str, dict[str, str]] = {
    "homedepot": {"search_term": "query", "product_uid": "item_id", "relevance": "grade"},
    "hm": {"query": "query", "article_id": "item_id", "user_id": "user_id", "day": "ts"},
    "parquet": {"query": "query", "item_id": "item_id", "grade": "grade", "user_id": "user_id", "ts": "ts"},
}
_OPTIONAL = {"hm": ("day",), "parquet": ("grade", "user_id", "ts")}


def read_searches(
    path: Path, form: str, item_ids: Sequence[str], sample: int | None = None, seed: int = 0
) -> Searches:
    """Read a query file.

    ``homedepot``: search_term, product_uid, relevance; a search a term; relevant from 2.33, graded
    ``(relevance - 1) / 2``.
    ``hm``: query, article_id, user_id and, where given, day; a search a row, with one relevant article.
    ``parquet``: query, item_id and, where given, grade in (0, 1], user_id and ts; a search a query (and user,
    and ts).
    ``log``: see :func:`onesearch.evaluation.logged.read_log`.

    Args:
        path: a Parquet file. form: one of :data:`FORMATS`.
        item_ids: of the catalogue, in item-number order.
        sample: draw so many of the searches at most, by ``seed``.

    Raises:
        UsageError: no such file or format, or nothing to search for.
        DataError: a column is missing or a value does not fit; the message names file, row and column.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form}: known formats are {', '.join(FORMATS)}")
    if sample is not None and sample < 1:
        raise UsageError(f"--sample {sample}: at least one search")
    if form == LOG:
        return read_log(path, item_ids, sample, seed)
    rows = _read(path, form)
    if form == "homedepot":
        rows = rows.with_columns(
            grade=pl.when(pl.col("grade") >= RELEVANT_FROM - _F32_ROUNDING)
            .then((pl.col("grade") - 1) / 2)
            .otherwise(0.0)
        )
    numbers = pl.DataFrame(
        {"item_id": item_ids, "item": np.arange(len(item_ids), dtype=np.int32)},
        schema={"item_id": pl.String, "item": pl.Int32},
    )
    # Every missing item gets a number of its own below -1, for two of them are two misses.
    rows = rows.join(numbers, on="item_id", how="left", maintain_order="left")
    rows = rows.with_columns(
        item=pl.coalesce("item", (-2 - pl.int_range(pl.len(), dtype=pl.Int32)).cast(pl.Int32))
    )
    # An H&M row is a search of its own, even where a shopper asks for the same twice.
    rows = rows.with_columns(search=pl.int_range(pl.len()) if form == "hm" else pl.lit(0))
    good = pl.col("grade") > 0
    grouped = rows.group_by("search", "query", "user_id", "moment", maintain_order=True).agg(
        pl.col("item").filter(good), pl.col("grade").filter(good)
    )
    found = grouped.filter(pl.col("item").list.len() > 0)
    if not len(found):
        raise UsageError(f"{path}: no search has a relevant item")
    skipped = len(grouped) - len(found)
    if sample is not None and sample < len(found):
        chosen = np.random.default_rng(seed).choice(len(found), sample, replace=False)
        found = found[np.sort(chosen).tolist()]
    return _searches(found, skipped)


def _searches(found: pl.DataFrame, skipped: int) -> Searches:
    relevant: list[Relevant] = []
    for items, grades in zip(found["item"], found["grade"], strict=True):
        best: dict[int, float] = {}
        for item, grade in zip(items.to_list(), grades.to_list(), strict=True):
            best[item] = max(grade, best.get(item, 0.0))
        relevant.append(Relevant(np.array(list(best), np.int32), np.array(list(best.values()), np.float32)))
    missing = sum(int((truth.items < 0).sum()) for truth in relevant)
    queries, users = found["query"].to_list(), found["user_id"].to_list()
    return Searches(queries, users, relevant, found["moment"].to_numpy(), missing, skipped)


def _read(path: Path, form: str) -> pl.DataFrame:
    """Columns query, item_id, user_id (str), grade (f64) and moment (i64); every row checked."""
    rows = parquet_rows(path)
    wanted = _COLUMNS[form]
    for column in wanted:
        if column not in rows.columns and column not in _OPTIONAL.get(form, ()):
            raise DataError(
                f"{path}: column '{column}' is missing; format {form} has {', '.join(wanted)},"
                f" the file has {', '.join(rows.columns)}"
            )
    given = {column: name for column, name in wanted.items() if column in rows.columns}
    rows = rows.select(pl.col(column).alias(name) for column, name in given.items())
    column_of = {name: column for column, name in wanted.items()}
    if "grade" not in rows.columns:
        rows = rows.with_columns(grade=pl.lit(1.0))
    if "user_id" not in rows.columns:
        rows = rows.with_columns(user_id=pl.lit(""))
    if "ts" not in rows.columns:
        rows = rows.with_columns(ts=pl.lit(None, TIME))
    if not takes(rows["ts"].dtype, TIME):
        raise DataError(f"{path}: column '{column_of['ts']}' has no times but {rows['ts'].dtype}")
    rows = rows.with_columns(moment=cast(rows["ts"], TIME).dt.epoch("s"))
    try:
        rows = rows.with_columns(
            pl.col("query", "item_id", "user_id").cast(pl.String), pl.col("grade").cast(pl.Float64)
        ).with_columns(pl.col("user_id").fill_null(""))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: a column has values of another type ({error})") from error
    low, high = (1.0, 3.0) if form == "homedepot" else (0.0, 1.0)
    checks: dict[str, pl.Expr] = {
        "query": pl.col("query").fill_null("").str.strip_chars() == "",
        "item_id": pl.col("item_id").fill_null("") == "",
        "grade": ~pl.col("grade").is_between(low, high).fill_null(False),
        "ts": pl.col("ts").is_not_null() & pl.col("moment").is_null(),
    }
    for name, broken in checks.items():
        bad = rows.select(broken.arg_true().first()).item()
        if bad is not None:
            bounds = f" between {low:g} and {high:g}" if name == "grade" else ""
            raise DataError(
                f"{path}: row {bad + 1}, column '{column_of.get(name, name)}':"
                f" {rows[name][bad]!r} is no {_SAID.get(name, name)}{bounds}"
            )
    return rows.with_columns(pl.col("moment").fill_null(ALWAYS))
