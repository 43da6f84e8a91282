"""Triton killed under requests: the gateway answers all the while, Triton comes back, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.progress import Progress
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.serving.bench_swap import READY, Load, copy_release, served, title_words, until
from onesearch.serving.client import Client
from onesearch.serving.triton import SHARED_MEMORY

_BACK_S = 120.0
_PAUSE_S = (0.2, 2.0)


def kill_triton(
    release: Path, kills: int, seed: int, progress: Progress, clients: int = 2, per_second: float = 20.0
) -> dict[str, Any]:
    """Serve a release, kill Triton (SIGKILL) at random moments under searches, and stop in the end.

    Args:
        release: its folder. kills: how many; each waits until searches are answered in full again.
        seed: of the moments. clients, per_second: the searches.

    Returns:
        ``triton_kills``; ``searches``; ``unanswered`` of them; ``degraded`` ones, answered without models;
        ``back_s``, the median time until answers were whole again, and ``slowest_back_s``; ``left_behind``:
        what of its shared memory, folders and processes is there after the server has ended.
    """
    rng = np.random.default_rng([seed, 0x7A])
    back: list[float] = []
    with tempfile.TemporaryDirectory(prefix="onesearch-kill-") as scratch:
        opened, place = Release.open(release), Path(scratch)
        registry = Registry(place / "releases")
        registry.folder.mkdir()
        copy_release(release, registry.folder / opened.name)
        registry.promote(opened.name)
        queries = title_words(opened)
        with served(registry, place) as ready:
            mark = f"onesearch-serve-{ready['pid']}-"
            with (
                Load(ready["gateway"], queries, clients, per_second) as load,
                Client(ready["gateway"], timeout_s=30) as client,
                progress.task("kills of Triton", kills) as task,
            ):
                for _ in range(kills):
                    time.sleep(float(rng.uniform(*_PAUSE_S)))
                    now = json.loads((place / READY).read_text(encoding="utf-8"))
                    os.kill(now["triton_pid"], signal.SIGKILL)
                    began = time.monotonic()
                    until(lambda: client.search(queries[0]).degraded, _BACK_S, lambda: "it was not noticed")
                    until(
                        lambda: not client.search(queries[0]).degraded,
                        _BACK_S,
                        lambda: f"Triton is not back after {_BACK_S:.0f} s",
                    )
                    back.append(time.monotonic() - began)
                    task.advance()
    return {
        "triton_kills": len(back),
        "searches": len(load.answers) + len(load.failures),
        "unanswered": len(load.failures),
        "degraded": sum(answer.degraded for _, answer in load.answers),
        "back_s": round(float(np.median(back)), 2) if back else None,
        "slowest_back_s": round(max(back), 2) if back else None,
        "left_behind": left_behind(mark),
    }


def left_behind(mark: str) -> list[str]:
    """Shared memory, folders and processes with a mark in their names."""
    found = [
        str(path) for place in (SHARED_MEMORY, Path(tempfile.gettempdir())) for path in place.glob(f"{mark}*")
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "cmdline").read_bytes():
                found.append(f"process {process.name}")
        except OSError:
            continue  # it ended just now
    return found
