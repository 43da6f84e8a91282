"""Entry points by which installed parts add to the core, and what they say of themselves unimported."""

from __future__ import annotations

import ast
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path


def points(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group, by name."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def summary(point: EntryPoint) -> str:
    """First line of a function's docstring, or of its module's; read without importing it."""
    try:
        spec = find_spec(point.module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except (ImportError, OSError):
        return f"(cannot be found: {point.value})"
    parsed = ast.parse(source)
    functions = [node for node in parsed.body if isinstance(node, ast.FunctionDef)]
    texts = [ast.get_docstring(node) or "" for node in functions if node.name == point.attr]
    return (texts[0] if texts else ast.get_docstring(parsed) or "").partition("\n\n")[0]
