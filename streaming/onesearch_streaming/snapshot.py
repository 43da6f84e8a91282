"""A store of one moment: a base store, the log up to a pinned version, and the catalogue's changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from onesearch.catalogue.changes import Change
from onesearch.catalogue.log import ChangeLog
from onesearch.data.schemas import TABLE_NAMES, schema
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter

from onesearch_streaming.nightly.delta import read_log

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_TOLD = ("price", "in_stock", "detail_text", "ocr_text", "image_uri")


def snapshot(
    log: Path | str, version: int, base: Store, target: Path | str, changes: ChangeLog | None = None
) -> Store:
    """Write a store of all that was known at a version of the log.

    Files of the base that do not change are linked, not copied, so that it costs what the log and the
    catalogue cost, and not what the base's history does.

    Args:
        log: the Delta log that ``onesearch ingest`` writes.
        version: its version; pin it while somebody may vacuum.
        base: what was there before the log began: its interactions come first. Event ids of the log that the
            base has, too, are not looked for.
        target: where; a store that is there is replaced when the new one is whole.
        changes: of the catalogue; None: it is the base's.

    Raises ArtifactError where the version cannot be read, UsageError where the target is no store.
    """
    rows = read_log(log, version, _BEGINNING).sort("ts", "event_id").collect()
    items = {} if changes is None else {"items": changed_items(base.items(), changes)}
    notes = {"snapshot": {"base": base.fingerprint(), "log_version": version}}
    return derived(base, target, notes, replaced=items, added={"interactions": rows})


def derived(
    base: Store,
    target: Path | str,
    notes: Mapping[str, dict[str, Any]],
    replaced: Mapping[str, pl.DataFrame] | None = None,
    added: Mapping[str, pl.DataFrame] | None = None,
) -> Store:
    """Write a store like another one: some tables replaced, rows added to some, the others linked.

    Its notes are those of the base, and ``notes``.
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


def changed_items(items: pl.DataFrame, changes: ChangeLog) -> pl.DataFrame:
    """A store's items after the changes of a log: those that stay where they were, new ones behind them."""
    told, _ = changes.since(0)
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
