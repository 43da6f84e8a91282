"""``onesearch catalogue``: change the catalogue that is being served, and see what it came to."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onesearch.catalogue.applying import Applied, Applier
from onesearch.catalogue.changes import read_changes
from onesearch.catalogue.generations import Generations
from onesearch.catalogue.keeping import Keeper, orphaned, serving
from onesearch.catalogue.log import ChangeLog
from onesearch.cli._output import err, out, print_json
from onesearch.errors import OneSearchError, UsageError
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Change the catalogue that is being served."
)

Catalogue = Annotated[
    Path, typer.Option("--catalogue", help="The live catalogue's folder.", show_default=False)
]
OfRelease = Annotated[Path, typer.Option("--release", help="The release's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_SHOWN = 20
_AT_ONCE = 50_000


@app.command()
def apply(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Changes: JSON lines or Parquet.", show_default=False)
    ],
    catalogue: Catalogue,
    release: OfRelease,
    json: Json = False,
) -> None:
    """Put, patch and withdraw items. Those who serve the release follow within a second.

    Nothing is done where a row does not fit. Changes of items that are not there are named, and exit status
    is 1.
    """
    changes = list(read_changes(file))
    applier = Applier(catalogue, Release.open(release, verify=False))
    applied = applier.catch_up()
    for start in range(0, len(changes), _AT_ONCE):
        part = applier.accept(changes[start : start + _AT_ONCE])
        applied = replace(
            part,
            **{
                name: getattr(applied, name) + getattr(part, name)
                for name in ("added", "changed", "withdrawn", "encoded", "ignored", "refused")
            },
            seconds={name: round(applied.seconds[name] + part.seconds[name], 4) for name in part.seconds},
        )
    if json:
        print_json(applied.as_dict())
    else:
        out.print(Text(_said(applied)), soft_wrap=True)
        for item_id, why in applied.refused[:_SHOWN]:
            err.print(Text(f"refused: {item_id}: {why}"), soft_wrap=True)
    if applied.refused:
        raise OneSearchError(f"{len(applied.refused):,} changes were refused")


@app.command()
def follow(
    catalogue: Catalogue,
    release: Annotated[Path | None, typer.Option(help="The release's folder.", show_default=False)] = None,
    releases: Annotated[
        Path | None,
        typer.Option(help="A folder of releases: its champion and challenger.", show_default=False),
    ] = None,
    with_parent: Annotated[bool, typer.Option(help="End with the process that started this one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a generation.")] = False,
) -> None:
    """Make a generation whenever the log of changes has grown, until interrupted.

    `onesearch serve --catalogue` does so by itself; for a catalogue that many machines serve, run it once.
    """
    if (release is None) == (releases is None):
        raise UsageError("name either --release FOLDER or --releases FOLDER")
    registry = Registry(releases) if releases is not None else None
    own = [release] if release is not None else []
    parent, ended = os.getppid(), threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())

    def told(name: str, applied: Applied) -> None:
        if json:
            print_json({"release": name, **applied.as_dict()})
            return
        out.print(Text(f"{name}: {_said(applied)}"), soft_wrap=True)
        for item_id, why in applied.refused[:_SHOWN]:
            err.print(Text(f"refused: {item_id}: {why}"), soft_wrap=True)

    def stop() -> bool:
        return ended.is_set() or (with_parent and orphaned(parent))

    Keeper(catalogue, lambda: own if registry is None else serving(registry)).run(told, stop)


def _said(applied: Applied) -> str:
    return (
        f"generation {applied.generation}: {applied.items:,} items; {applied.added:,} added,"
        f" {applied.changed:,} changed, {applied.withdrawn:,} withdrawn, {applied.ignored:,} nothing"
        f" new; {sum(applied.seconds.values()):.2f} s"
    )


@app.command()
def show(
    catalogue: Catalogue,
    release: OfRelease,
    item: Annotated[str | None, typer.Option(help="Show one item of the newest generation.")] = None,
    json: Json = False,
) -> None:
    """Show the newest generation of a release's catalogue, or an item of it."""
    log, generations = ChangeLog(catalogue), Generations.of_release(catalogue, release)
    newest = generations.newest()
    index = Release.open(release, verify=False).index if newest is None else newest.load()
    about = {
        "generation": index.generation,
        "items": index.live_count,
        "withdrawn": len(index) - index.live_count,
        "newcomers": 0 if index.newcomers is None else len(index.newcomers),
        "generations": generations.numbers(),
        "behind": log.last - (newest.through if newest else 0),
        "marks": log.marks(),
    }
    if item is not None:
        number = index.number(item)
        if number is None:
            raise OneSearchError(f"generation {index.generation} has no item {item[:80]!r}")
        about = index.items.row(number, named=True)
        about |= {"number": number, "sid": index.sids[number].tolist()}
        about |= {"popularity": float(index.popularity[number]), "generation": index.generation}
    if json:
        print_json(about)
        return
    for name, value in about.items():
        out.print(Text(f"{name:12}{value}"), soft_wrap=True)
