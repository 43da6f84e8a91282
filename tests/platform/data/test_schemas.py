from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from onesearch.data.schemas import ATTRIBUTE_TYPES, ATTRIBUTES, RULES, TABLES, brand_of, schema


def test_there_are_the_eighteen_attribute_types() -> None:
    assert len(ATTRIBUTE_TYPES) == len(set(ATTRIBUTE_TYPES)) == 18
    assert {"Entity", "Brand", "Anchor", "Specifications", "Pattern"} <= set(ATTRIBUTE_TYPES)


@pytest.mark.parametrize("table", TABLES)
def test_rules_speak_of_columns_that_exist(table: str) -> None:
    assert {rule.column for rule in RULES[table]} <= set(schema(table))  # type: ignore[index]


def test_brand_is_the_first_attribute_of_type_brand() -> None:
    rows = [
        [
            {"type": "Color", "value": "red"},
            {"type": "Brand", "value": "Zed"},
            {"type": "Brand", "value": "Other"},
        ],
        [{"type": "Color", "value": "red"}],
        [],
    ]
    frame = pl.DataFrame({"attributes": pl.Series(rows, dtype=ATTRIBUTES)})
    assert frame.select(brand_of())["attributes"].to_list() == ["Zed", None, None]


def test_the_docs_name_every_column_and_type() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    for table in TABLES:
        assert f"| {table} |" in text
        for column in schema(table):
            assert f"`{column}`" in text
    listed = re.search(r"Attribute types: ([^.]+)\.", text)
    assert listed is not None
    assert tuple(re.split(r",\s+", listed[1])) == ATTRIBUTE_TYPES
