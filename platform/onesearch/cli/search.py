"""``onesearch search``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from onesearch.cli._output import err, out, print_json
from onesearch.cli._shopper import LABELS, about_shopper
from onesearch.semantic_ids import format_sid
from onesearch.serving import whereabouts
from onesearch.serving.client import Client
from onesearch.serving.requests import Explanation, Hit, SearchAnswer, SearchRequest, parse_filters


def search(
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    user: Annotated[str, typer.Option(help="Who asks.", show_default="anonymous")] = "",
    k: Annotated[int, typer.Option("--k", "-k", help="How many items.")] = 10,
    offset: Annotated[int, typer.Option(help="How many of the best to leave out.")] = 0,
    page: Annotated[
        str, typer.Option("--page", help="next_page of an answer to the same search.", show_default="first")
    ] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="category=NAME, brand=NAME, price=LOW..HIGH or in_stock; repeatable."),
    ] = None,
    beams: Annotated[
        int | None, typer.Option(help="Width of the search.", show_default="of the release")
    ] = None,
    certify: Annotated[
        int | None,
        typer.Option(
            help="Begin narrow, and widen only until so many of the best SIDs are proven; 0: all beams.",
            show_default="of the release",
        ),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Let the reward order the answer.")] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Show how the answer came about.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    gateway: Annotated[
        str | None, typer.Option(help="HOST:PORT of the gateway.", show_default="the one started last here")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.001)] = 5.0,
) -> None:
    """Ask a running gateway."""
    request = SearchRequest(
        query,
        user,
        k,
        offset,
        parse_filters(filters or []),
        beams,
        explain=explain,
        rerank=rerank,
        certify=certify,
        page_token=page,
    )
    with Client(whereabouts.gateway(gateway), timeout_s=timeout) as client:
        answer = client.search(request)
    if json:
        print_json(_plain(answer))
        return
    out.print(Group(*_screen(request, answer)))
    if answer.degraded:
        err.print("[yellow]degraded:[/] the models did not answer in time; these are the items most clicked")


def _plain(answer: SearchAnswer) -> dict[str, Any]:
    about = asdict(answer)
    for hit in about["hits"]:
        hit["sid"] = format_sid(hit["sid"])
    if about["explanation"] is not None:
        told = about["explanation"]
        told["query_sid"] = format_sid(told["query_sid"])
        told["beams"] = [{"sid": format_sid(sid), "log_prob": score} for sid, score in told["beams"]]
    return about


def _screen(request: SearchRequest, answer: SearchAnswer) -> list[Any]:
    parts: list[Any] = []
    if answer.explanation is not None:
        parts += [_about_query(request.query, answer.explanation), Text()]
        if answer.explanation.shopper is not None:
            parts += [about_shopper(request.user_id, answer.explanation.shopper, out.width), Text()]
    parts.append(_hits(answer.hits, answer.explanation is not None) if answer.hits else Text("nothing found"))
    if answer.explanation is not None:
        parts += [Text(), _about_search(answer.explanation)]
    where = f"release {answer.release}, generation {answer.generation}, {answer.took_ms:.1f} ms"
    return [*parts, Text(where, style="dim")]


def _hits(hits: tuple[Hit, ...], explain: bool) -> Table:
    """Explained hits have a second line with SID, and all parts of the score; others the two largest."""
    made = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    made.add_column("#", justify="right", style="dim", no_wrap=True, min_width=len(str(hits[-1].rank)))
    made.add_column("title", ratio=4, overflow="ellipsis", no_wrap=not explain)
    made.add_column("category", ratio=1, overflow="ellipsis", no_wrap=True, style="cyan")
    made.add_column("price", justify="right", no_wrap=True, min_width=max(len(_price(hit)) for hit in hits))
    made.add_column("score", justify="right", no_wrap=True, style="green", min_width=6)
    made.add_column("parts of the score", ratio=3, overflow="ellipsis", no_wrap=not explain, style="dim")
    for hit in hits:
        title = Text(hit.title)
        if not hit.in_stock:
            title.append(" (sold out)", style="dim")
        if explain:
            title.append("\n" + format_sid(hit.sid), style="magenta")
        category = Text(hit.category[-1] if hit.category else "–")
        parts = Text(_parts(hit, None if explain else 2))
        made.add_row(str(hit.rank), title, category, _price(hit), f"{hit.score:.2f}", parts)
        if explain:
            made.add_section()
    return made


def _price(hit: Hit) -> str:
    return "–" if hit.price is None else f"{hit.price:,.2f}"


def _parts(hit: Hit, limit: int | None) -> str:
    largest = sorted(hit.parts.items(), key=lambda part: -abs(part[1]))[:limit]
    return "  ".join(
        f"{name.replace('_', ' ')} {value:+.2f}" for name, value in largest if abs(value) >= 0.005
    )


def _about_query(query: str, told: Explanation) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True, min_width=LABELS)
    rows.add_column()
    words = Text()
    for word in told.keywords:
        words.append(word.text, style="yellow").append(f" {word.attribute}  ", style="dim")
    rows.add_row("query", Text(query))
    rows.add_row("keywords", words if told.keywords else Text("none", style="dim"))
    rows.add_row("SID", Text(format_sid(told.query_sid), style="magenta"))
    for level, (code, meaning) in enumerate(zip(told.query_sid, told.meanings, strict=True)):
        rows.add_row("", Text.assemble((f"{chr(97 + level)}_{code}  ", "magenta"), (meaning, "dim")))
    return rows


def _about_search(told: Explanation) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True, min_width=LABELS)
    rows.add_column()
    rows.add_row("beams", f"{told.width:,}, which reached {told.found:,} SIDs; the best:")
    for sid, log_prob in told.beams[:5]:
        rows.add_row("", Text.assemble((f"{log_prob:8.3f}  ", "green"), (format_sid(sid), "magenta")))
    rows.add_row("branches", " → ".join(f"{count:,}" for count in told.branches) + " legal ones looked at")
    rows.add_row("certificate", _certificate(told))
    return rows


def _certificate(told: Explanation) -> str:
    if told.exact == told.found:
        return f"exact: these are the best {told.found:,} SIDs, no wider beam could change them"
    missing = "" if told.missing is None else f"; at most {told.missing} SIDs can be missing from this page"
    return f"the best {told.exact:,} SIDs are exact (best branch cut: {told.dropped:.3f}){missing}"
