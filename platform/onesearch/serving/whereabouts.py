"""Where the gateway started last on this machine is, so that ``onesearch search`` finds it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "ONESEARCH_GATEWAY"
DEFAULT = "127.0.0.1:50051"


def _file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "onesearch" / "gateway.json"


def remember(about: dict[str, Any]) -> None:
    """Note where the gateway is. Not being able to is no reason not to serve."""
    try:
        write_json(_file(), about)
    except OSError:
        return


def forget(pid: int, file: Path | None = None) -> None:
    """Remove the note, or another file like it, if it is that process's; a later gateway's stays."""
    file = file or _file()
    if _read(file).get("pid") == pid:
        file.unlink(missing_ok=True)


def gateway(named: str | None = None) -> str:
    """``host:port`` of the gateway: the one named, that of the environment, the last started, the default."""
    if named or os.environ.get(VARIABLE):
        return named or os.environ[VARIABLE]
    noted = _read(_file())
    alive = isinstance(noted.get("pid"), int) and Path(f"/proc/{noted['pid']}").exists()
    return str(noted["gateway"]) if alive and "gateway" in noted else DEFAULT


def write_json(path: Path, about: dict[str, Any]) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(json.dumps(about) + "\n", encoding="utf-8")
    draft.replace(path)


def _read(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
