"""``onesearch simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli._output import RichProgress, err, out, print_json, table


def simulate(
    store: Annotated[
        Path, typer.Option(help="A simulated shop: `onesearch import demo`.", show_default=False)
    ],
    searches: Annotated[int, typer.Option(help="How many.", min=1)] = 500,
    day: Annotated[int, typer.Option(help="Of which day after the logged year; 0 is the first.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of who searches for what, and of their luck.", min=0)] = 0,
    at_once: Annotated[int, typer.Option(help="Searches under way at once.", min=1, max=64)] = 2,
    report: Annotated[bool, typer.Option(help="Report clicks and orders; needs `serve --kafka`.")] = True,
    until_release: Annotated[
        str, typer.Option(help="End earlier, once this release has given 100 answers.", show_default=False)
    ] = "",
    gateway: Annotated[
        str | None, typer.Option(help="HOST:PORT of the gateway.", show_default="the one started last here")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let simulated shoppers search at a running gateway, click and order by their hidden tastes.

    Everything of it is simulated but the service. Who could see all tastes (oracle) and who shows anything
    (random) stand beside it, with the same requests and the same luck.
    """
    import numpy as np

    from onesearch.data.simulation import Requests, SimulatedShoppers
    from onesearch.data.store import Store
    from onesearch.serving import whereabouts
    from onesearch.serving.client import Client
    from onesearch.visits import PAGE, visit

    shoppers = SimulatedShoppers.open(Store.open(store))
    asked = shoppers.requests(searches, seed, day)
    with Client(whereabouts.gateway(gateway)) as client:
        found = visit(client, shoppers, asked, RichProgress(), seed, at_once, report, until_release)
    asked = Requests(asked.requests[: found.searches], asked.needs.take(np.arange(found.searches)))
    beside = {
        "oracle": shoppers.act(asked, shoppers.oracle(asked, PAGE), seed).figures(),
        "random": shoppers.act(asked, shoppers.random(asked, PAGE, seed), seed).figures(),
    }
    figures = found.figures()
    if json:
        print_json(figures | beside | {"simulated": True, "day": day, "seed": seed})
        return
    rows = [
        (name, *(f"{values[key]:.3f}" for key in ("orders_per_search", "ctr", "buyers", "relevance")))
        for name, values in (("OneSearch", figures), *beside.items())
    ]
    title = f"{found.searches} searches of simulated shoppers, day {day} after the log"
    out.print(table(title, ("", "orders a search", "ctr", "buyers", "relevance"), rows))
    told = ", ".join(f"{count} by {name}" for name, count in found.releases.items())
    out.print(
        f"answered: {told}; {found.degraded} degraded, {found.failed.total()} failed;"
        f" p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms",
        markup=False,
    )
    if found.reported:
        said = ", ".join(f"{count} {fate}" for fate, count in found.reported.items())
        out.print(f"events reported: {said}", markup=False)
    for why, count in found.failed.items():
        err.print(f"{count} failed: {why}", markup=False)
