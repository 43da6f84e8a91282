"""The store: a catalogue and its logs as Parquet on disk.

A store is a folder. ``store.json`` names the format version and every file with its rows and sha256, and
points to one ``data-…`` folder. Replacing that one small file is what makes a new import visible, so a
reader sees either the old store or the new one, whole. The data folder before the current one is kept, for
readers that are still at it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import polars as pl

from onesearch.data.schemas import TABLE_NAMES, TableName, schema
from onesearch.errors import ArtifactError, UsageError

FORMAT_NAME = "onesearch-store"
FORMAT_VERSION = 1
MANIFEST = "store.json"


@dataclass(frozen=True)
class Store:
    """An opened store; reads are lazy except for the items.

    Attributes:
        path: the store's folder.
        manifest: what ``store.json`` says: source, whether the data is simulated, counts, and files by table.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store.

        Raises UsageError where there is none, ArtifactError naming the file that is missing, short or
        broken, or the format version that this OneSearch does not read.
        """
        path = Path(path)
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{path} is not a store; make one with: onesearch import … --store {path}"
            ) from None
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{file}: cannot be read as a store's manifest ({error})") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_NAME:
            raise ArtifactError(f"{file}: not the manifest of a {FORMAT_NAME}")
        version = manifest.get("version")
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{file}: {FORMAT_NAME} format {version}; this OneSearch reads format {FORMAT_VERSION}: "
                "import the data again, or use the OneSearch that wrote it"
            )
        store = cls(path, manifest)
        store._check_files()
        return store

    def _check_files(self) -> None:
        try:
            for table in TABLE_NAMES:
                for part in self.manifest["tables"][table]:
                    file = self._data / part["file"]
                    if not file.is_file():
                        raise ArtifactError(f"{file}: missing from the store")
                    if file.stat().st_size != part["bytes"]:
                        raise ArtifactError(
                            f"{file}: {file.stat().st_size} bytes, the manifest says {part['bytes']}"
                        )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self.path / MANIFEST}: an entry is missing or of the wrong type ({error})"
            ) from error

    @property
    def _data(self) -> Path:
        return self.path / str(self.manifest["data"])

    @property
    def source(self) -> str:
        """What the store was imported from, e.g. ``homedepot``."""
        return str(self.manifest["source"])

    @property
    def simulated(self) -> bool:
        """Whether the shoppers and logs are simulated: figures measured on them must say so."""
        return bool(self.manifest["simulated"])

    def count(self, table: TableName) -> int:
        """Number of rows of a table."""
        return sum(part["rows"] for part in self.manifest["tables"][table])

    def scan(self, table: TableName) -> pl.LazyFrame:
        """Any table, lazily, in the order of import."""
        parts = [self._data / part["file"] for part in self.manifest["tables"][table]]
        if not parts:
            return pl.LazyFrame(schema=schema(table))
        return pl.scan_parquet(parts)

    @cached_property
    def _items(self) -> pl.DataFrame:
        try:
            return self.scan("items").collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ArtifactError(f"{self._data}: the items cannot be read ({error})") from error

    def items(self) -> pl.DataFrame:
        """The catalogue; the row of an item is its item number.

        Columns: item_id str, title str, category list[str] coarse → fine, attributes list[struct{type,
        value}] of the 18 types, price f64 or null, detail_text, ocr_text, image_uri str or null, in_stock
        bool.
        """
        return self._items

    def shoppers(self) -> pl.LazyFrame:
        """Columns: user_id str, profile list[str] (labels)."""
        return self.scan("shoppers")

    def interactions(self) -> pl.LazyFrame:
        """What shoppers were shown and did. May name items that the catalogue does not hold (any more): join.

        Columns: event_id str, ts datetime[us, UTC], user_id str, session_id, request_id str or null, scene
        ``search`` or ``recommend``, query str or null, item_id str, action ``impression``, ``click`` or
        ``order``, position i32 (0 is the first) or null, score, propensity f32 or null, release str or
        null.
        """
        return self.scan("interactions")

    def relevance(self) -> pl.LazyFrame:
        """Judged pairs. Columns: query str, item_id str, grade f32 in [0, 1]."""
        return self.scan("relevance")

    def fingerprint(self) -> str:
        """32 hex digits that change with any byte of the data; the same import gives the same ones."""
        digest = hashlib.sha256()
        for table in TABLE_NAMES:
            for part in self.manifest["tables"][table]:
                digest.update(f"{table} {part['rows']} {part['sha256']}\n".encode())
        return digest.hexdigest()[:32]

    def verify(self) -> None:
        """Read every file whole; ArtifactError names the first that is not as it was written."""
        for table in TABLE_NAMES:
            for part in self.manifest["tables"][table]:
                file = self._data / part["file"]
                with file.open("rb") as opened:
                    found = hashlib.file_digest(opened, "sha256").hexdigest()
                if found != part["sha256"]:
                    raise ArtifactError(f"{file}: its bytes are not those that the import wrote")

    def extra(self, name: str) -> dict[str, Any]:
        """A JSON document that the importer put beside the tables, e.g. ``simulation``; {} without."""
        return cast(dict[str, Any], self.manifest.get("extra", {}).get(name, {}))
