"""Shoppers' states in an LMDB folder: no server, many readers, one writer at a time.

All entries stand in one table, told apart by the first byte of their key: ``s`` a state by user id, ``h`` one
by the hash of an id too long for a key, ``n`` that id by the same hash, ``m`` a mark, ``c`` the number of
states, ``f`` the format.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import lmdb

from onesearch.errors import ArtifactError, OneSearchError, ServingError, UsageError
from onesearch.shoppers.events import Event, Tally
from onesearch.shoppers.packing import pack
from onesearch.shoppers.state import ShopperState
from onesearch.shoppers.store import StateStore, check_marks, check_named, fold_all, read_state

MAP_BYTES = 32 << 30
"""How large a new store may grow unless told otherwise. The file is only as large as what is in it."""
FORMAT = b"onesearch-states 1"
_FORMAT_KEY, _COUNT_KEY = b"f", b"c"
_STATE, _HASHED, _NAME, _MARK = b"s", b"h", b"n", b"m"
_LONGEST_KEY = 511
_READERS = 1_024
"""Read transactions at one time, of all processes together."""
_PORTION = 1_000
"""States of one transaction where many are written, and ids read at a time."""


class LmdbStates(StateStore):
    """A folder of states. Opened more than once in a process, it is one environment, as LMDB demands."""

    def __init__(self, path: Path | str, read_only: bool = False, map_bytes: int | None = None) -> None:
        """Open a store; one that is not there is made, unless it is to be read only.

        Args:
            path: its folder.
            read_only: refuse to write.
            map_bytes: how large it may grow; a larger one than before enlarges it. None: as it was made,
                :data:`MAP_BYTES` at first.

        Raises UsageError where there is no store to read or the folder holds something else, ArtifactError
        where it is broken, OneSearchError where it cannot be opened.
        """
        path = Path(path)
        self.url = f"lmdb:{path}"
        self.read_only = read_only
        self._opened: _Opened | None = _open(path, self.url, read_only, map_bytes)
        try:
            self._check_format()
        except BaseException:
            self.close()
            raise

    def get(self, user_id: str) -> ShopperState:
        """What is known of a shopper; of an unknown one, a state with nothing but the id."""
        with self._transaction() as transaction:
            packed = transaction.get(_state_key(user_id))
        return read_state(user_id, packed, self.url)

    def get_many(self, user_ids: Sequence[str]) -> list[ShopperState]:
        """The same for several shoppers, of one moment."""
        with self._transaction() as transaction:
            packed = [transaction.get(_state_key(user_id)) for user_id in user_ids]
        return [read_state(user_id, raw, self.url) for user_id, raw in zip(user_ids, packed, strict=True)]

    def update(
        self,
        events: Mapping[str, Sequence[Event]],
        marks: Mapping[str, int] | None = None,
        now: float | None = None,
        after: Mapping[str, int | None] | None = None,
    ) -> Tally:
        """Fold events into states, and write states and marks in one step: see :class:`StateStore`."""
        self._check_writable()
        packed_marks = {
            _mark_key(name): mark.to_bytes(8, "little", signed=True) for name, mark in (marks or {}).items()
        }
        with self._transaction(write=True) as transaction:
            if marks and all(transaction.get(key) == mark for key, mark in packed_marks.items()):
                return Tally(repeated=sum(map(len, events.values())))
            if after:
                stand = {name: transaction.get(_mark_key(name)) for name in after}
                check_marks(self.url, after, {name: _mark(value) for name, value in stand.items()})
            states = (
                read_state(user_id, transaction.get(_state_key(user_id)), self.url) for user_id in events
            )
            changed, tally = fold_all(states, events, now)
            _write(transaction, changed)
            for key, mark in packed_marks.items():
                transaction.put(key, mark)
        return tally

    def put_many(self, states: Iterable[ShopperState]) -> int:
        """Write states as they are, a thousand in a step; return how many."""
        self._check_writable()
        waiting, count = iter(states), 0
        while portion := list(islice(waiting, _PORTION)):
            check_named(portion)
            with self._transaction(write=True) as transaction:
                _write(transaction, portion)
            count += len(portion)
        return count

    def marks(self) -> dict[str, int]:
        """All marks."""
        with self._transaction() as transaction:
            found = list(_entries(transaction, _MARK, _MARK))
        return {key[1:].decode(): int.from_bytes(value, "little", signed=True) for key, value in found}

    def users(self) -> Iterator[str]:
        """The ids of all shoppers; those that come meanwhile may be among them."""
        for prefix in (_NAME, _STATE):
            start = prefix
            while True:
                # A transaction for each portion: pages are not used again while one that saw them is open.
                with self._transaction() as transaction:
                    portion = list(islice(_entries(transaction, prefix, start), _PORTION))
                if not portion:
                    break
                for key, value in portion:
                    yield (value if prefix == _NAME else key[1:]).decode("utf-8", "surrogatepass")
                start = portion[-1][0] + b"\0"

    @property
    def count(self) -> int:
        """How many shoppers there are."""
        with self._transaction() as transaction:
            return _count(transaction)

    def close(self) -> None:
        """Let go of the store; the environment closes when the last of this process does."""
        opened, self._opened = self._opened, None
        if opened is not None:
            _release(opened)

    def _check_format(self) -> None:
        with self._transaction() as transaction:
            found = transaction.get(_FORMAT_KEY)
            empty = transaction.stat()["entries"] == 0
        if found is None and empty and not self.read_only:
            with self._transaction(write=True) as transaction:
                transaction.put(_FORMAT_KEY, FORMAT)
        elif found != FORMAT:
            what = "not a store of shoppers' states" if found is None else f"format {found.decode()!r}"
            raise ArtifactError(f"{self.url}: {what}; this OneSearch reads {FORMAT.decode()!r}")

    @contextmanager
    def _transaction(self, write: bool = False) -> Iterator[lmdb.Transaction[bytes]]:
        """A transaction, committed at the end; errors become those of OneSearch."""
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            state = "closed" if opened is None else "of another process: open it after the fork"
            raise OneSearchError(f"{self.url} is {state}")
        try:
            with opened.environment.begin(write=write) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise _explained(self.url, error) from error


@dataclass
class _Opened:
    """An environment that stores of this process share."""

    environment: lmdb.Environment
    process: int
    file: tuple[int, int]
    holders: int = 0


_OPEN: dict[tuple[int, int], _Opened] = {}
"""By device and number of the data file."""
_LOCK = threading.Lock()


def _open(path: Path, url: str, read_only: bool, map_bytes: int | None) -> _Opened:
    data = path / "data.mdb"
    if not data.is_file():
        if read_only:
            raise UsageError(
                f"no shoppers' states at {path}; make them with: onesearch state build --states {url}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} is not a store of shoppers' states and not empty; name another folder")
    with _LOCK:
        try:
            known = _OPEN.get(_file(data)) if data.is_file() else None
            if known is None or known.process != os.getpid():
                known = _environment(path, map_bytes)
                _OPEN[known.file] = known
            elif map_bytes is not None and map_bytes > known.environment.info()["map_size"]:
                raise UsageError(
                    f"{url} is open in this process, and can only be enlarged when it is opened alone"
                )
        except lmdb.Error as error:
            raise _explained(url, error) from error
        except OSError as error:
            raise OneSearchError(f"{path}: {error.strerror or error}") from error
        known.holders += 1
        return known


def _environment(path: Path, map_bytes: int | None) -> _Opened:
    data = path / "data.mdb"
    exists = data.is_file()
    if not exists:
        path.mkdir(parents=True, exist_ok=True)
    # Writable for a reader too, so that a writer may share it; what a reader may not do is held above.
    writable = os.access(path, os.W_OK) and (not exists or os.access(data, os.W_OK))
    # A size of 0 takes the one that the store was made with.
    environment = lmdb.open(
        os.fspath(path),
        map_size=map_bytes or (0 if exists else MAP_BYTES),
        readonly=not writable,
        readahead=False,
        max_readers=_READERS,
        max_spare_txns=16,
    )
    # Readers that were killed would keep old pages for ever.
    environment.reader_check()
    return _Opened(environment, os.getpid(), _file(data))


def _release(opened: _Opened) -> None:
    with _LOCK:
        opened.holders -= 1
        if opened.holders == 0 and opened.process == os.getpid():
            opened.environment.close()
            if _OPEN.get(opened.file) is opened:
                del _OPEN[opened.file]


def _file(data: Path) -> tuple[int, int]:
    found = data.stat()
    return found.st_dev, found.st_ino


def _explained(url: str, error: lmdb.Error) -> OneSearchError:
    match error:
        case lmdb.MapFullError():
            return OneSearchError(
                f"{url} is full: it may not grow any further; enlarge it with: "
                f"onesearch state build --size-gb … --states {url}"
            )
        case lmdb.MapResizedError():
            return ServingError(f"{url} has been enlarged meanwhile: open it again")
        case lmdb.ReadersFullError():
            return ServingError(f"{url}: more than {_READERS:,} readers at one time")
        case lmdb.InvalidError() | lmdb.CorruptedError() | lmdb.PanicError() | lmdb.VersionMismatchError():
            return ArtifactError(f"{url}: not a store of shoppers' states, or a broken one ({error})")
        case _:
            return OneSearchError(f"{url}: {error}")


def _state_key(user_id: str) -> bytes:
    encoded = user_id.encode("utf-8", "surrogatepass")
    if len(encoded) < _LONGEST_KEY:
        return _STATE + encoded
    return _HASHED + blake2b(encoded, digest_size=32).digest()


def _mark_key(name: str) -> bytes:
    key = _MARK + name.encode()
    if len(key) > _LONGEST_KEY:
        raise UsageError(
            f"a mark's name may have {_LONGEST_KEY - 1} bytes: {name[:40]!r}… has {len(key) - 1}"
        )
    return key


def _mark(packed: bytes | None) -> int | None:
    return None if packed is None else int.from_bytes(packed, "little", signed=True)


def _write(transaction: lmdb.Transaction[bytes], states: Iterable[ShopperState]) -> None:
    added = 0
    for state in states:
        key = _state_key(state.user_id)
        packed = pack(state)
        if transaction.put(key, packed, overwrite=False):
            added += 1
            if key.startswith(_HASHED):
                transaction.put(_NAME + key[1:], state.user_id.encode("utf-8", "surrogatepass"))
        else:
            transaction.put(key, packed)
    if added:
        transaction.put(_COUNT_KEY, (_count(transaction) + added).to_bytes(8, "little"))


def _count(transaction: lmdb.Transaction[bytes]) -> int:
    return int.from_bytes(transaction.get(_COUNT_KEY) or b"", "little")


def _entries(
    transaction: lmdb.Transaction[bytes], prefix: bytes, start: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Keys with a prefix, from ``start`` on, and their values; those of states are left where they are."""
    with transaction.cursor() as cursor:
        found = cursor.set_range(start)
        while found and (key := cursor.key()).startswith(prefix):
            yield key, b"" if prefix == _STATE else cursor.value()
            found = cursor.next()
