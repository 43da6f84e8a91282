"""``onesearch train``: from a store to a release."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onesearch.cli._output import RichProgress, err, out, print_json, table

if TYPE_CHECKING:
    from onesearch.releases.release import Release


def train(
    store: Annotated[Path, typer.Option(help="The store to train on.", show_default=False)],
    releases: Annotated[Path, typer.Option(help="Folder of releases.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the release.")] = "first",
    config: Annotated[Path | None, typer.Option(help="Configuration (TOML); see 'onesearch config'.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Continue this release (a name, or a folder): its tokenizer, vocabulary, user encoder and "
            "generator; without --config its configuration, too.",
        ),
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make the release the champion.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Fit every part on a store, stage by stage; ends in a release.

    Interrupted at any moment, the same command goes on where it stopped.
    """
    from onesearch.config import load_config
    from onesearch.data.store import Store
    from onesearch.releases.registry import Registry
    from onesearch.training.effects import COLUMNS, effects, printed
    from onesearch.training.run import brief, train
    from onesearch.training.tracking import record

    champion = None if start is None else _release(start, releases)
    settings = load_config(config) if config or champion is None else champion.config
    opened = Store.open(store)
    try:
        with _termination_interrupts():
            trained = train(opened, releases, name, settings, RichProgress(), start_from=champion)
    except KeyboardInterrupt:
        again = shlex.join(["onesearch", *sys.argv[1:]])
        err.print(Text(f"stopped; what is done is kept. To go on: {again}"))
        raise typer.Exit(130) from None
    if not all(report.resumed for report in trained.stages):
        record(trained, settings, releases, RichProgress())
    if promote:
        Registry(releases).promote(name)
    stages = [
        {
            "stage": report.stage,
            "seconds": report.seconds,
            "resumed": report.resumed,
            "figures": report.figures,
        }
        for report in trained.stages
    ]
    release = trained.release
    if as_json:
        answer: dict[str, Any] = {"release": release.path, "name": name, "stages": stages}
        answer |= {
            "content": release.manifest.content_hash(),
            "promoted": promote,
            "effects": effects(trained.stages),
            "simulated": opened.simulated,
        }
        print_json(answer)
        return
    simulated = " (simulated shoppers)" if opened.simulated else ""
    title = f"what each stage did for held-out searches{simulated}"
    out.print(table(title, COLUMNS, printed(effects(trained.stages))))
    out.print()
    rows = [[report.stage, report.seconds, brief(report.figures)] for report in trained.stages]
    rows.append(["all", sum(report.seconds for report in trained.stages), str(release.path)])
    out.print(table(f"release {name}", ("stage", "seconds", "figures"), rows))


def _release(name: str, releases: Path) -> Release:
    """A release of the folder, or one given by its own folder."""
    from onesearch.releases.registry import Registry, find_release
    from onesearch.releases.release import Release

    registry = Registry(releases)
    return Release.open(registry.path(name) if name in registry.names() else find_release(name))


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that a stopped job says how to go on."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not callable(on_interrupt):
            raise KeyboardInterrupt
        on_interrupt(number, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
