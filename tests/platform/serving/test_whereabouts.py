from __future__ import annotations

import os
from pathlib import Path

import pytest
from onesearch.serving import whereabouts


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(whereabouts.VARIABLE, raising=False)


def test_the_last_started_gateway_is_found_while_it_lives() -> None:
    assert whereabouts.gateway() == whereabouts.DEFAULT
    whereabouts.remember({"gateway": "127.0.0.1:7", "pid": os.getpid()})
    assert whereabouts.gateway() == "127.0.0.1:7"
    whereabouts.forget(1)  # not ours
    assert whereabouts.gateway() == "127.0.0.1:7"
    whereabouts.forget(os.getpid())
    assert whereabouts.gateway() == whereabouts.DEFAULT


def test_a_note_of_a_dead_process_is_not_believed(tmp_path: Path) -> None:
    whereabouts.remember({"gateway": "127.0.0.1:7", "pid": 2**22 + 1})
    assert whereabouts.gateway() == whereabouts.DEFAULT
    (tmp_path / "onesearch" / "gateway.json").write_text("[")
    assert whereabouts.gateway() == whereabouts.DEFAULT


def test_what_is_named_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(whereabouts.VARIABLE, "10.0.0.1:1")
    assert whereabouts.gateway() == "10.0.0.1:1"
    assert whereabouts.gateway("10.0.0.2:2") == "10.0.0.2:2"
