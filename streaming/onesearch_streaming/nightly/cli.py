"""``onesearch nightly``: one night, from the log's newest days to a champion or a refusal."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from onesearch.cli._output import RichProgress, out, print_json, table


def nightly(
    store: Annotated[
        Path, typer.Option(help="The base store: catalogue, shoppers, judgements.", show_default=False)
    ],
    releases: Annotated[Path, typer.Option(help="Folder of releases, with a champion.", show_default=False)],
    log: Annotated[
        Path | None, typer.Option(help="The Delta log; none: the store's own log.", show_default=False)
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the live catalogue; none: the catalogue is the store's.", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration: the table nightly, and keys that replace the champion's.", show_default=False
        ),
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option("--date", formats=["%Y-%m-%d"], help="The night's last day; none: the log's newest."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and say what would be done; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Learn from the log's newest days, and promote what was learnt, or refuse it and say why.

    Killed at any moment, the same command goes on where it stopped. A night refused is no error (status 0):
    its report says why. Days that were missed are made up.
    """
    from onesearch.config import load_config
    from onesearch.data.store import Store

    from onesearch_streaming.nightly.night import look, newest_day, run_night
    from onesearch_streaming.nightly.report import TEXT

    settings = load_config(config)
    overrides = config.read_text(encoding="utf-8") if config else ""
    night: date = day.date() if day else newest_day(Store.open(store), log)
    if dry_run:
        seen = look(store, log, releases, settings, night, catalogue)
        if as_json:
            print_json(seen)
            return
        rows = [[check["name"], check["value"], "passed" if check["passed"] else "refused", check["reason"]]
                for check in seen["checks"]]  # fmt: skip
        out.print(table(f"the night of {night}, tried", ("check", "figure", "", "in words"), rows))
        out.print(seen["would"], markup=False)
        return
    ended = run_night(store, log, releases, settings, night, RichProgress(), overrides, catalogue)
    if as_json:
        print_json(
            ended.about
            | {"folder": ended.folder, "report": ended.folder / "report.html", "resumed": ended.resumed}
        )
        return
    out.print((ended.folder / TEXT).read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    out.print(f"report: {ended.folder / 'report.html'}", markup=False)
