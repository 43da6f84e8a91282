"""``onesearch serve``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from onesearch.cli._options import Certify
from onesearch.cli._output import err, out, print_json
from onesearch.errors import UsageError
from onesearch.kafka.opening import SERVERS_VARIABLE
from onesearch.releases.registry import Registry
from onesearch.releases.release import Release
from onesearch.serving import environment, whereabouts


def serve(
    release: Annotated[
        Path | None, typer.Option(help="The release's folder; it answers to the end.", show_default=False)
    ] = None,
    releases: Annotated[
        Path | None,
        typer.Option(
            help="A folder of releases: whatever is its champion answers, changed while it serves.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="of the release")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The gateway's port; 0: a free one.", min=0, max=65535)
    ] = None,
    triton_port: Annotated[
        int | None, typer.Option(help="Triton's gRPC port; 0: a free one.", min=0, max=65535)
    ] = None,
    beams: Annotated[int | None, typer.Option(help="Beams of a search.", min=1, max=3840)] = None,
    certify: Certify = None,
    processes: Annotated[
        str | None,
        typer.Option(
            help="Processes of a search's steps: 'each' one each, 'one' for all: faster on few cores.",
            show_default="of the release",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the generator; 0: every core.", min=0)
    ] = None,
    states: Annotated[
        str | None,
        typer.Option(
            help="Where shoppers are looked up: lmdb:PATH, a path, or redis://…",
            show_default="of the release",
        ),
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="The live catalogue's folder: changes of it are followed.", show_default="none"),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            help="Bootstrap servers: what is shown and done is told there.", show_default="of the release"
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(help="Where events wait while Kafka does not answer.", show_default="of the release"),
    ] = None,
    explore: Annotated[
        float | None,
        typer.Option(
            help="Probability that a place of a page shows an item from below the page.",
            show_default="of the release",
            min=0,
            max=0.5,
        ),
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Written (JSON) once everything answers.")] = None,
    log: Annotated[Path | None, typer.Option(help="Where a line of JSON a search goes.")] = None,
    triton_log: Annotated[Path | None, typer.Option(help="Where Triton's own log goes.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Say where it is as one JSON object.")] = False,
) -> None:
    """Serve a release, or the champion of a folder of releases: Triton and the gateway, until interrupted."""
    if (release is None) == (releases is None):
        raise UsageError("name either --release FOLDER or --releases FOLDER")
    if processes not in (None, "each", "one"):
        raise UsageError(f"--processes {processes}: known are each and one")
    found = environment.find()
    if not environment.is_running(found):
        # Same command, same process number, the other environment.
        command = [str(found.python), "-m", "onesearch.cli.main", "serve"]
        given: dict[str, Any] = {
            "release": release, "releases": releases, "host": host, "port": port,
            "triton-port": triton_port, "beams": beams, "certify": certify,
            "processes": processes,
            "threads": threads, "states": states, "kafka": kafka, "spool": spool, "explore": explore,
            "catalogue": catalogue,
            "ready-file": ready_file, "log": log, "triton-log": triton_log,
        }  # fmt: skip
        command += [f"--{name}={value}" for name, value in given.items() if value is not None]
        os.execv(command[0], [*command, *(["--json"] if json else [])])

    from onesearch.serving.service import Ready, Service

    _log_to(log)
    registry = Registry(releases) if releases is not None else None
    opened = Release.open(registry.path(_champion(registry)) if registry is not None else release or "")
    opened.require_plugins()
    changes = {
        "host": host,
        "port": port,
        "triton_grpc_port": triton_port,
        "beams": beams,
        "certify": certify,
        "processes": processes,
        "threads": threads,
        "states": states,
        "catalogue": None if catalogue is None else str(catalogue.resolve()),
        "spool": None if spool is None else str(spool),
        "explore": explore,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    servers = kafka or opened.config.kafka.servers or os.environ.get(SERVERS_VARIABLE, "")
    events = opened.config.kafka.model_copy(update={"servers": servers}) if servers else None
    told: list[Ready] = []

    def tell(ready: Ready) -> None:
        whereabouts.remember(ready.as_dict())
        if ready_file is not None:
            whereabouts.write_json(ready_file, ready.as_dict())
        told.append(ready)
        if len(told) > 1:  # what changed stands in the log
            return
        if json:
            print_json(ready.as_dict())
        else:
            out.print(_card(ready.as_dict()))

    async def run() -> None:
        await Service(opened, changes, found, triton_log, registry, events).run(tell)

    try:
        if not json:
            err.print(f"starting Triton with release [bold]{opened.name}[/] …")
        uvloop.run(run())
    finally:
        whereabouts.forget(os.getpid())
        if ready_file is not None:
            whereabouts.forget(os.getpid(), ready_file)
    if not json:
        err.print("stopped")


def _champion(registry: Registry) -> str:
    champion = registry.champion()
    if champion is None:
        raise UsageError(
            f"{registry.folder}: no release was promoted yet; do so by"
            f" `onesearch release promote NAME --releases {registry.folder}`"
        )
    return champion


def _card(about: dict[str, Any]) -> Panel:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("gateway (gRPC)", f"[bold green]{about['gateway']}[/]")
    rows.add_row("catalogue", f"{about['items']:,} items, generation {about['generation']}")
    rows.add_row("shoppers", about["states"] or Text("not known: no --states", style="dim"))
    if about["kafka"]:
        rows.add_row("events", about["kafka"])
    rows.add_row("Triton (gRPC)", about["triton"])
    rows.add_row("metrics", about["metrics"])
    rows.add_row("ready after", f"{about['ready_s']:.1f} s")
    rows.add_row("try", 'onesearch search "…"' + f" --gateway {about['gateway']}")
    whose = f", champion of {about['releases']}" if about["releases"] else ""
    return Panel(rows, title=f"release [bold]{about['release']}[/]{whose}", title_align="left", expand=False)


def _log_to(path: Path | None) -> None:
    """Requests go to a file where one is named; troubles always go to standard error."""
    troubles = logging.StreamHandler(sys.stderr)
    troubles.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("onesearch").addHandler(troubles)
    logging.getLogger("onesearch").setLevel(logging.WARNING)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        requests = logging.getLogger("onesearch.requests")
        requests.addHandler(logging.FileHandler(path, encoding="utf-8"))
        requests.setLevel(logging.INFO)
        requests.propagate = False
