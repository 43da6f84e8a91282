"""How ``onesearch search --explain`` shows a shopper: who they are, what they did last, what they like."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from onesearch.serving.shopper_view import Interest, SeenItem, ShopperView

_BAR = 20
_INTERESTS = 9
_STAND_INS = 5


def about_shopper(user_id: str, view: ShopperView) -> Table:
    """The three views of a shopper, and what stands in for them where they are cold."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    cold = not view.recent and not view.interests
    rows.add_row("shopper", Text(user_id or "anonymous", style="" if user_id else "dim"))
    for name, sid in view.user_id_tokens.items():
        rows.add_row("", Text.assemble((f"{name.replace('_', ' ')}  ", "dim"), (sid, "magenta")))
    if view.recent:
        rows.add_row("lately", _items(view.recent))
    elif cold:
        rows.add_row("lately", Text("nothing is known", style="dim"))
    if view.stand_ins:
        rows.add_row("stand-ins", Text("most clicked for the query", style="dim"))
        rows.add_row("", _items(view.stand_ins[:_STAND_INS]))
    if view.interests:
        rows.add_row("for long", _interests(view.interests))
    return rows


def _items(items: tuple[SeenItem, ...]) -> Table:
    """One line an item, the newest last: query → title and SID."""
    rows = Table.grid(padding=(0, 1))
    with_queries = any(item.query for item in items)
    if with_queries:
        rows.add_column(style="yellow", overflow="ellipsis", no_wrap=True, max_width=28)
        rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="ellipsis", no_wrap=True)
    rows.add_column(style="magenta", no_wrap=True)
    for item in items:
        title = Text(item.title) if item.title else Text(item.item_id or "nothing clicked", style="dim")
        query = Text(item.query) if item.query else Text("recommended", style="dim")
        cells = [title, Text(item.sid)]
        rows.add_row(*([query, "→", *cells] if with_queries else cells))
    return rows


def _interests(interests: tuple[Interest, ...]) -> Table:
    """A bar each, the heaviest first."""
    rows = Table.grid(padding=(0, 1))
    rows.add_column()
    rows.add_column(no_wrap=True)
    rows.add_column(justify="right", style="green", no_wrap=True)
    heaviest = max(max(one.weight for one in interests), 1e-9)
    for one in sorted(interests, key=lambda one: -one.weight)[:_INTERESTS]:
        filled = max(0, round(2 * _BAR * one.weight / heaviest))
        bar = Text("━" * (filled // 2) + "╸" * (filled % 2), style="cyan")
        bar.append("━" * (_BAR - len(bar)), style="bright_black")
        rows.add_row(Text(one.name), bar, f"{one.weight:.0%}")
    return rows
