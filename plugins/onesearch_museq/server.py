"""The serving half of Mu-Seq: shopper states and queries → prompts, prefix vectors, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from onesearch.compiling.runtime import Session
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import Prompt, RawPrompt, ShopperState, UserEncoderServer
from onesearch.errors import ArtifactError, ServingError
from onesearch.semantic_ids import format_sid
from onesearch.vocabulary import pad
from pydantic import BaseModel

from onesearch_museq.artifact import ABOUT, GRAPH, About
from onesearch_museq.behaviour import Behaviour, Pair, resolve
from onesearch_museq.caching import TextCache
from onesearch_museq.history import Histories
from onesearch_museq.prompts import (
    build_prompts,
    fitting,
    popular_part,
    recent_part,
    text_room,
    user_part,
)
from onesearch_museq.stand_ins import StandIns
from onesearch_museq.user_id import behaviour_codes, hashed_codes

CACHED_QUERIES = 50_000
USER_ID_NAMES = {
    "vector": ("recent", "long"),
    "nearest_two": ("nearest", "second nearest"),
    "hashed": ("hash", "second hash"),
}
NOTHING_KNOWN = "nothing known"


@dataclass(frozen=True)
class View:
    """What a prompt shows of a shopper.

    Attributes:
        pairs: the recent part, oldest first. stand_ins: item numbers of the popular part, best first.
        codes: the user's id i32[2, L], None where nothing is known.
        query: the ids of the query's part.
    """

    behaviour: Behaviour
    pairs: list[Pair]
    stand_ins: list[int]
    codes: np.ndarray | None
    query: list[int]


class MuSeqServer(UserEncoderServer):
    """Prompts of the user's id, the query, and recent or popular items; a prefix that sums up the rest."""

    def __init__(
        self, about: About, context: ServingContext, table: StandIns | None, session: Session | None
    ) -> None:
        self._settings, self._about, self._session = about.settings, about, session
        self._context, self._table = context, table
        self._vocabulary, self._index = context.vocabulary, context.index
        self._codebooks = context.codebooks
        self._levels = len(self._vocabulary.levels)
        self._text_limit = min(
            self._settings.text_limit, text_room(context.vocabulary, self._settings.prompt_limit)
        )
        self._queries = TextCache(self._encode_queries, CACHED_QUERIES)
        self._popular = TextCache(self._look_up, CACHED_QUERIES)
        self._histories = (
            Histories(self._codebooks, self._index.sids, self._settings.rsu_codes)
            if self._settings.long
            else None
        )

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open ``museq.json`` (which rules over ``config``), the table of stand-ins and the graph."""
        about = About.load(folder)
        settings = about.settings
        if text_room(context.vocabulary, settings.prompt_limit) < 1:
            raise ArtifactError(
                f"{folder / ABOUT}: prompt_limit {settings.prompt_limit} leaves no room for a query beside"
                f" SIDs of {len(context.vocabulary.levels)} levels"
            )
        if about.trained and about.dim != context.codebooks.dim:
            raise ArtifactError(
                f"{folder / GRAPH}: reads vectors of dimension {about.dim}, the codebooks have"
                f" {context.codebooks.dim}"
            )
        table = StandIns.load(folder) if settings.cold else None
        session = context.runtime.session(folder / GRAPH) if about.trained else None
        return cls(about, context, table, session)

    def renewed(self, context: ServingContext) -> Self:
        """Over another generation: only its items are other ones."""
        other = copy(self)
        other._context, other._index = context, context.index
        other._popular = TextCache(other._look_up, CACHED_QUERIES)
        if self._histories is not None:
            other._histories = self._histories.over(context.index.sids)
        return other

    def raw(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> RawPrompt:
        """Everything of B prompts that is not learnt (see the contract).

        ``history`` is f32[B, 9, D] with the means of :class:`onesearch_museq.history.Histories`, or F = 0
        where the long sequences are switched off.

        Raises:
            UsageError: the SIDs' shape does not fit.
            ServingError: a past query needs a SID and no tokenizer is at hand.
        """
        return self._raw(self._views(states, queries, query_sids, stand_ins), query_sids)

    def features(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> Prompt:
        """Prompts of B requests; prefix f32[B, P, d], or empty (P = d = 0) without a trained module."""
        raw = self.raw(states, queries, query_sids, stand_ins)
        return Prompt(raw.ids, raw.mask, self._attend(raw)[0])

    def explain(
        self, states: Sequence[ShopperState], queries: Sequence[str], query_sids: np.ndarray
    ) -> list[dict[str, Any]]:
        """How each shopper is seen (keys of the contract).

        ``interests`` are attention weights of the Q-Former, averaged over its queries, largest first; they
        sum to 1, with what falls on no sequence at all under "nothing known". Without a trained module there
        are none.
        """
        views = self._views(states, queries, query_sids, None)
        raw = self._raw(views, query_sids)
        weights = self._attend(raw)[1].mean(axis=1) if self._session and len(views) else None
        explained = []
        for row, view in enumerate(views):
            names = USER_ID_NAMES.get(self._settings.user_id, ())
            codes = () if view.codes is None else view.codes.tolist()
            about: dict[str, Any] = {
                "user_id_tokens": {name: format_sid(sid) for name, sid in zip(names, codes, strict=False)},
                "recent": [{"query": pair.query, **self._item(pair.item)} for pair in view.pairs],
                "stand_ins": [self._item(number) for number in view.stand_ins],
                "interests": [],
            }
            if weights is not None:
                about["interests"] = self._interests(weights[row], raw.history_mask[row])
            explained.append(about)
        return explained

    def _views(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None,
    ) -> list[View]:
        """What each of B prompts shows, cut to the limit."""
        texts = build_prompts(self._vocabulary, queries, query_sids, self._text_limit)
        behaviours = resolve(states, self._index)
        popular = self._stand_ins(queries, stand_ins)
        views = []
        for behaviour, text, best in zip(behaviours, texts, popular, strict=True):
            code = self._user_codes(behaviour, best)
            newest = behaviour.pairs[-self._settings.recent :]
            items = sum(pair.item >= 0 for pair in newest)
            room = self._settings.prompt_limit - len(self._user_ids(code)) - len(text)
            pairs, shown = fitting(
                newest if self._settings.short else (),
                best[: max(0, self._settings.stand_ins - items)],
                room,
                self._levels,
            )
            views.append(View(behaviour, pairs, shown, code, text))
        return views

    def _raw(self, views: list[View], query_sids: np.ndarray) -> RawPrompt:
        pairs = [pair for view in views for pair in view.pairs]
        past = iter(self._queries.of([pair.query for pair in pairs if pair.query]))
        items = [item for view in views for item in (*(p.item for p in view.pairs), *view.stand_ins)]
        numbers = np.array([item for item in items if item >= 0], np.int64)
        sids = iter(self._vocabulary.sid_ids(self._index.sids[numbers]).tolist())
        rows = []
        for view in views:
            recent = [
                (next(past) if pair.query else None, next(sids) if pair.item >= 0 else None)
                for pair in view.pairs
            ]
            popular = [next(sids) for _ in view.stand_ins]
            rows.append(
                [*self._user_ids(view.codes), *view.query, *recent_part(recent), *popular_part(popular)]
            )
        ids, mask = pad(rows)
        if self._histories is None:
            nothing = np.zeros((len(views), 0, self._codebooks.dim), np.float32)
            return RawPrompt(ids, mask, nothing, np.zeros((len(views), 0), bool))
        return RawPrompt(ids, mask, *self._histories.of([view.behaviour for view in views], query_sids))

    def _attend(self, raw: RawPrompt) -> tuple[np.ndarray, np.ndarray]:
        """Prefix f32[B, P, d] and attention weights f32[B, P, F + 1]."""
        count = len(raw.ids)
        if self._session is None:
            return np.zeros((count, 0, 0), np.float32), np.zeros((count, 0, 0), np.float32)
        if not count:
            queries = self._settings.queries
            vectors = raw.history.shape[1] + 1
            return np.zeros((0, queries, self._about.width), np.float32), np.zeros(
                (0, queries, vectors), np.float32
            )
        found = self._session.run({"history": raw.history, "history_mask": raw.history_mask})
        return found["prefix"], found["weights"]

    def _user_ids(self, codes: np.ndarray | None) -> list[int]:
        if self._settings.user_id == "none":
            return []
        return user_part(None if codes is None else self._vocabulary.sid_ids(codes).ravel().tolist())

    def _user_codes(self, behaviour: Behaviour, best: list[int]) -> np.ndarray | None:
        """A user's id i32[2, L], from behaviour or else from the stand-ins, least clicked first."""
        settings, sids = self._settings, self._index.sids
        if settings.user_id == "none":
            return None
        if settings.user_id == "hashed":
            return hashed_codes(behaviour.user_id, self._vocabulary.levels) if behaviour.user_id else None
        recent, long = behaviour.sequences(settings.recent)
        if not len(long):
            recent = long = np.array(best[::-1], np.int32)
        if not len(long):
            return None
        two_nearest = settings.user_id == "nearest_two"
        return behaviour_codes(sids[recent], sids[long], self._codebooks, two_nearest)

    def _stand_ins(self, queries: Sequence[str], given: Sequence[np.ndarray] | None) -> list[list[int]]:
        """Item numbers that stand in for each query, best first."""
        if not self._settings.cold:
            return [[] for _ in queries]
        rows = self._popular.of(queries) if given is None else given
        return [
            [int(item) for item in row if 0 <= item < len(self._index)][: self._settings.stand_ins]
            for row in rows
        ]

    def _look_up(self, queries: list[str]) -> list[np.ndarray]:
        assert self._table is not None
        keys = self._table.of(queries)
        numbers = self._index.numbers_of(np.concatenate(keys))
        return np.split(numbers, np.cumsum([len(row) for row in keys])[:-1])

    def _encode_queries(self, queries: list[str]) -> list[list[int]]:
        """Ids of the SIDs of past queries."""
        if self._context.query_sids is None:
            raise ServingError("past queries of a shopper need a tokenizer beside the user encoder")
        sids: list[list[int]] = self._vocabulary.sid_ids(self._context.query_sids(queries)).tolist()
        return sids

    def _item(self, number: int) -> dict[str, Any]:
        if number < 0:
            return {"item_id": None, "sid": None}
        return {
            "item_id": self._index.items["item_id"][number],
            "sid": format_sid(self._index.sids[number].tolist()),
        }

    def _interests(self, weights: np.ndarray, mask: np.ndarray) -> list[dict[str, Any]]:
        assert self._histories is not None
        names = [name for name, here in zip(self._histories.names, mask, strict=True) if here]
        found = [*zip(names, weights[:-1][mask].tolist(), strict=True), (NOTHING_KNOWN, float(weights[-1]))]
        return [{"name": name, "weight": weight} for name, weight in sorted(found, key=lambda pair: -pair[1])]
