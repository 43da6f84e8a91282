"""How ``onesearch search --explain`` shows a shopper: who they are, what they did last, what they like."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from onesearch.serving.shopper_view import Interest, SeenItem, ShopperView

LABELS = 11
"""Width of the labels on the left of an explanation."""
_BAR = 20
_INTERESTS = 9
_STAND_INS = 5
_WITH_SIDS = 100
"""Narrower screens show an item's title without its SID."""


def about_shopper(user_id: str, view: ShopperView, width: int) -> Table:
    """The three views of a shopper, and what stands in for them where they are cold.

    ``width``: columns of the screen.
    """
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True, min_width=LABELS)
    rows.add_column()
    rows.add_row("shopper", Text(user_id or "anonymous", style="" if user_id else "dim"))
    if view.user_id_tokens:
        rows.add_row("who", _tokens(view.user_id_tokens))
    nothing = Text("nothing is known", style="dim")
    rows.add_row("recent", _items(view.recent, width, queries=True) if view.recent else nothing)
    if view.stand_ins:
        rows.add_row("stand-ins", Text("most clicked for the query", style="dim"))
        rows.add_row("", _items(view.stand_ins[:_STAND_INS], width, queries=False))
    if view.interests:
        rows.add_row("long term", _interests(view.interests))
    return rows


def _tokens(tokens: dict[str, str]) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(style="magenta", overflow="fold")
    for name, sid in tokens.items():
        rows.add_row(Text(name.replace("_", " ")), Text(sid))
    return rows


def _items(items: tuple[SeenItem, ...], width: int, queries: bool) -> Table:
    """One line an item, the newest last: query → title, and SID."""
    asked = [Text(item.query) if item.query else Text("recommended", style="dim") for item in items]
    titles = [
        Text(item.title) if item.title else Text(item.item_id or "nothing clicked", style="dim")
        for item in items
    ]
    # Columns of a table in a table are squeezed evenly; here only the titles give way.
    sid_width = max(len(item.sid) for item in items) if width >= _WITH_SIDS else 0
    query_width = min(max(text.cell_len for text in asked), width // 4) if queries else 0
    left = width - LABELS - 2 - (sid_width + 1 if sid_width else 0) - (query_width + 3 if queries else 0)
    rows = Table.grid(padding=(0, 1))
    if queries:
        rows.add_column(style="yellow", overflow="ellipsis", no_wrap=True, width=query_width)
        rows.add_column(style="dim", width=1)
    longest = max(text.cell_len for text in titles)
    rows.add_column(overflow="ellipsis", no_wrap=True, width=max(1, min(longest, left)))
    if sid_width:
        rows.add_column(style="magenta", no_wrap=True, width=sid_width)
    for item, query, title in zip(items, asked, titles, strict=True):
        rows.add_row(
            *((query, Text("→")) if queries else ()), title, *((Text(item.sid),) if sid_width else ())
        )
    return rows


def _interests(interests: tuple[Interest, ...]) -> Table:
    """A bar each, the heaviest first."""
    rows = Table.grid(padding=(0, 1))
    rows.add_column()
    rows.add_column(no_wrap=True)
    rows.add_column(justify="right", style="green", no_wrap=True)
    heaviest = max(max(one.weight for one in interests), 1e-9)
    for one in sorted(interests, key=lambda one: -one.weight)[:_INTERESTS]:
        bar = "━" * max(0, round(_BAR * one.weight / heaviest))
        rows.add_row(Text(one.name), Text(bar.ljust(_BAR), style="cyan"), f"{one.weight:.0%}")
    return rows
