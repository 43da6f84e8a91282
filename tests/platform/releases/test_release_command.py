from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onesearch.cli.main import main
from onesearch.config import Config
from onesearch.releases import release as release_module
from onesearch.releases.release import write_release


@pytest.fixture
def releases(source: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(release_module, "load_plugins", lambda: config.plugins)
    monkeypatch.setenv("COLUMNS", "140")
    for name in ("one", "two"):
        write_release(tmp_path / "R", name, source, config, metrics={"index": {"items": 3, "sids": 3}})
    return tmp_path / "R"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["release", *map(str, arguments)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    status, out, err = run(capsys, *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_the_whole_life_of_a_champion(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--releases", releases)
    assert answer(capsys, "list", *where)["champion"] is None
    assert answer(capsys, "promote", "one", *where)["champion"] == "one"
    assert answer(capsys, "promote", "two", *where)["champion"] == "two"
    listed = answer(capsys, "list", *where)
    assert {entry["name"]: entry["champion"] for entry in listed["releases"]} == {"one": False, "two": True}
    assert listed["releases"][0]["items"] == 3
    back = answer(capsys, "rollback", *where)
    assert back["champion"] == "one"
    assert [change["how"] for change in back["history"]] == ["promote", "promote", "rollback"]
    status, out, err = run(capsys, "rollback", *where)
    assert (status, out) == (2, "") and "no previous champion" in err


def test_show_and_verify_by_name_and_by_folder(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = answer(capsys, "show", "one", "--releases", releases)
    assert by_name == answer(capsys, "show", releases / "one")
    assert by_name["components"]["reward"]["version"] == "1.2"
    assert answer(capsys, "verify", releases / "one")["valid"] is True


def test_a_changed_byte_fails_the_verification(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = releases / "one" / "index" / "arrays.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    status, out, err = run(capsys, "verify", releases / "one", "--json")
    assert (status, out) == (1, "")
    assert "index/arrays.safetensors: it was changed after" in err.replace("\n", "")
    assert "Traceback" not in err


def test_tables_tell_what_matters(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "promote", "two", "--releases", releases)
    status, out, _ = run(capsys, "list", "--releases", releases)
    assert status == 0
    line = next(line for line in out.splitlines() if "two" in line)
    assert line.startswith("*") and "part · part · part · part" in line
    status, out, _ = run(capsys, "show", "one", "--releases", releases)
    assert status == 0 and "items 3 · sids 3" in out and "parts" in out
    status, _, err = run(capsys, "show", "onne", "--releases", releases)
    assert status == 2 and "onne" in err


def test_a_challenger_a_pin_and_a_prune(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--releases", releases)
    answer(capsys, "promote", "one", *where)
    assert answer(capsys, "challenge", "two", "--share", "0.2", *where)["share"] == 0.2
    listed = answer(capsys, "list", *where)
    assert listed["challenger"] == "two" and not any(entry["served"] for entry in listed["releases"])
    assert answer(capsys, "prune", "--keep", "0", *where)["kept"] == {"one": "champion", "two": "challenger"}
    assert answer(capsys, "challenge", "--end", *where) == {"challenger": None, "ended": "two"}
    assert answer(capsys, "pin", "two", *where) == {"pinned": ["two"]}
    assert answer(capsys, "prune", "--keep", "0", *where)["removed"] == []
    assert answer(capsys, "pin", "two", "--off", *where) == {"pinned": []}
    told = answer(capsys, "prune", "--keep", "0", "--dry-run", *where)
    assert told["removed"] == ["two"] and (releases / "two").exists()
    status, out, _ = run(capsys, "prune", "--keep", "0", *where)
    assert status == 0 and "two" in out and not (releases / "two").exists()
    for wrong in (("challenge",), ("challenge", "one", "--end"), ("challenge", "one")):
        status, out, err = run(capsys, *wrong, *where)
        assert (status, out) == (2, "") and "Traceback" not in err


def test_waiting_for_a_gateway_that_is_not_there(releases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "promote", "one", "--releases", releases, "--wait", "127.0.0.1:9")
    assert status == 1 and "no gateway answers at 127.0.0.1:9" in err.replace("\n", " ")
