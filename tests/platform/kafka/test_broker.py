from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from onesearch.config import parse_config
from onesearch.errors import ConfigError, OneSearchError, UsageError
from onesearch.kafka import broker as module
from onesearch.kafka.broker import LIBRARIES_VARIABLE, Broker, get_libraries
from onesearch.kafka.opening import settings
from onesearch.kafka.password import PASSWORD_VARIABLE, password


def test_where_libraries_may_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=LIBRARIES_VARIABLE):
        get_libraries()
    (tmp_path / "kafka_2.13-0.jar").touch()
    assert get_libraries() == tmp_path
    monkeypatch.delenv(LIBRARIES_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(OneSearchError, match="maven"):
        get_libraries()
    with pytest.raises(OneSearchError, match="Java"):
        Broker(tmp_path / "broker").start(0)


def test_one_that_was_never_started_has_nothing_to_stop(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    assert broker.servers == "" and broker.pid is None and broker.stop() is False
    assert broker.status().answers is False
    # A number that another process has got meanwhile is not ours to end.
    (tmp_path / "broker.pid").write_text(f"{os.getpid()} 1")
    assert broker.pid is None and broker.stop() is False


def test_settings_come_from_option_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONESEARCH_KAFKA", raising=False)
    file = tmp_path / "config.toml"
    file.write_text('[kafka]\nservers = "a:1,b:2"\nsecurity = "SASL_SSL"\nsasl_username = "me"\n')
    assert settings(config=file).servers == "a:1,b:2" and settings("c:3", file).servers == "c:3"
    assert settings().servers == ""
    monkeypatch.setenv("ONESEARCH_KAFKA", "d:4")
    assert settings().servers == "d:4" and settings(config=file).servers == "a:1,b:2"
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=PASSWORD_VARIABLE):
        password(settings(config=file))
    with pytest.raises(ConfigError, match=r"\[kafka\]"):
        parse_config('[kafka]\nsasl_password = "secret"')


@pytest.mark.e2e
def test_one_that_runs_is_left_alone_and_listens_to_this_machine_only(broker: Any) -> None:
    pid = broker.pid
    assert broker.start(port=0) == broker.servers and broker.pid == pid and broker.status().answers
    settings = (broker.folder / "server.properties").read_text()
    addresses = [line for line in settings.splitlines() if "listeners=" in line and "://" in line]
    assert addresses and all(line.count("://") == line.count("://127.0.0.1:") for line in addresses)
