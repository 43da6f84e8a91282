from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from onesearch.data.schemas import TABLE_NAMES, schema
from onesearch.data.store import MANIFEST, Store
from onesearch.data.writing import StoreWriter
from onesearch.errors import ArtifactError, OneSearchError, UsageError


def write(path: Path, titles: list[str], part_rows: int = 500_000) -> Store:
    with StoreWriter(path, "test", part_rows=part_rows) as writer:
        rows = {"item_id": [str(at) for at in range(len(titles))], "title": titles}
        writer.write("items", pl.DataFrame(rows))
    return Store.open(path)


def test_every_table_has_its_columns_even_when_empty(tmp_path: Path) -> None:
    store = write(tmp_path / "s", ["a", "b"])
    for table in TABLE_NAMES:
        assert dict(store.scan(table).collect_schema()) == schema(table)
    assert store.items()["title"].to_list() == ["a", "b"]
    assert store.count("items") == 2
    assert store.count("interactions") == 0
    assert not store.simulated
    assert store.source == "test"


def test_parts_keep_the_order(tmp_path: Path) -> None:
    titles = [f"t{at}" for at in range(25)]
    store = write(tmp_path / "s", titles, part_rows=10)
    assert [part["rows"] for part in store.manifest["tables"]["items"]] == [10, 10, 5]
    assert store.items()["title"].to_list() == titles
    store.verify()


def test_fingerprint_goes_by_content(tmp_path: Path) -> None:
    one, same, other = (
        write(tmp_path / name, titles) for name, titles in (("1", ["a"]), ("2", ["a"]), ("3", ["b"]))
    )
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_a_second_import_replaces_the_first_and_spares_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = write(path, ["a"])
    second = write(path, ["b"])
    assert first.scan("items").collect()["title"].to_list() == ["a"]
    assert second.items()["title"].to_list() == ["b"]
    write(path, ["c"])
    assert len(list(path.glob("data-*"))) == 2


def test_an_interrupted_import_leaves_the_old_store(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, ["old"])
    with pytest.raises(KeyboardInterrupt), StoreWriter(path, "test", part_rows=1) as writer:
        writer.write("items", pl.DataFrame({"item_id": ["1", "2"], "title": ["new", "new"]}))
        raise KeyboardInterrupt
    assert Store.open(path).items()["title"].to_list() == ["old"]
    assert len(list(path.glob("data-*"))) == 1


def test_trouble_after_the_step_that_counts_leaves_the_new_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    write(path, ["old"])
    sweep = StoreWriter._sweep

    def fails(self: StoreWriter, keep: str | None, also: str | None = None) -> None:
        if also is not None:
            raise OSError("disk on fire")
        sweep(self, keep, also)

    monkeypatch.setattr(StoreWriter, "_sweep", fails)
    with pytest.raises(OSError, match="disk on fire"):
        write(path, ["new"])
    assert Store.open(path).items()["title"].to_list() == ["new"]


def test_trouble_before_it_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    write(path, ["old"])

    def fails(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OneSearchError, match="cannot be written \\(No space left on device\\)"):
        write(path, ["new"])
    assert Store.open(path).items()["title"].to_list() == ["old"]
    assert len(list(path.glob("data-*"))) == 1


KILLED = """
import os, signal, sys, polars as pl
from onesearch.data.writing import StoreWriter
with StoreWriter(sys.argv[1], "test", part_rows=1) as writer:
    writer.write("items", pl.DataFrame({"item_id": ["1", "2"], "title": ["new", "new"]}))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_import_leaves_the_old_store_and_the_next_one_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, ["old"])
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert len(list(path.glob("data-*"))) == 2
    assert Store.open(path).items()["title"].to_list() == ["old"]
    assert write(path, ["next"]).items()["title"].to_list() == ["next"]
    assert len(list(path.glob("data-*"))) == 2  # the next one's, and the old one's


NO_SPACE = """
import resource, sys, polars as pl
from onesearch.data.writing import StoreWriter
from onesearch.errors import OneSearchError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with StoreWriter(sys.argv[1], "test") as writer:
        titles = pl.int_range(50_000, eager=True).hash().cast(pl.String)
        writer.write("items", pl.DataFrame({"item_id": titles, "title": titles}))
except OneSearchError as error:
    sys.exit(f"{error.exit_status} {error}")
"""


def test_no_space_is_told_and_the_old_store_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, ["old"])
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("1 ")
    assert "items-00000.parquet: cannot be written (File too large); the store is as it was" in done.stderr
    assert "Traceback" not in done.stderr
    assert Store.open(path).items()["title"].to_list() == ["old"]
    assert len(list(path.glob("data-*"))) == 1


def test_only_one_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write(path, ["old"])
    with (path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another import is writing this store"):
            write(path, ["new"])


def test_a_folder_with_other_things_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(UsageError, match=r"not a store and not empty \(it holds 'thesis.tex'\)"):
        write(tmp_path, ["a"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot be written") as raised:
        write(tmp_path / "file" / "s", ["a"])
    assert raised.value.exit_status == 1  # type: ignore[attr-defined]


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a store; make one with: onesearch import"):
        Store.open(tmp_path / "nope")


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_is_refused_by_name(tmp_path: Path, version: object) -> None:
    path = write(tmp_path / "s", ["a"]).path
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    with pytest.raises(
        ArtifactError, match=f"onesearch-store format {version}; this OneSearch reads format 1"
    ):
        Store.open(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as a store's manifest"),
        ("[]", "not the manifest of a onesearch-store"),
        ('{"format": "onesearch-store", "version": 1}', "an entry is missing or of the wrong type"),
        (
            '{"format": "onesearch-store", "version": 1, "data": "d", "tables": {"items": 3}}',
            "an entry is missing",
        ),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=f"store.json: .*{told}"):
        Store.open(tmp_path)


def test_missing_short_and_changed_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s", ["a"]).path
    for damage, told in (
        ("cut", r"items-00000.parquet: \d+ bytes, the manifest says"),
        ("gone", "missing from the store"),
    ):
        copy = tmp_path / damage
        shutil.copytree(path, copy)
        (file,) = copy.glob("data-*/items-00000.parquet")
        file.write_bytes(file.read_bytes()[:-5]) if damage == "cut" else file.unlink()
        with pytest.raises(ArtifactError, match=told):
            Store.open(copy)
    (file,) = path.glob("data-*/items-00000.parquet")
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"items-00000.parquet: its bytes are not those"):
        Store.open(path).verify()


def test_a_store_is_written_and_read_without_pyarrow(tmp_path: Path) -> None:
    code = """
import sys
for name in ("pyarrow", "torch", "scipy", "pandas"): sys.modules[name] = None
from onesearch.data.importers.demo import import_demo
from onesearch.data.importing import run_import
from onesearch.data.demo.world import SIZES, Size
SIZES["small"] = Size(items=700, shoppers=60, searches=240, feeds=120, judged=20)
store = run_import("demo", lambda job: import_demo(job, "small"), sys.argv[1]).store
assert store.interactions().collect().height > 1000 and store.items()["attributes"].to_list()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], check=True)
