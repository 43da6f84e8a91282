from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch.shoppers.events import Event, apply
from onesearch.shoppers.lmdb_store import LmdbStates
from onesearch.shoppers.opening import open_states
from onesearch.shoppers.state import ShopperState

NOON = 1_700_000_000


def busy(user: str, clicks: int = 50) -> ShopperState:
    events = [
        Event(user, NOON + number, "click", f"i{number}", f"query {number}") for number in range(clicks)
    ]
    return apply(ShopperState(user), events)


def test_a_full_store_says_what_to_do(tmp_path: Path) -> None:
    with LmdbStates(tmp_path / "s", map_bytes=1 << 20) as store:
        store.put_many([busy("u", 1_000)])
        with pytest.raises(OneSearchError, match=r"is full.*--size-gb"):
            store.put_many(busy(f"u{number}", 1_000) for number in range(100))
        assert store.get("u") == busy("u", 1_000)
        assert store.count == 1
    with LmdbStates(tmp_path / "s", map_bytes=1 << 24) as store:
        store.put_many(busy(f"u{number}", 1_000) for number in range(100))
    with LmdbStates(tmp_path / "s") as store:
        assert store.count == 101
        assert store.put_many([busy("once more")]) == 1


def test_it_cannot_be_enlarged_under_others(tmp_path: Path) -> None:
    with (
        LmdbStates(tmp_path / "s", map_bytes=1 << 20),
        pytest.raises(UsageError, match="opened alone"),
    ):
        LmdbStates(tmp_path / "s", map_bytes=1 << 24)


def test_it_is_no_larger_than_what_is_in_it(tmp_path: Path) -> None:
    with LmdbStates(tmp_path / "s") as store:
        store.put_many([busy("u")])
        assert (tmp_path / "s" / "data.mdb").stat().st_blocks * 512 < 1 << 20


def test_one_environment_in_a_process(tmp_path: Path) -> None:
    """A reader that was there first does not keep a writer out, nor does closing one close the other."""
    LmdbStates(tmp_path / "s").close()
    (tmp_path / "link").symlink_to(tmp_path / "s")
    reader = LmdbStates(tmp_path / "s", read_only=True)
    with LmdbStates(tmp_path / "link") as writer:
        writer.put_many([busy("u")])
    assert reader.get("u") == busy("u")
    reader.close()
    with LmdbStates(tmp_path / "s") as again:
        assert again.get("u").known


def test_a_store_that_was_replaced_is_another(tmp_path: Path) -> None:
    old = LmdbStates(tmp_path / "s")
    old.put_many([busy("old")])
    (tmp_path / "s").rename(tmp_path / "before")
    with LmdbStates(tmp_path / "s") as new:
        new.put_many([busy("new")])
        assert (list(old.users()), list(new.users())) == (["old"], ["new"])
    old.close()


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no shoppers' states at .*/s; make them with: onesearch state build"
    ):
        open_states(f"lmdb:{tmp_path / 's'}", read_only=True)
    assert not (tmp_path / "s").exists()


def test_it_takes_no_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text("{}")
    for path in (tmp_path, tmp_path / "store.json"):
        with pytest.raises(UsageError, match="not a store of shoppers' states and not empty"):
            LmdbStates(path)
    with pytest.raises(OneSearchError, match="Not a directory"):
        LmdbStates(tmp_path / "store.json" / "below")


@pytest.mark.parametrize("content", [b"garbage" * 1_000, b"", b"\0" * 8_192])
def test_a_broken_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(OneSearchError, match="store of shoppers' states"):
        LmdbStates(tmp_path, read_only=True)


def test_a_foreign_environment_is_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"theirs", b"1")
    with pytest.raises(ArtifactError, match="not a store of shoppers' states"):
        LmdbStates(tmp_path)
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"f", b"onesearch-states 9")
    with pytest.raises(ArtifactError, match="format 'onesearch-states 9'"):
        LmdbStates(tmp_path)


def test_a_broken_state_is_told_by_name(tmp_path: Path) -> None:
    LmdbStates(tmp_path).close()
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"su", b"\x01garbage")
    with LmdbStates(tmp_path) as store, pytest.raises(ArtifactError, match="shopper 'u'"):
        store.get("u")


def test_long_names_of_marks(tmp_path: Path) -> None:
    with LmdbStates(tmp_path / "s") as store:
        store.update({}, {"m" * 510: 1})
        with pytest.raises(UsageError, match="a mark's name"):
            store.update({}, {"m" * 511: 1})
        assert store.marks() == {"m" * 510: 1}


def test_after_a_fork_it_asks_to_be_opened_again(tmp_path: Path) -> None:
    with LmdbStates(tmp_path / "s") as store:
        child = os.fork()
        if child == 0:
            try:
                store.get("u")
            except OneSearchError as error:
                os._exit(0 if "after the fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_looking_up_one_of_a_hundred_thousand(tmp_path: Path) -> None:
    state = busy("u")
    with LmdbStates(tmp_path / "s") as store:
        store.put_many(replace(state, user_id=f"user {number}") for number in range(100_000))
        assert store.count == 100_000
        rng = np.random.default_rng(0)
        took = []
        for number in rng.integers(100_000, size=2_000).tolist():
            started = time.perf_counter()
            found = store.get(f"user {number}")
            took.append(time.perf_counter() - started)
            assert len(found.clicks) == 50
    assert float(np.median(took)) <= 0.0005
