"""How a shopper is seen in a search, for people: what a user encoder's ``explain`` tells, typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from onesearch.semantic_ids import format_sid


@dataclass(frozen=True)
class SeenItem:
    """An item in a shopper's behaviour, or in place of it.

    Attributes:
        item_id: empty where nothing was clicked, or the catalogue has the item no more.
        title: of the catalogue that answers.
        sid: printed.
        query: what it was clicked or ordered for; empty for something recommended and for stand-ins.
    """

    item_id: str = ""
    title: str = ""
    sid: str = ""
    query: str = ""


@dataclass(frozen=True)
class Interest:
    """Something that weighs in what a shopper has liked for long, and how much."""

    name: str
    weight: float


@dataclass(frozen=True)
class ShopperView:
    """A shopper as one search saw them.

    Attributes:
        user_id_tokens: printed SIDs by name: who they are, told by their behaviour.
        recent: the short sequence, oldest first.
        stand_ins: the items most clicked for the query, where the shopper or the query is cold.
        interests: what weighs in the long sequences, in the encoder's order.
    """

    user_id_tokens: dict[str, str] = field(default_factory=dict)
    recent: tuple[SeenItem, ...] = ()
    stand_ins: tuple[SeenItem, ...] = ()
    interests: tuple[Interest, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From the JSON object that :meth:`as_dict` or a user encoder's ``explain`` made.

        Raises ValueError, TypeError or AttributeError where a known key holds something else than the
        contract says; keys that are not known are left out.
        """
        return cls(
            {str(name): _sid(sid) for name, sid in told.get("user_id_tokens", {}).items()},
            tuple(map(_item, told.get("recent", ()))),
            tuple(map(_item, told.get("stand_ins", ()))),
            tuple(
                Interest(str(one.get("name", "")), float(one.get("weight", 0.0)))
                for one in told.get("interests", ())
            ),
        )

    def item_ids(self) -> set[str]:
        """Ids of all items in it."""
        return {item.item_id for item in (*self.recent, *self.stand_ins) if item.item_id}

    def titled(self, titles: Mapping[str, str]) -> Self:
        """With the titles of its items, by id."""

        def all_of(items: Iterable[SeenItem]) -> tuple[SeenItem, ...]:
            return tuple(replace(item, title=titles.get(item.item_id, item.title)) for item in items)

        return replace(self, recent=all_of(self.recent), stand_ins=all_of(self.stand_ins))

    def as_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def _item(told: Mapping[str, Any]) -> SeenItem:
    item_id, title, query = (str(told.get(name) or "") for name in ("item_id", "title", "query"))
    return SeenItem(item_id, title, _sid(told.get("sid")), query)


def _sid(sid: Any) -> str:
    """A printed SID; plugins may leave the printing to us."""
    if isinstance(sid, str):
        return sid
    return format_sid([int(code) for code in sid]) if sid is not None and len(sid) else ""
