"""A bounded queue of messages on disk, for the time that Kafka is down.

A folder of numbered segments and a cursor. What :meth:`Spool.append` has returned from survives a kill and a
power cut. A message that was read but not yet marked as done is read again after a restart, so that it may be
sent twice; readers of the topic know it by its event id.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from zlib import crc32

from onesearch._files import sync
from onesearch.errors import OneSearchError, UsageError
from onesearch.kafka.contract import Record

SEGMENT_BYTES = 4 * 1024 * 1024
_LOG = logging.getLogger("onesearch.events")
_HEAD = struct.Struct("<II")  # length and crc32 of what follows
_TOPIC_AND_KEY = struct.Struct("<HH")
_CURSOR, _LOCK, _ENDING = "cursor", ".lock", ".spool"
_LONGEST = 64 * 1024 * 1024


class Spool:
    """First in, first out. One thread at a time; one process, which is held by a lock.

    Attributes:
        limit_bytes: what the folder may take; messages beyond it are not taken in.
        lost: messages found unreadable since it was opened: a disk has broken them.
    """

    def __init__(self, folder: Path | str, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open a spool, made where there is none. Raises UsageError where another process has it open."""
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self.lost = 0
        self._segment_bytes = min(segment_bytes, max(limit_bytes // 2, 1))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / _LOCK).open("w", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.folder} is the spool of another gateway: give each its own (--spool)"
            ) from None
        except OSError as error:
            raise OneSearchError(f"{self.folder}: no spool can be there ({error.strerror})") from error
        self._writing: IO[bytes] | None = None
        self._segments = sorted(int(path.stem) for path in self.folder.glob(f"*{_ENDING}"))
        self._at = self._read_cursor()
        self._drop_read()
        # The end of what a killed process was writing.
        if self._segments:
            self._cut(self._segments[-1])
        self._bytes = sum(self._path(number).stat().st_size for number in self._segments)

    def __len__(self) -> int:
        """Bytes that it takes on disk."""
        return self._bytes

    @property
    def empty(self) -> bool:
        """Whether nothing is left to be read."""
        return not self._segments or (
            len(self._segments) == 1 and self._at[1] >= self._path(self._segments[0]).stat().st_size
        )

    def append(self, records: Sequence[Record]) -> int:
        """Take in as many of the messages as fit, from the first on; return how many. They are on disk then.

        Raises OneSearchError where the disk takes no more; what of them is on it is not known.
        """
        packed: list[bytes] = []
        room = self.limit_bytes - self._bytes
        for record in records:
            frame = _pack(record)
            if len(frame) > room:
                break
            room -= len(frame)
            packed.append(frame)
        if not packed:
            return 0
        try:
            file = self._open_segment()
            start = file.tell()
            try:
                file.write(b"".join(packed))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)
                self._close_segment()
                raise
        except OSError as error:
            raise OneSearchError(f"{self.folder}: cannot be written ({error.strerror})") from error
        self._bytes += sum(map(len, packed))
        return len(packed)

    def peek(self, limit: int) -> list[Record]:
        """The oldest messages, at most ``limit``, of one segment; :meth:`done` takes them off."""
        while self._segments:
            number, offset = self._segments[0], self._at[1]
            content = self._path(number).read_bytes()
            records, end, broken = _unpack(content, offset, limit)
            self._next = (number, end)
            if records:
                return records
            if broken:
                self.lost += 1
                _LOG.error("%s is broken at byte %d: what follows in it is lost", self._path(number), end)
            elif number == self._segments[-1]:
                return []
            self._next = (number, len(content))
            self.done()
        return []

    def done(self) -> None:
        """What :meth:`peek` returned last has been dealt with."""
        number, end = self._next
        self._at = (number, end)
        if end >= self._path(number).stat().st_size:
            if number == self._segments[-1]:
                self._close_segment()
            self._bytes -= self._path(number).stat().st_size
            self._at = (number + 1, 0)
        draft = self.folder / f"{_CURSOR}.draft"
        draft.write_text(f"{self._at[0]} {self._at[1]}", encoding="utf-8")
        draft.replace(self.folder / _CURSOR)
        self._drop_read()

    def close(self) -> None:
        """Let go of the folder."""
        self._close_segment()
        self._lock.close()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{_ENDING}"

    def _read_cursor(self) -> tuple[int, int]:
        try:
            number, offset = (self.folder / _CURSOR).read_text(encoding="utf-8").split()
            return int(number), int(offset)
        except (OSError, ValueError):
            return (self._segments[0] if self._segments else 0), 0

    def _drop_read(self) -> None:
        """Remove the segments before the cursor."""
        while self._segments and self._segments[0] < self._at[0]:
            self._path(self._segments.pop(0)).unlink(missing_ok=True)
        if self._segments and self._segments[0] > self._at[0]:
            self._at = (self._segments[0], 0)

    def _cut(self, number: int) -> None:
        content = self._path(number).read_bytes()
        end = 0
        while (after := _end_of(content, end)) is not None:
            end = after
        if end < len(content):
            os.truncate(self._path(number), end)

    def _open_segment(self) -> IO[bytes]:
        if self._writing is not None and self._writing.tell() >= self._segment_bytes:
            self._close_segment()
        if self._writing is None:
            number = max(self._at[0], self._segments[-1] + 1 if self._segments else 0)
            # In the one that is being read no more is written than what was there when it was opened.
            self._writing = self._path(number).open("ab")
            self._segments.append(number)
            sync(self.folder)
        return self._writing

    def _close_segment(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.close()


def _pack(record: Record) -> bytes:
    topic, key = record.topic.encode(), record.key or b""
    body = _TOPIC_AND_KEY.pack(len(topic), len(key)) + topic + key + record.value
    return _HEAD.pack(len(body), crc32(body)) + body


def _end_of(content: bytes, start: int) -> int | None:
    """Where the message that begins at ``start`` ends; None where there is none, or a broken one."""
    if start + _HEAD.size > len(content):
        return None
    length, checksum = _HEAD.unpack_from(content, start)
    body = content[start + _HEAD.size : start + _HEAD.size + length]
    if length > _LONGEST or len(body) < length or crc32(body) != checksum:
        return None
    return start + _HEAD.size + int(length)


def _unpack(content: bytes, start: int, limit: int) -> tuple[list[Record], int, bool]:
    """Messages from ``start`` on, where the last of them ends, and whether what follows is broken."""
    records: list[Record] = []
    while len(records) < limit:
        end = _end_of(content, start)
        if end is None:
            return records, start, start < len(content)
        body = start + _HEAD.size
        topic_size, key_size = _TOPIC_AND_KEY.unpack_from(content, body)
        topic = body + _TOPIC_AND_KEY.size
        key = topic + topic_size
        value = key + key_size
        records.append(Record(content[topic:key].decode(), content[key:value] or None, content[value:end]))
        start = end
    return records, start, False
