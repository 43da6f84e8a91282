"""The log of changes: batches and marks in one file, put together when there are many."""

from __future__ import annotations

from pathlib import Path

import pytest
from onesearch.catalogue import log as module
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.errors import ArtifactError, OneSearchError


def _put(item: str, title: str = "lamp") -> Change:
    return Change(item, title=title)


def test_batches_and_marks(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path)
    assert (log.last, log.marks(), log.since(0)) == (0, {}, ({}, 0))
    assert log.append([_put("a"), _put("b")], {"topic:0": 7}) == 1
    assert log.append([Change("a", "patch", price=2.0)], {"topic:1": 3}) == 2
    assert log.append([]) == 3
    assert log.marks() == {"topic:0": 7, "topic:1": 3}
    assert log.since(0) == ({"a": Change("a", title="lamp", price=2.0), "b": _put("b")}, 3)
    assert log.since(1) == ({"a": Change("a", "patch", price=2.0)}, 3)
    assert ChangeLog(tmp_path).since(3) == ({}, 3)


def test_many_batches_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 4)
    log = ChangeLog(tmp_path)
    for number in range(1, 12):
        log.append([_put(f"item {number % 5}", f"title {number}")], {"topic:0": number})
        known, last = log.since(number - 1)
        assert last == number and known == {
            f"item {number % 5}": _put(f"item {number % 5}", f"title {number}")
        }
        assert len(list(log.folder.glob("*.parquet"))) <= 4
    known, _ = log.since(0)
    assert {item: change.title for item, change in known.items()} == {
        "item 0": "title 10", "item 1": "title 11", "item 2": "title 7", "item 3": "title 8",
        "item 4": "title 9",
    }  # fmt: skip
    assert log.marks() == {"topic:0": 11}


def test_a_batch_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ChangeLog(tmp_path)
    log.append([_put("a")], {"topic:0": 1})

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OneSearchError, match="No space left"):
        log.append([_put("b")], {"topic:0": 2})
    assert log.last == 1 and log.marks() == {"topic:0": 1}
    assert not list(log.folder.glob(".draft-*"))


def test_a_broken_batch_is_named(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path)
    log.append([_put("a")])
    (log.folder / "000000000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"000000000001\.parquet"):
        log.since(0)
    with pytest.raises(ArtifactError, match=r"000000000001\.parquet"):
        log.marks()
