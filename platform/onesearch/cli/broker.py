"""``onesearch broker``: Apache Kafka on this machine, for development, tests and the demo."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onesearch.cli._output import out, print_json
from onesearch.config import load_config
from onesearch.errors import OneSearchError
from onesearch.kafka.broker import Broker, create_topics
from onesearch.kafka.opening import connect
from onesearch.kafka.password import PASSWORD_VARIABLE
from onesearch.kafka.securing import Secured

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run Apache Kafka on this machine (loopback only)."
)

Folder = Annotated[Path, typer.Option(help="Where its settings, data and log are.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A configuration; its [kafka] names the topics.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_FOLDER = Path("var/kafka")


@app.command()
def start(
    folder: Folder = _FOLDER,
    port: Annotated[int, typer.Option(help="Where it listens; 0: a free port.", min=0, max=65535)] = 9092,
    secured_port: Annotated[
        int | None,
        typer.Option(
            help=f"Listen here, too, with TLS and passwords: user onesearch, {PASSWORD_VARIABLE}.",
            min=0,
            max=65535,
            show_default="nowhere",
        ),
    ] = None,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic of interactions.", min=1)] = 4,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Start a broker, and make the topics that are not there yet. The first time Maven fetches Kafka (43 MB).

    What it holds survives a restart.
    """
    broker = Broker(folder)
    password = os.environ.get(PASSWORD_VARIABLE, "")
    secured = None if secured_port is None else Secured(secured_port, password=password)
    servers = broker.start(port, secured)
    plain = {"servers": servers, "security": "PLAINTEXT"}
    settings = load_config(config).kafka.model_copy(update=plain)
    with connect(settings).admin() as admin:
        made = create_topics(admin, settings, partitions)
    if json:
        print_json({**asdict(broker.status()), "folder": broker.folder, "topics_made": made})
        return
    out.print(Text.assemble("Kafka answers at ", (servers, "bold green"), f" (process {broker.pid})"))
    if broker.secured:
        out.print(f"with TLS and passwords at {broker.secured}; clients trust {broker.ca_file}", markup=False)
    if made:
        out.print(f"topics made: {', '.join(made)}")
    out.print(Text(f"use it with --kafka {servers}, or ONESEARCH_KAFKA={servers}", style="dim"))


@app.command()
def stop(folder: Folder = _FOLDER, json: Json = False) -> None:
    """Stop the broker. What it holds stays."""
    stopped = Broker(folder).stop()
    if json:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "it was not running")


@app.command()
def status(folder: Folder = _FOLDER, json: Json = False) -> None:
    """Whether the broker answers. Exit status 1 where it does not."""
    found = Broker(folder).status()
    if json:
        print_json(asdict(found))
    elif found.answers:
        out.print(
            Text.assemble("Kafka answers at ", (found.servers, "bold green"), f" (process {found.pid})")
        )
    if not found.answers:
        raise OneSearchError(f"no broker of {folder} answers; start it with: onesearch broker start")
