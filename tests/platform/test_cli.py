"""The command line: exit status, one line for every failure, one JSON object, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onesearch.cli import _output
from onesearch.cli.bench import as_command
from onesearch.cli.main import COMMANDS, explain, load_command, main
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import Progress
from rich.console import Console

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onesearch.cli.main", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_command(name).name == name
    assert status([name, "--help"]) == 0
    assert "Usage: onesearch" in capsys.readouterr().out


def test_listing_commands_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom onesearch.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "loaded = {'torch', 'polars', 'grpc', 'onnxruntime', 'faiss'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["--version"]) == 0
    assert capsys.readouterr().out.startswith("onesearch ")


@pytest.mark.parametrize(
    ("arguments", "wanted", "said"),
    [
        (["serach"], 2, "Did you mean 'search'?"),
        (["config", "--no-such-option"], 2, "No such option"),
        (["config", "--config", "no-such-file.toml"], 2, "no-such-file.toml: cannot be read"),
        (["plugins", "check", "khqq"], 2, "did you mean 'khqe'?"),
        (["plugins", "check", "--role", "tokeniser"], 2, "did you mean 'tokenizer'?"),
        (["release", "show", "no-such-release"], 2, "no-such-release"),
    ],
)
def test_bad_usage_is_told_in_words(
    arguments: list[str], wanted: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(arguments) == wanted
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_config_prints_a_file_that_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[serving]\nbeams = 77\n")
    shown = run("config", "--config", str(file))
    assert shown.returncode == 0, shown.stderr
    assert "# Beams of a search" in shown.stdout
    file.write_text(shown.stdout)
    again = run("config", "--config", str(file), "--json")
    assert json.loads(again.stdout)["serving"]["beams"] == 77
    assert run("config", "--config", str(file)).stdout == shown.stdout


def test_json_is_one_object() -> None:
    shown = run("plugins", "list", "--json")
    assert shown.returncode == 0
    listed = json.loads(shown.stdout)
    assert {offer["name"] for offer in listed["offers"]} >= {"khqe", "passthrough", "seq2seq", "relevance"}
    assert listed["refused"] == []


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = status(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (0 if told["ready"] else 1)
    assert {finding["what"] for finding in told["findings"]} >= {"machine", "torch", "GPU", "Triton", "Java"}
    assert all(finding["state"] in ("ok", "absent", "missing") for finding in told["findings"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UsageError("k: 0 is too few"), "k: 0 is too few"),
        (ArtifactError("x.onnx: truncated"), "x.onnx: truncated"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            "this needs torch.nn, which is not",
        ),
        (OSError(28, "No space left on device", "/full/x"), "/full/x: No space left on device"),
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_every_error_is_explained(error: Exception, words: str) -> None:
    assert explain(error).startswith(words)
    assert "\n" not in explain(error)


def test_unexpected_errors_have_no_traceback_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import onesearch.config\ndef broken(*a, **k):\n    raise RuntimeError('a bug')\n"
        "onesearch.config.load_config = broken\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    plain = run("config", PYTHONPATH=path)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.strip() == "error: unexpected RuntimeError: a bug (ONESEARCH_DEBUG=1 shows where)"
    assert "Traceback" in run("config", PYTHONPATH=path, ONESEARCH_DEBUG="1").stderr


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """``onesearch config | head -1`` ends quietly."""
    done = subprocess.run(
        f"{sys.executable} -m onesearch.cli.main config | head -1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "[tokenizer]\n"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_print_json_knows_numpy_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_json(
        {
            "a": np.float32(0.5),
            "b": np.array([1, 2]),
            "c": float("nan"),
            "d": (np.int64(3), Path("x"), None, True),
            1: {"e": np.bool_(False), "f": float("inf")},
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "a": 0.5, "b": [1, 2], "c": None, "d": [3, "x", None, True], "1": {"e": False, "f": None},
    }  # fmt: skip
    with pytest.raises(TypeError, match="object has no JSON form"):
        _output.print_json({"a": object()})


def _printed(terminal: bool) -> str:
    console = Console(force_terminal=terminal, width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    progress: Progress = _output.RichProgress(console)
    with progress.task("outer", 2) as outer:
        with progress.task("inner") as inner:
            inner.advance(3, note="loss 0.5")
        outer.advance()
        outer.advance(note="all [read]")
        progress.say("a [line] that stays")
    return console.export_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal: bool) -> None:
    text = _printed(terminal)
    assert "a [line] that stays" in text
    assert "all [read]" in text
    if not terminal:
        assert (
            text.index("outer …")
            < text.index("inner …")
            < text.index("inner: done")
            < text.index("outer: done")
        )


def test_table_never_reads_markup() -> None:
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(_output.table("t", ["name", "R@10"], [["[red]x[/red]", 0.12345], ["y", None]]))
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert "0.123" in text
    assert "–" in text


def test_a_benchmark_becomes_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def bench(
        sizes: tuple[str, ...] = ("small",),
        items: int = 3,
        where: Path | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Measure.

        Args:
            items: how many.
        """
        seen.update(sizes=sizes, items=items, where=where, progress=progress)
        return {"rows": [{"a": 1, "b": 0.5}], "threads": 2}

    command = as_command(bench)
    command(sizes=["x"], items=4, where=None, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"rows": [{"a": 1, "b": 0.5}], "threads": 2}
    assert isinstance(seen["progress"], _output.RichProgress)
    assert (seen["sizes"], seen["items"]) == (["x"], 4)
