from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from onesearch.errors import UsageError
from onesearch.serving import triton
from onesearch.serving.triton import reason, reserve, sweep


def test_a_free_port_is_found_and_held() -> None:
    with reserve("127.0.0.1", 0) as first, reserve("127.0.0.1", 0) as second:
        assert first != second and first > 0


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"gateway port {port} of 127\.0\.0\.1 is in use"):
            reserve("127.0.0.1", port, "gateway port").__enter__()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:0"):
        reserve("192.0.2.1", 0).__enter__()


def test_the_sweep_takes_only_what_dead_servers_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(triton.tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"onesearch-serve-{ended.pid}-ab12-region").write_text("x")
    folder = tmp_path / f"onesearch-serve-{ended.pid}-cd34-folder"
    folder.mkdir()
    (folder / "file").write_text("x")
    ours = tmp_path / f"onesearch-serve-{os.getpid()}-ab12-region"
    ours.write_text("x")
    (tmp_path / "somebody-elses").write_text("x")
    sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ours.name, "somebody-elses"])


def test_a_models_own_words_are_found_in_what_triton_says() -> None:
    said = (
        "load failed for model 'r--reward': version 1 is at UNAVAILABLE state: Internal: ServingError: r"
        " needs x\n\nAt:\n  /a/b.py(3): open\n;\n"
    )
    assert reason(said) == "r needs x"
