"""What changes mean for an index: which rows are put, with which SIDs, vectors and popularity."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from onesearch.catalogue.changes import SCHEMA, Change, table_of
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.data.schemas import brand_of
from onesearch.index import ITEM_COLUMNS, CatalogueIndex, Changes
from onesearch.shoppers.state import item_keys

_SAME_TEXT = 0.999
"""From this cosine on an item that is put again keeps its vector and its SID."""
_ENCODED_AT_ONCE = 1_024
_SHOWN = ("title", "category", "brand")


@dataclass(frozen=True)
class Plan:
    """What is to be done, and an account of it.

    Attributes:
        changes: for :meth:`onesearch.index.CatalogueIndex.following`.
        added, changed, withdrawn: items. encoded: of them, those that got a vector and a SID.
        ignored: changes that were nothing new.
        refused: id and reason of what cannot be done.
        encode_s: seconds that encoding took.
    """

    changes: Changes
    added: int
    changed: int
    withdrawn: int
    encoded: int
    ignored: int
    refused: tuple[tuple[str, str], ...]
    encode_s: float

    @property
    def nothing(self) -> bool:
        """Whether the catalogue stays as it is."""
        return not len(self.changes.rows) and not self.changes.withdrawn


class Planner:
    """Plans changes of one generation of an index."""

    def __init__(self, index: CatalogueIndex, tokenizer: TokenizerServer) -> None:
        self.index = index
        self._tokenizer = tokenizer

    def plan(self, changes: Sequence[Change]) -> Plan:
        """What changes, one an item, come to."""
        index = self.index
        numbers = index.numbers_of(item_keys([change.item_id for change in changes]), withdrawn=True)
        alive = np.ones(len(index), bool) if index.alive is None else index.alive
        here = (numbers >= 0) & (alive[numbers] if len(index) else False)
        refused: list[tuple[str, str]] = []
        clashing = self._clashing(changes, numbers)
        puts: list[int] = []
        patches: list[int] = []
        gone: list[str] = []
        for row, change in enumerate(changes):
            if row in clashing:
                refused.append((change.item_id, "its id has the key of another item's: rename it"))
            elif change.action == "put":
                puts.append(row)
            elif change.action == "withdraw":
                if here[row]:
                    gone.append(change.item_id)
            elif here[row]:
                patches.append(row)
            else:
                refused.append((change.item_id, "is patched, and not in the catalogue"))
        started = time.perf_counter()
        rows, told, encoded = self._put([changes[row] for row in puts], numbers[puts])
        encode_s = time.perf_counter() - started
        rows = _joined(rows, self._patched([changes[row] for row in patches], numbers[patches]))
        fresh = self._different(rows, np.concatenate([numbers[puts], numbers[patches]]).astype(np.int64))
        added = int((~here[puts]).sum())
        kept = rows.rows["item_id"][fresh].to_list()
        done = Changes(
            rows.rows[fresh],
            rows.sids[fresh],
            rows.vectors[fresh],
            rows.popularity[fresh],
            gone,
            told.filter(pl.col("item_id").is_in(kept)),
        )
        return Plan(
            done,
            added,
            len(fresh) - added,
            len(gone),
            encoded,
            len(changes) - len(fresh) - len(gone) - len(refused),
            tuple(refused),
            encode_s,
        )

    def _clashing(self, changes: Sequence[Change], numbers: np.ndarray) -> set[int]:
        """Rows of changes whose id has the key of another one."""
        known = np.flatnonzero(numbers >= 0)
        own = self.index.items["item_id"][numbers[known]].to_list() if len(known) else []
        wrong = {
            row for row, item_id in zip(known.tolist(), own, strict=True) if item_id != changes[row].item_id
        }
        keys: dict[int, int] = {}
        new = np.flatnonzero(numbers < 0).tolist()
        for row, key in zip(new, item_keys([changes[row].item_id for row in new]).tolist(), strict=True):
            if keys.setdefault(key, row) != row:
                wrong.add(row)
        return wrong

    def _put(self, changes: list[Change], numbers: np.ndarray) -> tuple[Changes, pl.DataFrame, int]:
        """Rows of items that are put, what is told of those with a new text, and how many were encoded."""
        index = self.index
        told = _filled(table_of(changes))
        shown = told.select(ITEM_COLUMNS)
        vectors = np.zeros((len(changes), index.vectors.shape[1]), np.float32)
        for start in range(0, len(changes), _ENCODED_AT_ONCE):
            part = told[start : start + _ENCODED_AT_ONCE]
            vectors[start : start + len(part)] = self._tokenizer.embed_items(part)
        old = np.flatnonzero(numbers >= 0)
        before = index.vectors[numbers[old]].astype(np.float32)
        cosine = (before * vectors[old]).sum(axis=1)
        scale = np.linalg.norm(before, axis=1) * np.linalg.norm(vectors[old], axis=1)
        same = old[cosine >= _SAME_TEXT * scale]
        new = np.setdiff1d(np.arange(len(changes)), same)
        sids = np.zeros((len(changes), len(index.levels)), np.int32)
        sids[same] = index.sids[numbers[same]]
        if len(new):
            sids[new] = self._tokenizer.assign(vectors[new], self._taken(numbers[new]))
        exact = vectors.astype(np.float16)
        exact[same] = index.vectors[numbers[same]]
        popularity = np.full(len(changes), self._middling, np.float32)
        popularity[old] = index.popularity[numbers[old]]
        given = told["popularity"].to_numpy()
        popularity = np.where(np.isfinite(given), given, popularity).astype(np.float32)
        reworded = set(new.tolist())
        if len(same):
            was, now = index.items[numbers[same]], shown[same]
            differs = pl.any_horizontal(
                [was[name].fill_null(_empty(name)) != now[name].fill_null(_empty(name)) for name in _SHOWN]
            )
            mask = was.select(differs=differs)["differs"].to_numpy()
            reworded |= set(same[mask].tolist())
        about = told.drop("action", "popularity")[sorted(reworded)]
        return Changes(shown, sids, exact, popularity), about, len(new)

    def _taken(self, own: np.ndarray) -> np.ndarray:
        """SIDs of the live items, less those that are about to change theirs."""
        others = np.ones(len(self.index), bool) if self.index.alive is None else self.index.alive.copy()
        others[own[own >= 0]] = False
        return self.index.sids[others]

    @property
    def _middling(self) -> float:
        """What a new item counts for until something is known of it."""
        return float(np.median(self.index.popularity)) if len(self.index) else 1.0

    def _patched(self, changes: list[Change], numbers: np.ndarray) -> Changes:
        """Rows of items that are there, with other prices, stock or popularity."""
        index = self.index
        told = table_of(changes)
        columns = {name: pl.coalesce(pl.lit(told[name]), name) for name in ("price", "in_stock")}
        rows = index.items[numbers].with_columns(**columns) if len(changes) else index.items.clear()
        given = told["popularity"].to_numpy()
        popularity = np.where(np.isfinite(given), given, index.popularity[numbers]).astype(np.float32)
        return Changes(rows, index.sids[numbers], index.vectors[numbers], popularity)

    def _different(self, changes: Changes, numbers: np.ndarray) -> np.ndarray:
        """Positions of the rows that differ from what the catalogue has."""
        index = self.index
        old = np.flatnonzero(numbers >= 0)
        own = numbers[old]
        same = (index.sids[own] == changes.sids[old]).all(axis=1)
        same &= (index.vectors[own] == changes.vectors[old]).all(axis=1)
        same &= index.popularity[own] == changes.popularity[old]
        if index.alive is not None:
            same &= index.alive[own]
        was, now = index.items[own], changes.rows[old].cast(index.items.schema)
        equal = [was[name].eq_missing(now[name]).to_numpy() for name in ITEM_COLUMNS]
        same &= np.logical_and.reduce(equal) if len(old) else True
        differs = np.ones(len(numbers), bool)
        differs[old] = ~same
        return np.flatnonzero(differs)


def _filled(told: pl.DataFrame) -> pl.DataFrame:
    """A table of puts with the defaults of the store's items, and brands."""
    return told.with_columns(
        pl.col("category").fill_null([]),
        pl.col("attributes").fill_null([]),
        pl.col("in_stock").fill_null(True),
        brand=pl.coalesce(brand_of(), "brand"),
    )


def _empty(name: str) -> Any:
    return [] if isinstance(SCHEMA[name], pl.List) else ""


def _joined(one: Changes, other: Changes) -> Changes:
    return Changes(
        pl.concat([one.rows, other.rows.cast(one.rows.schema)]),
        np.concatenate([one.sids, other.sids]),
        np.concatenate([one.vectors, other.vectors]),
        np.concatenate([one.popularity, other.popularity]),
    )
