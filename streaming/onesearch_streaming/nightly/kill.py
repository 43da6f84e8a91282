"""A night killed without warning, again and again: does it end in the same release?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onesearch.data.importers.demo import DemoSize, store_or_demo
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

from onesearch_streaming.nightly.bench import NIGHT_CONFIG, WARM_DAYS, LearningShop
from onesearch_streaming.nightly.simulated import day_of


def bench_kills(kills: int, seed: int, progress: Progress, searches: int = 300) -> dict[str, Any]:
    """Kill a night of a simulated shop: ``night_kills``, ``same_release``, ``same_verdict``,
    ``night_seconds``."""
    with TemporaryDirectory(prefix="onesearch-kill-") as scratch:
        folder = Path(scratch)
        base = store_or_demo(None, folder, progress, DemoSize.small)
        loop = LearningShop(base, folder, searches, 0.05, seed, NIGHT_CONFIG, progress)
        loop.first(None)
        for number in range(WARM_DAYS + 1):
            loop.day(number)
        twin = folder / "twin"
        shutil.copytree(loop.releases, twin)
        config = folder / "night.toml"
        accepted = ", ".join(f'"{day_of(number)}"' for number in range(WARM_DAYS))
        text = NIGHT_CONFIG.read_text(encoding="utf-8")
        config.write_text(f"{text}[nightly]\naccept_days = [{accepted}]\n", encoding="utf-8")
        found = killed_nights(
            loop.base.path, loop.log, loop.releases, twin, day_of(WARM_DAYS), config, kills, seed, progress
        )
    return {"night_kills": found.pop("kills"), "night_seconds": found.pop("seconds"), **found}


def killed_nights(
    store: Path,
    log: Path,
    releases: Path,
    twin: Path,
    night: date,
    config: Path | None,
    kills: int,
    seed: int,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run the night of a day twice, in processes of their own: undisturbed in ``twin``, killed in
    ``releases``.

    Each try of the second is killed (SIGKILL) at a random moment, drawn uniformly between its start and the
    time that the undisturbed one took, until it was killed so often or a try ended first; then it is left
    to end.

    Args:
        releases, twin: equal folders of releases, each with a champion. seed: of the moments.
        environment: of the processes; None: this one's.

    Returns:
        ``kills``; ``same_release``, whether both ended in the same content; ``same_verdict``;
        ``seconds``, of the undisturbed night.
    """
    command = [
        sys.executable,
        "-m",
        "onesearch.cli.main",
        "nightly",
        "--store",
        str(store),
        "--log",
        str(log),
    ]
    command += ["--date", night.isoformat(), "--json", *(["--config", str(config)] if config else [])]
    around = dict(environment or os.environ)
    rng = np.random.default_rng([seed, 0x9])
    began = time.monotonic()
    whole = _ended(command, twin, around)
    took = time.monotonic() - began
    done = 0
    with progress.task("killed nights", total=kills) as task:
        while done < kills:
            process = subprocess.Popen(
                [*command, "--releases", str(releases)], env=around, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                process.wait(timeout=took * float(rng.random()))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            done += 1
            task.advance()
    after = _ended(command, releases, around)
    return {
        "kills": done,
        "same_release": _content(whole) == _content(after),
        "same_verdict": whole["verdict"]["promote"] == after["verdict"]["promote"],
        "seconds": round(took, 1),
    }


def _ended(command: list[str], releases: Path, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [*command, "--releases", str(releases)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OneSearchError(f"the night ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _content(about: Mapping[str, Any]) -> str | None:
    challenger = about["challenger"]
    return None if challenger is None else str(challenger["content"])
