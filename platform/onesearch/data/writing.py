"""Writing a store: everything goes to a new folder, which becomes the store in one atomic step."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import polars as pl

from onesearch._files import sync
from onesearch.data.schemas import TABLE_NAMES, TableName, schema
from onesearch.data.store import FORMAT_NAME, FORMAT_VERSION, MANIFEST, Store
from onesearch.errors import OneSearchError, UsageError

PART_ROWS = 500_000
"""Rows of one Parquet file: what is held in memory before it is written."""
_LOCK = ".lock"
REJECTED = "rejected.jsonl"


class StoreWriter:
    """Writes one store; leave the ``with`` block without an exception and it replaces the old one.

    Whatever goes wrong before that, a kill included, leaves the old store as it was; what is left over is
    removed by the next writer. Only one process writes a store at a time. Raises UsageError where the
    folder holds something that is not a store or is being written, OneSearchError where nothing can be
    written.
    """

    def __init__(
        self, path: Path | str, source: str, simulated: bool = False, part_rows: int = PART_ROWS
    ) -> None:
        self.path = Path(path)
        self._about: dict[str, Any] = {"source": source, "simulated": simulated}
        self._extra: dict[str, Any] = {}
        self._part_rows = part_rows
        self._data = self.path / f"data-{secrets.token_hex(6)}"
        self._waiting: dict[TableName, list[pl.DataFrame]] = {name: [] for name in TABLE_NAMES}
        self._parts: dict[TableName, list[dict[str, Any]]] = {name: [] for name in TABLE_NAMES}
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in self.path.iterdir() if not _ours(entry.name))
            if foreign:
                raise UsageError(
                    f"{self.path} is not a store and not empty (it holds '{foreign[0]}'); name another folder"
                )
            self._lock = (self.path / _LOCK).open("w", encoding="utf-8")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise UsageError(
                    f"{self.path}: another import is writing this store; wait for it to end"
                ) from None
            self._sweep(keep=_current_data(self.path))
            self._data.mkdir()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
            else:
                shutil.rmtree(self._data, ignore_errors=True)
        except BaseException as failed:
            if _current_data(self.path) != self._data.name:
                shutil.rmtree(self._data, ignore_errors=True)
                if isinstance(failed, OSError):
                    raise _cannot_write(self.path, failed) from failed
            raise
        finally:
            if self._lock is not None:
                self._lock.close()

    def write(self, table: TableName, rows: pl.DataFrame) -> None:
        """Add rows to a table; their columns must be the table's, missing ones are null."""
        wanted = schema(table)
        columns = [
            pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in wanted.items()
        ]
        self._waiting[table].append(rows.select(columns))
        while sum(map(len, self._waiting[table])) >= self._part_rows:
            whole = pl.concat(self._waiting[table])
            self._write_part(table, whole[: self._part_rows])
            self._waiting[table] = [whole[self._part_rows :]]

    def adopt(self, table: TableName, store: Store) -> None:
        """Take over another store's files of a table as they are: linked where that is possible."""
        for part in store.manifest["tables"][table]:
            if not part["rows"]:
                continue
            name = f"{table}-{len(self._parts[table]):05d}.parquet"
            source, target = store.path / str(store.manifest["data"]) / part["file"], self._data / name
            try:
                os.link(source, target)
            except OSError:  # another file system
                try:
                    shutil.copyfile(source, target)
                except OSError as error:
                    raise _cannot_write(target, error) from error
            self._parts[table].append({**part, "file": name})

    def note(self, name: str, document: dict[str, Any]) -> None:
        """Put a JSON document into the manifest: read again by :meth:`Store.extra`."""
        self._extra[name] = document

    def count(self, table: TableName) -> int:
        """Rows written so far."""
        return sum(part["rows"] for part in self._parts[table]) + sum(map(len, self._waiting[table]))

    def _write_part(self, table: TableName, rows: pl.DataFrame) -> None:
        # Through memory, not by polars itself: a full disk is then an OSError here, and the hash comes for
        # free.
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd", compression_level=3, statistics=True)
        content = buffer.getbuffer()
        name = f"{table}-{len(self._parts[table]):05d}.parquet"
        _write_file(self._data / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self._parts[table].append({"file": name, "rows": len(rows), "bytes": len(content), "sha256": digest})

    def _commit(self) -> None:
        for table in TABLE_NAMES:
            rest = (
                pl.concat(self._waiting[table])
                if self._waiting[table]
                else pl.DataFrame(schema=schema(table))
            )
            if len(rest) or not self._parts[table]:
                self._write_part(table, rest)
            self._waiting[table] = []
        manifest = {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **self._about,
            "data": self._data.name,
            "counts": {table: self.count(table) for table in TABLE_NAMES},
            "extra": self._extra,
            "tables": self._parts,
        }
        before = _current_data(self.path)
        sync(self._data)
        draft = self.path / f"{MANIFEST}.{self._data.name}"
        _write_file(draft, json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        draft.replace(self.path / MANIFEST)
        sync(self.path)
        self._sweep(keep=self._data.name, also=before)

    def _sweep(self, keep: str | None, also: str | None = None) -> None:
        """Remove what interrupted writers and older stores left."""
        for entry in self.path.iterdir():
            stale_data = entry.name.startswith("data-") and entry.name not in (keep, also)
            if stale_data:
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name.startswith(f"{MANIFEST}."):
                entry.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    return name in (MANIFEST, _LOCK) or name.startswith(("data-", f"{MANIFEST}.", REJECTED))


def _current_data(path: Path) -> str | None:
    """Name of the data folder that the store in ``path`` points to; None without a readable one."""
    try:
        return Store.open(path)._data.name
    except OneSearchError:
        try:
            return str(json.loads((path / MANIFEST).read_text(encoding="utf-8"))["data"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _write_file(path: Path, content: memoryview | bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OneSearchError:
    return OneSearchError(f"{path}: cannot be written ({error.strerror or error}); the store is as it was")
