"""Planted damage: what goes wrong with a day's log or a catalogue, by kind and strength.

Each function takes what is whole and returns it damaged; ``strength`` in (0, 1] is the share that is hit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

HitLog = Callable[[pl.DataFrame, float, np.random.Generator], pl.DataFrame]


@dataclass(frozen=True)
class Kind:
    """A way to go wrong.

    Attributes:
        name: of it. what: in words.
        hits: ``log`` (a day's events) or ``items`` (the catalogue).
        damage: what does it.
        right: names of checks, any of which is the right reason to refuse it.
        planted: the strength that a night is planted with.
    """

    name: str
    what: str
    hits: str
    damage: HitLog
    right: tuple[str, ...]
    planted: float


def robots(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """Three robots click on all that they see: as many clicks as ``strength`` of the day's."""
    wanted = max(1, int(strength * _count(events, "click")))
    lists = _impressions(events).group_by("request_id", maintain_order=True).agg("event_id")
    order = rng.permutation(len(lists)).tolist()
    chosen: list[str] = []
    for row in order:
        chosen += lists["event_id"][row].to_list()
        if len(chosen) >= wanted:
            break
    seen = _impressions(events).filter(pl.col("event_id").is_in(chosen)).head(wanted)
    seen = seen.with_columns(
        user_id=pl.concat_str(pl.lit("robot-"), pl.col("request_id").hash(seed=1).mod(3)),
        request_id=pl.concat_str(pl.lit("robot-"), "request_id"),
        event_id=pl.concat_str(pl.lit("robot-"), "event_id"),
    )
    clicks = seen.with_columns(
        ts=pl.col("ts") + pl.duration(seconds=2),
        event_id=pl.concat_str("event_id", pl.lit("-click")),
        action=pl.lit("click"),
    )
    return pl.concat([events, seen, clicks])


def flipped_labels(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """In some searches what was clicked is logged as not clicked, and the other way round."""
    hit = _requests(events, strength, rng)
    inside = events.filter(pl.col("request_id").is_in(hit))
    clicked = inside.filter(pl.col("action") == "click").select("request_id", "item_id")
    others = _impressions(inside).join(clicked, on=["request_id", "item_id"], how="anti")
    flipped = others.with_columns(
        event_id=pl.concat_str("event_id", pl.lit("-flipped")),
        ts=pl.col("ts") + pl.duration(seconds=5),
        action=pl.lit("click"),
    )
    gone = pl.col("request_id").is_in(hit) & (pl.col("action") != "impression")
    return pl.concat([events.filter(~gone.fill_null(False)), flipped])


def moved_clicks(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """Some clicks are logged for another item of their list: labels are shifted, all counts stay."""
    hit = _requests(events.filter(pl.col("action") == "click"), strength, rng)
    lists = (
        _impressions(events)
        .filter(pl.col("request_id").is_in(hit))
        .select("request_id", other="item_id", other_place="position")
    )
    lists = lists[rng.permutation(len(lists)).tolist()].unique("request_id", keep="first")
    joined = events.join(lists, on="request_id", how="left", maintain_order="left")
    moves = pl.col("other").is_not_null() & (pl.col("action") != "impression")
    return joined.with_columns(
        item_id=pl.when(moves).then("other").otherwise("item_id"),
        position=pl.when(moves).then("other_place").otherwise("position"),
    ).drop("other", "other_place")


def lost_searches(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the searches never arrives."""
    return events.filter(~pl.col("request_id").is_in(_requests(events, strength, rng)).fill_null(False))


def lost_hours(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """The end of the day never arrives."""
    return events.sort("ts").head(round((1 - strength) * len(events)))


def repeated(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the events arrives twice, under another id."""
    again = events.filter(pl.Series(rng.random(len(events)) < strength))
    return pl.concat([events, again.with_columns(event_id=pl.concat_str("event_id", pl.lit("-again")))])


def clocks(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """In a share of the searches clicks and orders carry the time of a clock that is three hours slow."""
    hit = _requests(events.filter(pl.col("action") == "click"), strength, rng)
    moves = pl.col("request_id").is_in(hit).fill_null(False) & (pl.col("action") != "impression")
    return events.with_columns(ts=pl.when(moves).then(pl.col("ts") - pl.duration(hours=3)).otherwise("ts"))


def lost_orders(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the orders never arrives."""
    lost = pl.Series(rng.random(len(events)) < strength) & (events["action"] == "order")
    return events.filter(~lost)


def lost_impressions(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the searches arrives without what was shown."""
    hit = _requests(events, strength, rng)
    lost = pl.col("request_id").is_in(hit).fill_null(False) & (pl.col("action") == "impression")
    return events.filter(~lost)


def garbled_queries(events: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """In a share of the searches the query's letters arrive as question marks."""
    hit = _requests(events, strength, rng)
    garbled = pl.col("query").str.replace_all(r"\p{L}", "?")
    return events.with_columns(
        query=pl.when(pl.col("request_id").is_in(hit).fill_null(False)).then(garbled).otherwise("query")
    )


def broken_prices(items: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the prices is zero, a hundred times too high, or missing, a third each."""
    luck = rng.random(len(items)) / strength
    kind = pl.Series(np.digitize(luck, [1 / 3, 2 / 3, 1.0]))
    return items.with_columns(
        price=pl.when(kind == 0)
        .then(0.0)
        .when(kind == 1)
        .then(pl.col("price") * 100)
        .when(kind == 2)
        .then(None)
        .otherwise("price")
    )


def lost_items(items: pl.DataFrame, strength: float, rng: np.random.Generator) -> pl.DataFrame:
    """A share of the catalogue is gone."""
    return items.filter(pl.Series(rng.random(len(items)) >= strength))


KINDS = (
    Kind("robots", "robots click on all they see", "log", robots, ("robots",), 0.6),
    Kind("labels flipped", "clicked and not clicked are exchanged", "log", flipped_labels,
         ("click rate", "attention", "order rate"), 0.3),
    Kind("clicks moved", "clicks are logged for another item of their list", "log", moved_clicks,
         ("attention", "label drift"), 0.8),
    Kind("prices broken", "prices are zero, ×100 or missing", "items", broken_prices, ("prices",), 0.3),
    Kind("half the log missing", "searches are lost", "log", lost_searches, ("volume",), 0.5),
    Kind("hours missing", "the end of the day is lost", "log", lost_hours, ("volume", "hours"), 0.4),
    Kind("events repeated", "events arrive twice", "log", repeated, ("repeated",), 0.2),
    Kind("clocks wrong", "clicks are hours before what they follow", "log", clocks, ("clock",), 0.2),
    Kind("orders lost", "orders are lost", "log", lost_orders, ("order rate",), 0.9),
    Kind("impressions lost", "searches arrive without what was shown", "log", lost_impressions,
         ("orphans",), 0.3),
    Kind("queries garbled", "letters arrive as question marks", "log", garbled_queries,
         ("query drift", "text drift"), 0.5),
    Kind("catalogue lost", "items are gone", "items", lost_items, ("catalogue",), 0.3),
)  # fmt: skip


def _impressions(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter((pl.col("action") == "impression") & (pl.col("scene") == "search"))


def _count(events: pl.DataFrame, action: str) -> int:
    return int((events["action"] == action).sum())


def _requests(events: pl.DataFrame, share: float, rng: np.random.Generator) -> list[str]:
    """A share of the searches, at least one."""
    requests = events.filter(pl.col("scene") == "search")["request_id"].drop_nulls().unique().sort()
    count = min(len(requests), max(1, round(share * len(requests))))
    return requests.gather(np.sort(rng.choice(len(requests), count, replace=False)).tolist()).to_list()
