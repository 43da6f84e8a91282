"""``onesearch import`` as people and machines call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from onesearch.cli.main import main
from onesearch.data.store import Store

Lines = Callable[[str, Iterable[Any]], Path]


def called(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Status, standard output and standard error of a call in this process."""
    status = 0
    try:
        main(["import", *map(str, arguments)])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    return status, *capsys.readouterr()


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onesearch.cli.main", "import", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"}
    )


def test_json_is_one_object_and_nothing_else(lines: Lines, tmp_path: Path) -> None:
    source = lines("items", [{"item_id": 1, "title": "红色 shoe"}, {"item_id": 2, "title": ""}])
    done = call("jsonl", source, "--store", tmp_path / "s", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["counts"] == {"items": 1, "shoppers": 0, "interactions": 0, "relevance": 0}
    assert told["rejected"] == 1
    assert told["reasons"] == {"items.jsonl, column 'title': is empty": 1}
    assert told["fingerprint"] == Store.open(tmp_path / "s").fingerprint()
    assert told["simulated"] is False


def test_people_get_a_table_and_what_was_rejected(lines: Lines, tmp_path: Path) -> None:
    source = lines("items", [{"item_id": 1, "title": "shoe"}, "[bold]{"])
    done = call("jsonl", source, "--store", tmp_path / "s")
    assert done.returncode == 0
    assert re.search(r"items +1\n", done.stdout)
    assert f"rejected rows: 1, all in {tmp_path / 's' / 'rejected.jsonl'}" in done.stdout
    assert "items.jsonl: done in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["jsonl", "nowhere", "--store", "s"], 2, "error: nowhere: not a folder"),
        (["homedepot", "nowhere", "--store", "s"], 2, "error: nowhere/products.parquet: no such file"),
        (["jsonl", "nowhere"], 2, "Missing option '--store'"),
        (["demo", "--store", "s", "--size", "huge"], 2, "'huge' is not one of"),
        (["homedepo", "x", "--store", "s"], 2, "No such command 'homedepo'"),
        (["jsonl", "x", "--store", "s", "--max-rejected", "-1"], 2, "--max-rejected"),
    ],
)
def test_bad_usage_is_told_with_status_2(
    arguments: list[str],
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, error = called(capsys, *arguments)
    assert found == status
    assert told in error
    assert "Traceback" not in error
    assert out == ""


def test_no_space_is_status_1_and_the_old_store_stays(lines: Lines, tmp_path: Path) -> None:
    source = lines("items", [{"item_id": at, "title": f"{at * 7919 % 100_003} shoe"} for at in range(20_000)])
    small = [
        sys.executable,
        "-m",
        "onesearch.cli.main",
        "import",
        "jsonl",
        str(source),
        "--store",
        str(tmp_path / "s"),
    ]
    limit = (
        "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", limit, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s" / "store.json").exists()
