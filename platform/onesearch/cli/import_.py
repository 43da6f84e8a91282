"""``onesearch import``: read a catalogue and logs into a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from onesearch.cli._output import RichProgress, err, out, print_json, table
from onesearch.data.importers.demo import DemoSize, import_demo
from onesearch.data.importers.hm import import_hm
from onesearch.data.importers.homedepot import import_homedepot
from onesearch.data.importers.kuaisearch import import_kuaisearch
from onesearch.data.importers.tables import import_tables
from onesearch.data.importing import MAX_REJECTED, Import, Report, run_import

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Read a catalogue and logs into a store.",
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="The folder to read.", show_default=False)]
StorePath = Annotated[Path, typer.Option("--store", help="The store to make or replace.", show_default=False)]
MaxRejected = Annotated[
    int, typer.Option("--max-rejected", min=0, help="How many rows may not fit before the import stops.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def demo(
    store: StorePath,
    size: Annotated[
        DemoSize, typer.Option(help="How large a shop: 24,000 items and 4,000 shoppers, or 3,000 and 800.")
    ] = DemoSize.full,
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes another shop.")] = 0,
    json: Json = False,
) -> None:
    """Make a simulated shop: items in English and Chinese, shoppers with hidden tastes, a year of logs."""
    _run("demo", partial(import_demo, size=size, seed=seed), store, 0, json, simulated=True)


@app.command()
def hm(src: Source, store: StorePath, max_rejected: MaxRejected = MAX_REJECTED, json: Json = False) -> None:
    """H&M: articles.parquet and searches.parquet; each search becomes an order."""
    _run("hm", partial(import_hm, src), store, max_rejected, json)


@app.command()
def homedepot(
    src: Source, store: StorePath, max_rejected: MaxRejected = MAX_REJECTED, json: Json = False
) -> None:
    """Home Depot: products.parquet and labels.parquet; items and judged pairs."""
    _run("homedepot", partial(import_homedepot, src), store, max_rejected, json)


@app.command()
def kuaisearch(
    src: Source, store: StorePath, max_rejected: MaxRejected = MAX_REJECTED, json: Json = False
) -> None:
    """KuaiSearch: items, users, recall, rank and relevance as JSONL, in Chinese."""
    _run("kuaisearch", partial(import_kuaisearch, src), store, max_rejected, json)


@app.command()
def parquet(
    src: Source, store: StorePath, max_rejected: MaxRejected = MAX_REJECTED, json: Json = False
) -> None:
    """Your own tables: items.parquet, and shoppers, interactions, relevance where you have them."""
    _run("parquet", partial(import_tables, src, form="parquet"), store, max_rejected, json)


@app.command()
def jsonl(
    src: Source, store: StorePath, max_rejected: MaxRejected = MAX_REJECTED, json: Json = False
) -> None:
    """The same as JSONL, one object a line."""
    _run("jsonl", partial(import_tables, src, form="jsonl"), store, max_rejected, json)


def _run(
    name: str, importer: Callable[[Import], Any], store: Path, limit: int, json: bool, simulated: bool = False
) -> None:
    report = run_import(name, importer, store, limit, RichProgress(), simulated)
    if json:
        print_json(report.as_dict())
    else:
        _show(report)


def _show(report: Report) -> None:
    kind = "simulated " if report.store.simulated else ""
    out.print(Text(f"{kind}store {report.store.path}, from {report.store.source}"), soft_wrap=True)
    out.print(table("", ("table", "rows"), list(report.counts.items())))
    if report.unknown_items:
        out.print(
            Text(f"kept, though the catalogue lacks the item: {report.unknown_items:,} events or judgements")
        )
    if report.rejected:
        rows = list(report.reasons.items())[:10]
        out.print(Text(f"rejected rows: {report.rejected:,}, all in {report.rejected_file}"), soft_wrap=True)
        out.print(table("", ("why", "rows"), rows))
    for note in report.notes:
        err.print(Text(f"note: {note}"), soft_wrap=True)
