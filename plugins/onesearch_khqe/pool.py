"""The keyword pool: which words name an attribute, ranked by page views."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onesearch.errors import ArtifactError

from onesearch_khqe.attributes import ATTRIBUTES, NUMBER


@dataclass(frozen=True)
class KeywordPool:
    """Keywords of the 18 attribute types; within a type the most viewed first.

    Attributes:
        texts: normalised surface forms; one may stand under several types.
        types: u8[P], index into :data:`ATTRIBUTES`.
        views: i64[P], page views of the clicked or judged pairs whose item (or title) carries the keyword.
        core: bool[P], the head of its type's ranking.
    """

    texts: tuple[str, ...]
    types: np.ndarray
    views: np.ndarray
    core: np.ndarray

    @classmethod
    def ranked(
        cls, views: Iterable[tuple[str, str, int]], size: int = 20_000, core_share: float = 0.9
    ) -> KeywordPool:
        """Rank ``(text, attribute type, page views)`` within each type; ties by text.

        The core of a type is the shortest head with ``core_share`` of the type's page views; a keyword that
        nobody viewed is never core.
        """
        by_type: dict[int, list[tuple[int, str]]] = {}
        for text, attribute, count in views:
            by_type.setdefault(NUMBER[attribute], []).append((count, text))
        texts: list[str] = []
        types: list[int] = []
        counts: list[int] = []
        core: list[bool] = []
        for number in sorted(by_type):
            rows = sorted(by_type[number], key=lambda row: (-row[0], row[1]))[:size]
            wanted = core_share * sum(count for count, _ in rows)
            seen = 0
            for count, text in rows:
                texts.append(text)
                types.append(number)
                counts.append(count)
                core.append(count > 0 and seen < wanted)
                seen += count
        return cls(tuple(texts), np.array(types, np.uint8), np.array(counts, np.int64), np.array(core, bool))

    def __len__(self) -> int:
        return len(self.texts)

    def attribute(self, entry: int) -> str:
        """Name of an entry's attribute type."""
        return ATTRIBUTES[self.types[entry]]

    def by_text(self) -> dict[str, int]:
        """Surface form → its most viewed entry."""
        best: dict[str, int] = {}
        for entry, text in enumerate(self.texts):
            other = best.get(text)
            if other is None or self.views[entry] > self.views[other]:
                best[text] = entry
        return best

    def save(self, path: Path) -> None:
        """Write as JSON: one list of keywords per attribute type, each ``[text, page views, core]``."""
        pool: dict[str, list[list[object]]] = {}
        for entry, text in enumerate(self.texts):
            row: list[object] = [text, int(self.views[entry]), bool(self.core[entry])]
            pool.setdefault(self.attribute(entry), []).append(row)
        path.write_text(json.dumps(pool, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> KeywordPool:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file."""
        try:
            pool = json.loads(path.read_text(encoding="utf-8"))
            rows = [
                (str(text), NUMBER[name], int(views), bool(core))
                for name, entries in pool.items()
                for text, views, core in entries
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: not a keyword pool ({error!r})") from error
        texts, types, counts, core = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(tuple(texts), np.array(types, np.uint8), np.array(counts, np.int64), np.array(core, bool))
