from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch.data.casting import attribute_list, cast, clean, from_python
from onesearch.data.schemas import ATTRIBUTES, TABLES, TIME

NOON = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
DTYPES = sorted({column.dtype for table in TABLES.values() for column in table.values()}, key=str)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:30:00Z",
        "2024-05-01T12:30",
        "2024-05-01 12:30:00",
        "2024-05-01 12:30:00.000",
        " 2024-05-01T14:30:00+02:00 ",
        "2024-05-01T14:30+0200",
    ],
)
def test_times_as_people_write_them(text: str) -> None:
    assert cast(pl.Series([text]), TIME).to_list() == [NOON]


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "01/05/2024", "2024-05-01T25:00:00", "12:30"])
def test_what_is_no_time_becomes_null(text: str) -> None:
    assert cast(pl.Series([text]), TIME).to_list() == [None]


def test_a_day_is_its_midnight_and_a_naive_time_is_utc() -> None:
    assert cast(pl.Series(["2024-05-01"]), TIME).to_list() == [datetime(2024, 5, 1, tzinfo=UTC)]
    assert cast(pl.Series([datetime(2024, 5, 1, 12, 30)]), TIME).to_list() == [NOON]
    assert cast(pl.Series([NOON.date()]), TIME).to_list() == [datetime(2024, 5, 1, tzinfo=UTC)]


@given(MOMENTS, st.integers(-12, 12))
def test_iso_times_of_any_zone_come_back(moment: datetime, hours: int) -> None:
    aware = moment.replace(tzinfo=UTC)
    written = aware.astimezone(timezone(timedelta(hours=hours))).isoformat()
    assert cast(pl.Series([written]), TIME).to_list() == [aware]


@given(st.integers(1_000, 5_000_000_000), st.sampled_from([1, 1_000, 1_000_000]))
def test_numbers_are_seconds_millis_or_micros_by_their_size(second: int, scale: int) -> None:
    # Below 1e11 a number is taken for seconds: small counts of milliseconds mean moments of early 1970.
    second = max(second, 100_000_000)
    assert cast(pl.Series([second * scale]), TIME).to_list() == [datetime.fromtimestamp(second, UTC)]


def test_text_loses_control_characters_and_outer_spaces() -> None:
    assert clean(pl.Series(["a\x00\x07b", "  x\n", "\t", "", "红\u2028鞋"])).to_list() == [
        "a b",
        "x",
        None,
        None,
        "红 鞋",
    ]


def test_whole_numbers_are_whole() -> None:
    assert cast(pl.Series([1.0, 1.5, -2.0]), pl.Int32()).to_list() == [1, None, -2]
    assert cast(pl.Series(["3", "3.5", "x"]), pl.Int32()).to_list() == [3, None, None]
    assert from_python("n", [2**40, 1], pl.Int32()).to_list() == [None, 1]


def test_booleans_as_feeds_write_them() -> None:
    assert cast(pl.Series(["yes", "False", "0", "maybe"]), pl.Boolean()).to_list() == [
        True,
        False,
        False,
        None,
    ]
    assert from_python("b", [True, 0, "no", 2], pl.Boolean()).to_list() == [True, False, False, None]


def test_a_path_of_categories_may_be_one_text() -> None:
    wanted = pl.List(pl.String())
    assert from_python("c", ["Women > Shoes", ["a", None, " b "], 7, None], wanted).to_list() == [
        ["Women", "Shoes"],
        ["a", "b"],
        None,
        None,
    ]


@pytest.mark.parametrize(
    "written",
    [
        {"Color": ["red", "blue"], "Brand": "Zed"},
        '{"Color": ["red", "blue"], "Brand": "Zed"}',
        [
            {"type": "Color", "value": "red"},
            {"key": "Color", "value": "blue"},
            {"type": "Brand", "value": "Zed"},
        ],
    ],
)
def test_attributes_as_files_write_them(written: object) -> None:
    assert attribute_list(written) == [
        {"type": "Color", "value": "red"},
        {"type": "Color", "value": "blue"},
        {"type": "Brand", "value": "Zed"},
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(values=st.lists(JSON, min_size=1, max_size=6))
def test_any_json_becomes_a_typed_column(dtype: pl.DataType, values: list[object]) -> None:
    made = from_python("x", values, dtype)
    assert made.dtype == dtype
    assert len(made) == len(values)
    for value, read in zip(values, made, strict=True):
        if value is None:
            assert read is None


@given(
    st.lists(st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False), min_size=1)
)
def test_numbers_are_kept(values: list[float]) -> None:
    made = from_python("x", values, pl.Float64()).to_list()
    assert all(math.isclose(a, b, rel_tol=1e-15) for a, b in zip(values, made, strict=True))


def test_attributes_from_an_arrow_map_and_from_a_struct() -> None:
    entry = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))
    as_map = pl.Series([[{"key": "Color", "value": "red"}]], dtype=entry)
    as_struct = pl.Series([{"Color": "red", "Brand": None}])
    expected = [[{"type": "Color", "value": "red"}]]
    assert cast(as_map, ATTRIBUTES).to_list() == expected
    assert cast(as_struct, ATTRIBUTES).to_list() == expected
