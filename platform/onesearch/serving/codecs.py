"""Small structures as the text tensors of the Triton models: filters, shopper state, notes on query and
shopper.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onesearch.contracts.tokenizer import Keyword
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError, UsageError
from onesearch.index import Filters
from onesearch.serving.shopper_view import ShopperView
from onesearch.shoppers.packing import pack, unpack

CATEGORY_SEPARATOR = "\x1f"


def write_filters(filters: Filters) -> bytes:
    """Filters as JSON; no filters are empty bytes."""
    if not filters:
        return b""
    given = {name: value for name, value in asdict(filters).items() if value != getattr(Filters(), name)}
    return _json(given)


def read_filters(raw: bytes) -> Filters:
    """What :func:`write_filters` wrote. Raises UsageError where it is something else."""
    values = _object(raw, "FILTERS")
    for name in ("category", "brands"):
        if name in values:
            values[name] = tuple(map(str, values[name]))
    try:
        return Filters(**values)
    except TypeError as error:
        raise UsageError(f"FILTERS: {error}") from error


def write_state(state: ShopperState) -> bytes:
    """A shopper's state as the state stores keep it; one that nothing is known of is empty bytes."""
    return pack(state)


def read_state(raw: bytes) -> ShopperState:
    """What :func:`write_state` wrote. Raises UsageError where it is something else."""
    try:
        return unpack(raw)
    except ArtifactError as error:
        raise UsageError(f"STATE: {error}") from error


def write_notes(keywords: Sequence[Keyword], meanings: Sequence[str]) -> bytes:
    """What a tokenizer says about a query, as JSON."""
    return _json({"keywords": [[word.text, word.attribute] for word in keywords], "meanings": list(meanings)})


def read_notes(raw: bytes) -> tuple[tuple[Keyword, ...], tuple[str, ...]]:
    """Keywords and one meaning a code, as :func:`write_notes` wrote them."""
    values = _object(raw, "NOTES")
    keywords = tuple(Keyword(text, attribute) for text, attribute in values.get("keywords", ()))
    return keywords, tuple(values.get("meanings", ()))


def write_view(view: ShopperView | None) -> bytes:
    """How a shopper is seen, as JSON; empty where there is nothing to say."""
    return b"" if view is None else _json(view.as_dict())


def read_view(raw: bytes) -> ShopperView | None:
    """What :func:`write_view` wrote."""
    return ShopperView.of(_object(raw, "SHOPPER")) if raw else None


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() if values else b""


def _object(raw: bytes, name: str) -> dict[str, Any]:
    if not raw:
        return {}
    try:
        values = json.loads(raw)
    except ValueError as error:
        raise UsageError(f"{name}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{name}: a JSON object belongs here")
    return values
