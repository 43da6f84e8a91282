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
from onesearch.data.simulation import day_of
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

from onesearch_streaming.nightly.bench import FIRST_CONFIG, NIGHT_CONFIG, WARM_DAYS, LearningShop
from onesearch_streaming.nightly.brevity import cut_short


def bench_kills(kills: int, seed: int, progress: Progress, searches: int = 300) -> dict[str, Any]:
    """Kill a night of a simulated shop.

    Returns ``night_kills``, ``nights_killed``, ``same_release``, ``same_verdict`` and ``night_seconds``.
    """
    with TemporaryDirectory(prefix="onesearch-kill-") as scratch:
        folder = Path(scratch)
        loop = _shop(folder, searches, seed, progress)
        for number in range(WARM_DAYS + 1):
            loop.day(number)
        config = folder / "killed-night.toml"
        accepted = ", ".join(f'"{day_of(number)}"' for number in range(WARM_DAYS))
        text = cut_short(NIGHT_CONFIG)
        text = text.replace("[nightly]\n", f"[nightly]\naccept_days = [{accepted}]\n", 1)
        config.write_text(f"{text}\n[tracking]\nenabled = false\n", encoding="utf-8")
        # More threads add up in another order each time: equal to seven digits, not to the last bit.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        found = killed_nights(
            loop.base.path, loop.log, loop.releases, folder / "nights", day_of(WARM_DAYS), config, kills,
            seed, progress, environment,
        )  # fmt: skip
    return {
        "night_kills": found["kills"],
        "nights_killed": found["nights"],
        "same_release": found["same_release"],
        "same_verdict": found["same_verdict"],
        "night_seconds": found["seconds"],
    }


def first_release(folder: Path, seed: int, progress: Progress) -> Path:
    """Train the first release of a small simulated shop in a folder."""
    loop = _shop(folder, 1, seed, progress)
    return loop.registry.path(str(loop.registry.champion()))


def _shop(folder: Path, searches: int, seed: int, progress: Progress) -> LearningShop:
    """A small simulated shop with its first release."""
    base = store_or_demo(None, folder, progress, DemoSize.small)
    first, night = folder / "first.toml", folder / "night.toml"
    first.write_text(cut_short(FIRST_CONFIG), encoding="utf-8")
    night.write_text(cut_short(NIGHT_CONFIG), encoding="utf-8")
    loop = LearningShop(base, folder, searches, 0.05, seed, night, progress, first_config=first)
    loop.first(None)
    return loop


def killed_nights(
    store: Path,
    log: Path,
    releases: Path,
    work: Path,
    night: date,
    config: Path | None,
    kills: int,
    seed: int,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run the night of a day in processes of their own: once undisturbed, then killed, again and again.

    Each try is killed (SIGKILL) at a random moment, drawn uniformly between its start and the time that the
    undisturbed night took, and the next try goes on. A night that ends is compared with the undisturbed one,
    and another is begun, until so many were killed; the last one is left to end.

    Args:
        releases: a folder of releases with a champion; it is copied, and stays as it is.
        work: an empty folder for the copies. seed: of the moments.
        environment: of the processes; None: this one's.

    Returns:
        ``kills``; ``nights`` that were killed; ``same_release``, whether all of them ended in the content of
        the undisturbed one; ``same_verdict``; ``seconds``, of the undisturbed night.
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
    whole = _ended(command, _copy(releases, work / "undisturbed"), around)
    took = time.monotonic() - began
    done = 0
    ended: list[dict[str, Any]] = []
    with progress.task("killed nights", total=kills) as task:
        while done < kills:
            place = _copy(releases, work / f"killed-{len(ended)}")
            before = done
            while done < kills and _dies(command, place, around, took * float(rng.random())):
                done += 1
                task.advance()
            if done > before:
                ended.append(_ended(command, place, around))
            else:
                shutil.rmtree(place)
    return {
        "kills": done,
        "nights": len(ended),
        "same_release": all(_content(one) == _content(whole) for one in ended),
        "same_verdict": all(one["verdict"]["promote"] == whole["verdict"]["promote"] for one in ended),
        "seconds": round(took, 1),
    }


def _copy(releases: Path, to: Path) -> Path:
    shutil.copytree(releases, to)
    return to


def _dies(command: list[str], releases: Path, environment: dict[str, str], after: float) -> bool:
    """Start a night and kill it after some seconds; False where it ended before."""
    process = subprocess.Popen(
        [*command, "--releases", str(releases)], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


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
