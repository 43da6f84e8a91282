"""The four tables of a store: their columns, what a row of each must be, and the 18 attribute types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

AttributeType = Literal[
    "Entity",
    "Modifier",
    "Brand",
    "Material",
    "Style",
    "Function",
    "Location",
    "Audience",
    "Color",
    "Scene",
    "Specifications",
    "Price",
    "Model",
    "Anchor",
    "Series",
    "Marketing",
    "Season",
    "Pattern",
]
ATTRIBUTE_TYPES: tuple[str, ...] = get_args(AttributeType)

TableName = Literal["items", "shoppers", "interactions", "relevance"]
TABLE_NAMES: tuple[TableName, ...] = get_args(TableName)
SCENES = ("search", "recommend")
ACTIONS = ("impression", "click", "order")

TEXT_LIMIT = 10_000
"""Characters that an id, title, query or attribute value may have."""
LONG_TEXT_LIMIT = 100_000
"""Characters that ``detail_text`` and ``ocr_text`` may have."""

ATTRIBUTES = pl.List(pl.Struct({"type": pl.String(), "value": pl.String()}))
TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        dtype: its type in the store.
        required: the source must have the column, and no row may leave it empty.
        default: what an empty value becomes where the column is not required.
    """

    dtype: pl.DataType
    required: bool = False
    default: object = None


TABLES: dict[TableName, dict[str, Column]] = {
    "items": {
        "item_id": Column(pl.String(), required=True),
        "title": Column(pl.String(), required=True),
        "category": Column(pl.List(pl.String()), default=[]),
        "attributes": Column(ATTRIBUTES, default=[]),
        "price": Column(pl.Float64()),
        "detail_text": Column(pl.String()),
        "ocr_text": Column(pl.String()),
        "image_uri": Column(pl.String()),
        "in_stock": Column(pl.Boolean(), default=True),
    },
    "shoppers": {
        "user_id": Column(pl.String(), required=True),
        "profile": Column(pl.List(pl.String()), default=[]),
    },
    "interactions": {
        "event_id": Column(pl.String(), required=True),
        "ts": Column(TIME, required=True),
        "user_id": Column(pl.String(), required=True),
        "session_id": Column(pl.String()),
        "request_id": Column(pl.String()),
        "scene": Column(pl.String(), required=True),
        "query": Column(pl.String()),
        "item_id": Column(pl.String(), required=True),
        "action": Column(pl.String(), required=True),
        "position": Column(pl.Int32()),
        "score": Column(pl.Float32()),
        "propensity": Column(pl.Float32()),
        "release": Column(pl.String()),
    },
    "relevance": {
        "query": Column(pl.String(), required=True),
        "item_id": Column(pl.String(), required=True),
        "grade": Column(pl.Float32(), required=True),
    },
}

KEYS: dict[TableName, str | None] = {
    "items": "item_id",
    "shoppers": "user_id",
    "interactions": "event_id",
    "relevance": None,
}
"""The column whose values must differ from row to row."""


def schema(table: TableName) -> dict[str, pl.DataType]:
    """Column names and types of a table, in the store's order."""
    return {name: column.dtype for name, column in TABLES[table].items()}


@dataclass(frozen=True)
class Rule:
    """What the values of a column must be: rows where ``broken`` is true are rejected for ``reason``."""

    column: str
    broken: pl.Expr
    reason: str


def _texts(limit: int, *columns: str) -> list[Rule]:
    return [
        Rule(name, pl.col(name).str.len_chars() > limit, f"is longer than {limit:,} characters")
        for name in columns
    ]


def _one_of(column: str, allowed: Sequence[str]) -> Rule:
    return Rule(column, ~pl.col(column).is_in(list(allowed)), f"is none of {', '.join(allowed)}")


def _range(column: str, low: float, high: float, reason: str) -> Rule:
    inside = pl.col(column).is_between(low, high) & pl.col(column).is_finite()
    return Rule(column, ~inside, reason)


RULES: dict[TableName, list[Rule]] = {
    "items": [
        *_texts(TEXT_LIMIT, "item_id", "title", "image_uri"),
        *_texts(LONG_TEXT_LIMIT, "detail_text", "ocr_text"),
        _range("price", 0.0, 1e12, "is not a price (a finite number, zero or more)"),
        Rule(
            "attributes",
            ~pl.col("attributes").list.eval(pl.element().struct["type"].is_in(ATTRIBUTE_TYPES)).list.all(),
            f"names an attribute type that is none of {', '.join(ATTRIBUTE_TYPES)}",
        ),
    ],
    "shoppers": _texts(TEXT_LIMIT, "user_id"),
    "interactions": [
        *_texts(TEXT_LIMIT, "event_id", "user_id", "session_id", "request_id", "query", "item_id", "release"),
        _one_of("scene", SCENES),
        _one_of("action", ACTIONS),
        Rule("ts", ~pl.col("ts").dt.year().is_between(1970, 2199), "is not a time between 1970 and 2199"),
        Rule("position", pl.col("position") < 0, "is negative"),
        Rule("score", ~pl.col("score").is_finite(), "is not a finite number"),
        Rule(
            "propensity",
            ~(pl.col("propensity").is_finite() & (pl.col("propensity") > 0) & (pl.col("propensity") <= 1)),
            "is not a probability above 0",
        ),
    ],
    "relevance": [
        *_texts(TEXT_LIMIT, "query", "item_id"),
        _range("grade", 0.0, 1.0, "is outside the range of grades"),
    ],
}


def brand_of(attributes: str = "attributes") -> pl.Expr:
    """An item's brand: the value of its first attribute of type Brand, null without one."""
    value = pl.when(pl.element().struct["type"] == "Brand").then(pl.element().struct["value"])
    return pl.col(attributes).list.eval(value).list.drop_nulls().list.first()
