"""Writing TOML that ``tomllib`` reads. Only what a configuration holds: no dates, no arrays of tables."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_toml(tables: Mapping[str, BaseModel | Mapping[str, Any]], documented: bool = False) -> str:
    """Tables by dotted name → TOML text; ``documented`` puts each field's text above it as a comment."""
    lines = [line for name, table in tables.items() for line in _table(name, table, documented)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(name: str, table: BaseModel | Mapping[str, Any], documented: bool) -> list[str]:
    values, about = _fields(table)
    lines = ["", f"[{name}]"]
    inner: list[str] = []
    for key, value in values.items():
        if isinstance(value, BaseModel | Mapping):
            inner += _table(f"{name}.{_key(key)}", value, documented)
            continue
        if documented and about.get(key):
            text = " ".join(about[key].split())
            lines += textwrap.wrap(text, 108, initial_indent="# ", subsequent_indent="# ")
        # TOML has no null; a field that is None is left out, or shown as a comment where people read it.
        if value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
        elif documented:
            lines.append(f"# {_key(key)} = (none)")
    return lines + inner


def _fields(table: BaseModel | Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Values and descriptions by field name."""
    if not isinstance(table, BaseModel):
        return table, {}
    fields = type(table).model_fields
    about = {key: info.description or "" for key, info in fields.items()}
    return {key: getattr(table, key) for key in fields}, about


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, except that TOML wants DEL escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            if math.isfinite(value):
                return repr(float(value))
            return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        case str() | PurePath():
            return _string(str(value))
        case list() | tuple() | set() | frozenset():
            ordered = sorted(value) if isinstance(value, set | frozenset) else value
            return "[" + ", ".join(_value(entry) for entry in ordered) + "]"
        case BaseModel():
            return _value(_fields(value)[0])
        case Mapping():
            pairs = [f"{_key(str(key))} = {_value(entry)}" for key, entry in value.items()]
            return "{" + ", ".join(pairs) + "}"
        case _:
            raise TypeError(f"a {type(value).__name__} has no TOML form")
