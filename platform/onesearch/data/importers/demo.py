"""The demo store: a simulated shop made on the spot, so that nothing needs to be downloaded."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path

from onesearch.data.demo.logs import MONTHS, judgements, year_of_logs
from onesearch.data.demo.people import profiles
from onesearch.data.demo.world import SIZES, World
from onesearch.data.importing import Import, run_import
from onesearch.data.store import Store
from onesearch.progress import Progress

SIMULATION = "simulation"
"""Name of the store's document that says which world it was made from."""
WORLD_VERSION = 1
"""Raised whenever a seed no longer gives the same world."""


class DemoSize(StrEnum):
    """How large the simulated shop is."""

    full = "full"
    small = "small"


def import_demo(job: Import, size: DemoSize = DemoSize.full, seed: int = 0) -> None:
    """Make the shop of a seed and write all its tables."""
    with job.progress.task("simulated shop", MONTHS + 2) as task:
        world = World.make(SIZES[size], seed)
        job.writer.write("items", world.listings.items)
        job.writer.write("shoppers", profiles(world.people, world.words))
        task.advance(1, "catalogue and shoppers")
        for month, rows in enumerate(year_of_logs(world), start=1):
            job.writer.write("interactions", rows)
            task.advance(1, f"logs of month {month}")
        job.writer.write("relevance", judgements(world, world.size.judged))
        task.advance(1, "judgements")
    job.writer.note(
        SIMULATION,
        {"size": str(size), "seed": seed, "version": WORLD_VERSION, "fingerprint": world.fingerprint()},
    )


def store_or_demo(
    path: Path | None, folder: Path, progress: Progress, size: DemoSize = DemoSize.full
) -> Store:
    """The store at a path; without one a simulated shop, made in ``folder``."""
    if path is None:
        path = folder / "demo-store"
        run_import("demo", partial(import_demo, size=size), path, progress=progress, simulated=True)
    return Store.open(path)
