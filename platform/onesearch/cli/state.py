"""``onesearch state``: build, show and add to what is known of shoppers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from onesearch.cli._output import RichProgress, out, print_json, table
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.shoppers.building import build_states
from onesearch.shoppers.events import Event
from onesearch.shoppers.opening import FORMS, open_states
from onesearch.shoppers.packing import pack
from onesearch.shoppers.state import NO_ITEM, RING_SIZE, SCENES, Recent, Ring, ShopperState, item_keys

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Build, show and add to what is known of shoppers."
)

User = Annotated[str, typer.Argument(metavar="USER", help="The shopper's id.", show_default=False)]
States = Annotated[
    str, typer.Option("--states", metavar="URL", help=f"The states: {FORMS}.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Action(StrEnum):
    """What a shopper may do with an item."""

    impression = "impression"
    click = "click"
    order = "order"


class Scene(StrEnum):
    """Where it may happen."""

    search = "search"
    recommend = "recommend"


@app.command()
def build(
    store: Annotated[Path, typer.Option("--store", help="The store whose log is read.", show_default=False)],
    states: States,
    size_gb: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="How large a folder of states may grow; 32 when it is made.", show_default=False
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even where a stream writes, whose later events are then lost.")
    ] = False,
    json: Json = False,
) -> None:
    """Write what is known of every shopper at the end of a store's log.

    It replaces what was known of them. One that was interrupted is run again.
    """
    opened = Store.open(store)
    with open_states(states, map_bytes=int(size_gb * 2**30) if size_gb else None) as target:
        done = build_states(opened, target, replace, RichProgress())
        done |= {"states": target.url, "known": target.count}
    if json:
        print_json(done)
        return
    kind = "simulated shoppers" if done["simulated"] else "shoppers"
    said = f"{done['shoppers']:,} {kind} of {done['interactions']:,} interactions, in {done['seconds']:.1f} s"
    out.print(Text(f"{said}; {done['known']:,} are known in {done['states']}"), soft_wrap=True)


@app.command()
def show(
    user: User,
    states: States,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="A store whose catalogue names the items; states hold their hashes only."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what is known of a shopper."""
    _check_texts({"USER": user})
    with open_states(states, read_only=True) as opened:
        state, url = opened.get(user), opened.url
    told = _told(state, _names(state, Store.open(store)) if store else {})
    if json:
        print_json({"states": url, **told})
    else:
        _show(told)


@app.command()
def add(
    user: User,
    states: States,
    action: Annotated[Action, typer.Option(help="What happened.", show_default=False)],
    item: Annotated[str | None, typer.Option(help="The item's id; needed for clicks and orders.")] = None,
    query: Annotated[str | None, typer.Option(help="What was searched for, as typed.")] = None,
    scene: Annotated[Scene, typer.Option(help="Where it happened.")] = Scene.search,
    json: Json = False,
) -> None:
    """Record one event, now: for trying things by hand.

    In production only the consumer of the event stream writes states:

    what is added here is in no log, and no training sees it.
    """
    _check_texts({"USER": user, "--item": item, "--query": query})
    if not user:
        raise UsageError("USER: an empty id names nobody")
    if action is not Action.impression and not item:
        raise UsageError(f"--item: which item was the {action} of?")
    now = time.time()
    event = Event(user, int(now), action, item, query, scene)
    with open_states(states) as opened:
        tally = opened.update({user: [event]}, now=now)
        told = _told(opened.get(user), {})
        url = opened.url
    if json:
        print_json({"states": url, "applied": tally.applied, "repeated": tally.repeated, **told})
        return
    done = "was there already" if tally.repeated else "recorded"
    out.print(Text(f"{action} of {item or 'no item'} {done} in {url}"), soft_wrap=True)
    _show(told)


def _check_texts(given: Mapping[str, str | None]) -> None:
    for name, text in given.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name}: is not UTF-8") from None


def _names(state: ShopperState, store: Store) -> dict[int, tuple[str, str]]:
    """Item key → (id, title) of the recent items that the catalogue knows."""
    items = store.items()
    wanted = {recent.item for recent in state.recent}
    keys = item_keys(items["item_id"].to_list()).tolist()
    return {
        key: (items["item_id"][row], items["title"][row]) for row, key in enumerate(keys) if key in wanted
    }


def _told(state: ShopperState, names: dict[int, tuple[str, str]]) -> dict[str, Any]:
    counts = dict(zip(("impressions", "clicks", "orders"), state.counts, strict=True))
    return {
        "user_id": state.user_id,
        "known": state.known,
        "counts": counts,
        "clicks": _told_ring(state.clicks),
        "orders": _told_ring(state.orders),
        "recent": [_told_recent(recent, names) for recent in state.recent],
        "bytes": len(pack(state)) if state.known else 0,
    }


def _told_ring(ring: Ring) -> dict[str, Any]:
    first, last = (int(ring.times[0]), int(ring.times[-1])) if len(ring) else (None, None)
    return {"kept": len(ring), "oldest": _moment(first), "newest": _moment(last)}


def _told_recent(recent: Recent, names: dict[int, tuple[str, str]]) -> dict[str, Any]:
    item_id, title = names.get(recent.item, (None, None))
    return {
        "time": _moment(recent.time),
        "scene": SCENES[recent.scene],
        "query": recent.query,
        "item": None if recent.item == NO_ITEM else f"{recent.item:016x}",
        "item_id": item_id,
        "title": title,
    }


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _show(told: dict[str, Any]) -> None:
    if not told["known"]:
        out.print(Text(f"nothing is known of shopper {told['user_id']!r}"), soft_wrap=True)
        return
    out.print(
        Text.assemble("shopper ", (told["user_id"], "bold"), f", {told['bytes']:,} bytes\n"), soft_wrap=True
    )
    rows: list[list[object]] = [["impressions", told["counts"]["impressions"], None, None, None]]
    for name in ("clicks", "orders"):
        ring = told[name]
        rows.append([name, told["counts"][name], ring["kept"], ring["oldest"], ring["newest"]])
    columns = ("", "ever", f"kept (of {RING_SIZE:,})", "oldest kept (UTC)", "newest (UTC)")
    out.print(table("", columns, rows))
    if told["recent"]:
        out.print()
        shown = [_recent_row(recent) for recent in reversed(told["recent"])]
        out.print(table("recent, the newest first", ("when (UTC)", "scene", "query", "item"), shown))


def _recent_row(recent: dict[str, Any]) -> list[object]:
    if recent["item"] is None:
        item = Text("only shown", style="dim")
    elif recent["item_id"] is None:
        item = Text(recent["item"], style="dim")
    else:
        item = Text.assemble((recent["item_id"], "bold"), " ", recent["title"])
    return [recent["time"], recent["scene"], recent["query"] or None, item]
