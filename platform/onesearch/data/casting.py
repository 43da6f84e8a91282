"""Values as files hold them → values as the store holds them; what cannot be read becomes null."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from onesearch.data.schemas import ATTRIBUTES, TIME

_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+"
_SECONDS_END, _MILLIS_END = 1e11, 1e14
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def kind_of(dtype: pl.DataType) -> str:
    """A type in people's words."""
    if dtype == ATTRIBUTES:
        return "a map from attribute types to values"
    if dtype == pl.List(pl.String):
        return "a list of texts"
    if dtype == TIME:
        return "a time (ISO 8601, or seconds, milliseconds or microseconds since 1970)"
    if dtype == pl.Boolean:
        return "true or false"
    if dtype.is_integer():
        return "a whole number"
    return "a number" if dtype.is_numeric() else "text"


def takes(found: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether a file's column of type ``found`` can hold values of type ``wanted``."""
    text_like = found in (pl.String, pl.Categorical, pl.Enum)
    if found == pl.Null:
        return True
    if wanted == ATTRIBUTES:
        return isinstance(found, pl.List | pl.Struct) or found == pl.String
    if wanted == pl.List(pl.String):
        return text_like or (isinstance(found, pl.List) and takes(_inner(found), pl.String()))
    if wanted == TIME:
        return found.is_numeric() or text_like or found in (pl.Datetime, pl.Date)
    if wanted == pl.Boolean:
        return found == pl.Boolean or found.is_numeric() or text_like
    if wanted.is_numeric():
        return found.is_numeric() or text_like
    return text_like or found.is_integer()


def _inner(found: pl.List) -> pl.DataType:
    inner = found.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def cast(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    """Convert a column whose type :func:`takes` allows; what cannot be read, and empty text, is null."""
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.Null:
        return values.cast(wanted)
    if wanted == ATTRIBUTES:
        return _attributes(values)
    if wanted == pl.List(pl.String):
        return _texts(values)
    if wanted == TIME:
        return _times(values)
    if wanted == pl.Boolean:
        return _booleans(values)
    if wanted.is_numeric():
        return _numbers(values, wanted)
    return clean(values.cast(pl.String))


def clean(values: pl.Series) -> pl.Series:
    """Text without control characters and outer spaces; empty text is null."""
    text = values.str.replace_all(_CONTROL, " ").str.strip_chars()
    return text.set(text == "", None)


def _numbers(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    if values.dtype == pl.String:
        values = values.str.strip_chars().cast(pl.Float64, strict=False)
    if wanted.is_integer() and not values.dtype.is_integer():
        values = values.cast(pl.Float64)
        values = values.set(values != values.floor(), None)
    return values.cast(wanted, strict=False)


def _booleans(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    if values.dtype.is_numeric():
        return (values == 1).set((values != 0) & (values != 1), None)
    text = values.str.strip_chars().str.to_lowercase()
    known = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
    return text.replace_strict(known, default=None, return_dtype=pl.Boolean)


def _times(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(values.dtype, pl.Datetime):
        zoned = (
            values.dt.replace_time_zone("UTC")
            if values.dtype.time_zone is None
            else values.dt.convert_time_zone("UTC")
        )
        return zoned.dt.cast_time_unit("us")
    if values.dtype.is_numeric():
        number = values.cast(pl.Float64)
        # By size: 1e11 seconds is the year 5138, 1e14 milliseconds likewise.
        scale = (
            pl.when(number.abs() < _SECONDS_END)
            .then(1e6)
            .when(number.abs() < _MILLIS_END)
            .then(1e3)
            .otherwise(1.0)
        )
        micros = (pl.lit(number) * scale).round()
        # Years 5 to 9987: what datetimes can hold, wherever they are read.
        kept = pl.select(pl.when(micros.is_between(-6.2e16, 2.53e17)).then(micros)).to_series()
        return kept.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    # The parser wants one shape: 2024-05-01T12:30:00.5+00:00.
    text = values.str.strip_chars().str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d) +", "${1}T").str.replace(r"(?i)z$", "+00:00")
    text = text.str.replace(r"([+-]\d\d)(\d\d)$", "${1}:${2}").str.replace(
        r"(T\d\d:\d\d)($|[+-])", "${1}:00${2}"
    )
    text = text.str.replace(r"(T\d\d:\d\d:\d\d(?:\.\d+)?)$", "${1}+00:00")
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False).dt.convert_time_zone(
        "UTC"
    )


def _texts(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        # "Women > Shoes > Boots", as feeds write a path.
        values = values.str.split(">")
    parts = (
        pl.col("parts")
        .cast(pl.List(pl.String))
        .list.eval(pl.element().str.replace_all(_CONTROL, " ").str.strip_chars())
    )
    kept = parts.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != "")))
    return values.alias("parts").to_frame().select(kept).to_series().rename(values.name)


def _attributes(values: pl.Series) -> pl.Series:
    if (
        values.dtype == ATTRIBUTES
        and not values.list.eval(pl.element().struct["value"].str.contains(_CONTROL)).list.any().any()
    ):
        return values
    return from_python(values.name, values.to_list(), ATTRIBUTES)


def from_python(name: str, values: Sequence[Any], wanted: pl.DataType) -> pl.Series:
    """Python values, of any mixture of types, to a column; what is not of the wanted type becomes null."""
    if wanted == ATTRIBUTES or wanted == pl.List(pl.String):
        one = attribute_list if wanted == ATTRIBUTES else _text_list
        return pl.Series(name, [_or_none(one, value) for value in values], dtype=wanted)
    kinds = set(map(type, values)) - {type(None)}
    made = pl.Series(name, [None], dtype=wanted).new_from_index(0, len(values))
    # A column is nearly always of one kind; of a mixture each kind is read on its own.
    for kind, reader, dtype in _READERS:
        if kind in kinds and takes(dtype, wanted):
            own = values if kinds == {kind} else [value if type(value) is kind else None for value in values]
            found = cast(pl.Series(name, reader(own), dtype=dtype, strict=False), wanted)
            made = found if kinds == {kind} else made.fill_null(found)
    if int in kinds and wanted == pl.String:
        digits = [str(value) if type(value) is int else None for value in values]
        made = made.fill_null(pl.Series(name, digits, dtype=pl.String))
    return made


def _as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _encodable(values: Sequence[Any]) -> Sequence[Any]:
    """Texts without those that hold half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        "".join(value for value in values if value is not None).encode()
    except UnicodeEncodeError:
        return [_or_none(_encoded, value) for value in values]
    return values


def _encoded(value: str) -> str:
    value.encode()
    return value


def _floats(values: Sequence[Any]) -> Sequence[Any]:
    """Whole numbers as floats, which hold more of them than 64 bits do."""
    return [_or_none(float, value) for value in values]


_READERS: tuple[tuple[type, Callable[[Sequence[Any]], Sequence[Any]], pl.DataType], ...] = (
    (str, _encodable, pl.String()),
    (float, _as_they_are, pl.Float64()),
    (int, _floats, pl.Float64()),
    (bool, _as_they_are, pl.Boolean()),
)


def _or_none(reader: Callable[[Any], Any], value: Any) -> Any:
    if value is None:
        return None
    try:
        return reader(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    text = str(value)
    text.encode()
    return re.sub(_CONTROL, " ", text).strip()


def _text_list(value: Any) -> list[str]:
    parts = value.split(">") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    return [text for text in (_text(part) for part in parts if part is not None) if text]


def attribute_list(value: Any) -> list[dict[str, str]]:
    """Attributes as files write them → ``[{type, value}, …]``.

    Taken: a list of ``{type, value}`` or ``{key, value}``, a map from type to a value or to a list of
    values, and a text that holds either as JSON. Raises TypeError or ValueError.
    """
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    if isinstance(value, dict):
        pairs = [
            (kind, one)
            for kind, many in value.items()
            for one in (many if isinstance(many, list) else [many])
        ]
    elif isinstance(value, list):
        pairs = [
            (entry.get("type", entry.get("key")), entry.get("value")) for entry in value if _is_entry(entry)
        ]
    else:
        raise TypeError
    texts = [(_text(kind), _text(one)) for kind, one in pairs if one is not None]
    return [{"type": kind, "value": one} for kind, one in texts if one]


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        raise TypeError
    return True
