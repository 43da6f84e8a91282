"""One change of the catalogue: an item put, an item's price or stock patched, an item withdrawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import polars as pl

from onesearch.data.schemas import ATTRIBUTE_TYPES, ATTRIBUTES, LONG_TEXT_LIMIT, TEXT_LIMIT
from onesearch.errors import DataError

Action = Literal["put", "patch", "withdraw"]
ACTIONS: tuple[str, ...] = get_args(Action)
LINE_BYTES = 4 << 20
"""The longest line that a file of changes may have."""
MOST_POPULAR = 1e12

SCHEMA = {
    "item_id": pl.String(),
    "action": pl.String(),
    "title": pl.String(),
    "category": pl.List(pl.String()),
    "attributes": ATTRIBUTES,
    "brand": pl.String(),
    "price": pl.Float64(),
    "in_stock": pl.Boolean(),
    "popularity": pl.Float64(),
    "detail_text": pl.String(),
    "ocr_text": pl.String(),
    "image_uri": pl.String(),
}
"""Columns of a table of changes."""
PATCHED = ("price", "in_stock", "popularity")
_TEXTS = {"title": TEXT_LIMIT, "brand": TEXT_LIMIT, "image_uri": TEXT_LIMIT} | dict.fromkeys(
    ("detail_text", "ocr_text"), LONG_TEXT_LIMIT
)


@dataclass(frozen=True)
class Change:
    """What happens to one item.

    Attributes:
        action: ``put`` makes the item what is told here, whether it was there or not; ``patch`` changes what
            is given of :data:`PATCHED` of an item that is there; ``withdraw`` takes it out.
        title: needed to put an item.
        attributes: pairs of attribute type and value.
        brand: where no attribute is one.
        popularity: positive, on the scale of the release's; without it a new item counts as a middling one.
        the others: as in the store's items; None: not told.
    """

    item_id: str
    action: Action = "put"
    title: str | None = None
    category: tuple[str, ...] | None = None
    attributes: tuple[tuple[str, str], ...] | None = None
    brand: str | None = None
    price: float | None = None
    in_stock: bool | None = None
    popularity: float | None = None
    detail_text: str | None = None
    ocr_text: str | None = None
    image_uri: str | None = None

    def __post_init__(self) -> None:
        """Raises DataError naming the field that does not fit."""
        if not self.item_id or len(self.item_id) > TEXT_LIMIT:
            raise DataError(f"item_id: empty, or longer than {TEXT_LIMIT:,} characters")
        if self.action not in ACTIONS:
            raise DataError(f"action: {self.action!r} is none of {', '.join(ACTIONS)}")
        for name, limit in _TEXTS.items():
            if len(getattr(self, name) or "") > limit:
                raise DataError(f"{name}: longer than {limit:,} characters")
        if any(len(value) > TEXT_LIMIT for value in self.category or ()):
            raise DataError(f"category: a name is longer than {TEXT_LIMIT:,} characters")
        for kind, value in self.attributes or ():
            if kind not in ATTRIBUTE_TYPES or len(value) > TEXT_LIMIT:
                raise DataError(f"attributes: {kind!r} is none of {', '.join(ATTRIBUTE_TYPES)}, or too long")
        if self.price is not None and not 0 <= self.price <= 1e12:
            raise DataError(f"price: {self.price} is not a price (a finite number, zero or more)")
        if self.popularity is not None and not 0 < self.popularity <= MOST_POPULAR:
            raise DataError(f"popularity: {self.popularity} is not a finite number above 0")
        if self.action == "put" and not (self.title or "").strip():
            raise DataError("title: empty, and an item is put")
        if self.action == "patch":
            told = [one.name for one in fields(self)[2:] if getattr(self, one.name) is not None]
            if wrong := [name for name in told if name not in PATCHED]:
                raise DataError(f"{wrong[0]}: a patch tells only {', '.join(PATCHED)}; put the item anew")
            if not told:
                raise DataError(f"a patch tells one of {', '.join(PATCHED)}")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Change:
        """From JSON or a row of a table. Raises DataError naming the field that does not fit."""
        known = {name: value for name, value in row.items() if value is not None}
        if unknown := sorted(set(known) - set(SCHEMA)):
            raise DataError(f"{unknown[0]}: unknown; fields are {', '.join(SCHEMA)}")
        values: dict[str, Any] = {}
        for name, value in known.items():
            values[name] = _READ[name](name, value)
        if "item_id" not in values:
            raise DataError("item_id: missing")
        return cls(**values)

    def then(self, later: Change) -> Change:
        """What this change and a later one of the same item come to."""
        if later.action != "patch":
            # How popular an item is outlives what it is called, and whether it is there.
            return replace(later, popularity=later.popularity or self.popularity)
        if self.action == "withdraw":
            return self  # there is nothing to patch until it is put again
        told = {name: getattr(later, name) for name in PATCHED if getattr(later, name) is not None}
        return replace(self, **told)


def folded(changes: Iterable[Change]) -> dict[str, Change]:
    """Each item's changes as one, in order of arrival."""
    known: dict[str, Change] = {}
    for change in changes:
        before = known.get(change.item_id)
        known[change.item_id] = change if before is None else before.then(change)
    return known


def table_of(changes: Sequence[Change]) -> pl.DataFrame:
    """As a table of :data:`SCHEMA`."""
    rows = []
    for change in changes:
        row = asdict(change)
        if change.attributes is not None:
            row["attributes"] = [{"type": kind, "value": value} for kind, value in change.attributes]
        rows.append(row)
    return pl.DataFrame(rows, schema=SCHEMA)


def changes_of(table: pl.DataFrame) -> list[Change]:
    """Read what :func:`table_of` made, or a table of some of its columns."""
    return [Change.of(row) for row in table.iter_rows(named=True)]


def read_changes(path: Path) -> Iterator[Change]:
    """The changes of a file: JSON lines, or Parquet by its suffix.

    Raises DataError naming the file, and the row and field that do not fit.
    """
    rows = _parquet_rows(path) if path.suffix in (".parquet", ".pq") else _json_rows(path)
    for number, row in enumerate(rows, start=1):
        try:
            yield Change.of(row)
        except DataError as error:
            raise DataError(f"{path.name}, row {number}: {error}") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from pl.read_parquet(path).iter_rows(named=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES + 1):
                number += 1
                if len(line) > LINE_BYTES:
                    raise DataError(f"{path.name}, row {number}: longer than {LINE_BYTES:,} bytes")
                yield json_row(line, f"{path.name}, row {number}: ")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def json_row(line: bytes, where: str = "") -> dict[str, Any]:
    """One JSON object. Raises DataError."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}a JSON object belongs here")
    return row


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name}: {value!r:.40} is not a text")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name}: {value!r:.40} is not a finite number")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"{name}: {value!r:.40} is neither true nor false")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(f"{name}: {value!r:.40} is not a list of texts")
    return tuple(_text(name, one) for one in value)


def _attributes(name: str, value: object) -> tuple[tuple[str, str], ...]:
    """From a list of {type, value}, or from an object of type → value or values."""
    if isinstance(value, Mapping):
        given = [
            (kind, one)
            for kind, own in value.items()
            for one in (own if isinstance(own, Sequence) and not isinstance(own, str) else [own])
        ]
    elif isinstance(value, Sequence) and all(isinstance(one, Mapping) for one in value):
        given = [(one.get("type"), one.get("value")) for one in cast(Sequence[Mapping[str, Any]], value)]
    else:
        raise DataError(f"{name}: {value!r:.40} is not a list of type and value")
    return tuple((_text(name, kind), _text(name, own)) for kind, own in given)


_READ: dict[str, Any] = {
    **dict.fromkeys(SCHEMA, _text),
    "category": _texts,
    "attributes": _attributes,
    "price": _number,
    "in_stock": _flag,
    "popularity": _number,
}
