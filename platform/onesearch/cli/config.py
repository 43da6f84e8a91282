"""``onesearch config``: the effective configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli._output import print_json
from onesearch.config import load_config


def config(
    file: Annotated[
        Path | None, typer.Option("--config", help="A configuration file; none: all defaults.")
    ] = None,
    bare: Annotated[bool, typer.Option("--bare", help="Leave out what each key means.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a configuration file and print it whole, as TOML with what each key means."""
    effective = load_config(file)
    if json:
        print_json(effective.tables())
    else:
        typer.echo(effective.dump(documented=not bare), nl=False)
