"""A store of one moment: a base store with other events, and with the catalogue as it was changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.catalogue.changes import Change
from onesearch.data.schemas import TABLE_NAMES, schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter

_TOLD = ("price", "in_stock", "detail_text", "ocr_text", "image_uri")


def derived(
    base: Store,
    target: Path | str,
    notes: Mapping[str, dict[str, Any]],
    replaced: Mapping[str, pl.DataFrame] | None = None,
    added: Mapping[str, pl.DataFrame] | None = None,
) -> Store:
    """Write a store like another one: some tables replaced, rows added to some, the others linked.

    Files of the base that stay are linked, not copied. Its notes are those of the base, and ``notes``.
    """
    replaced, added = replaced or {}, added or {}
    with StoreWriter(target, base.source, base.simulated) as writer:
        for table in TABLE_NAMES:
            if table in replaced:
                writer.write(table, replaced[table])
            else:
                writer.adopt(table, base)
            if table in added:
                writer.write(table, added[table])
        for name, document in (base.manifest.get("extra", {}) | dict(notes)).items():
            writer.note(name, document)
    return Store.open(target)


def changed_items(items: pl.DataFrame, told: Mapping[str, Change]) -> pl.DataFrame:
    """A store's items after the changes of a live catalogue: those that stay where they were, new ones behind
    them.

    Args:
        told: by item id, what the changes of an item come to.
    """
    known = set(items["item_id"])
    rows = {row["item_id"]: row for row in items.filter(pl.col("item_id").is_in(list(told))).to_dicts()}
    gone = [item_id for item_id, change in told.items() if change.action == "withdraw"]
    put = {
        item_id: after
        for item_id, change in told.items()
        if (after := _after(rows.get(item_id), change)) is not None
    }
    stays = items.filter(~pl.col("item_id").is_in([*gone, *put]))
    fresh = pl.DataFrame(list(put.values()), schema=schema("items"))
    order = {item_id: at for at, item_id in enumerate(items["item_id"])}
    whole = pl.concat([stays, fresh])
    place = [order.get(item_id, len(known)) for item_id in whole["item_id"]]
    return whole.with_columns(pl.Series("place", place)).sort("place", maintain_order=True).drop("place")


def _after(row: dict[str, object] | None, change: Change) -> dict[str, object] | None:
    """A row of the items after a change; None: there is none."""
    if change.action == "withdraw" or (change.action == "patch" and row is None):
        return None
    told = {name: getattr(change, name) for name in _TOLD if getattr(change, name) is not None}
    if change.action == "patch":
        return {**(row or {}), **told}
    attributes = [{"type": kind, "value": value} for kind, value in change.attributes or ()]
    if change.brand and not any(one["type"] == "Brand" for one in attributes):
        attributes.append({"type": "Brand", "value": change.brand})
    return {
        "item_id": change.item_id, "title": change.title, "category": list(change.category or ()),
        "attributes": attributes, "in_stock": True, **told,
    }  # fmt: skip
