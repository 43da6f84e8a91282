"""``onesearch demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onesearch.cli._output import RichProgress, out, table


def demo(
    folder: Annotated[Path, typer.Option(help="Where store, release and reports go.")] = Path("var/demo"),
    nights: Annotated[int, typer.Option(help="Nights that are lived through.", min=0, max=100)] = 1,
) -> None:
    """From nothing to a search engine that learns: import, train, serve, search, nights, evaluate.

    The shop, its shoppers and its logs are simulated. A second run goes on from what the first one made.
    """
    from onesearch.demo import BUDGET_S, NAME, Demo, over_budget

    run = Demo(folder, RichProgress(out))
    run.run(nights)
    rows: list[list[object]] = [[name, seconds, BUDGET_S[name]] for name, seconds in run.took.items()]
    rows.append(["all", sum(run.took.values()), sum(BUDGET_S.values())])
    out.print(table("\nTime", ["step", "seconds", "budget"], rows))
    late = over_budget(run.took)
    if late:
        out.print(Text(f"over budget: {', '.join(late)}", style="yellow"))
    out.print(Text("\nNow yours:", style="bold"))
    out.print(
        Text(
            f"  onesearch serve --release {run.releases / NAME}\n"
            '  onesearch search "手机支架" --explain\n'
            "  onesearch import parquet YOUR_TABLES --store store   (README: bring your own catalogue)"
        )
    )
