from __future__ import annotations

import pytest
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving.requests import check_query, parse_filters


def test_filters_as_people_write_them() -> None:
    texts = ["category=rug", "category=Home & Garden", "brand=A=B", "price=10..50.5", "in_stock"]
    assert parse_filters(texts) == Filters(("rug", "Home & Garden"), ("A=B",), 10.0, 50.5, True)
    assert parse_filters(["price=..9"]) == Filters(max_price=9.0)
    assert parse_filters(["price=9.."]) == Filters(min_price=9.0)
    assert not parse_filters([])


@pytest.mark.parametrize(
    "text", ["rug", "category=", "price=9", "price=a..b", "in_stock=maybe", "colour=red", ""]
)
def test_other_filters_are_quoted_back(text: str) -> None:
    with pytest.raises(UsageError, match="filter"):
        parse_filters([text])


def test_queries_of_any_script_pass() -> None:
    for query in ("红色 台灯", "Ñandú 5 ½\t″", "emoji 🛋️ sofa", "שולחן", "a" * 4096):
        check_query(query)


def test_query_length_is_counted_in_bytes() -> None:
    check_query("语" * 1365)
    with pytest.raises(UsageError, match="longer than 4096 bytes"):
        check_query("语" * 1366)
