"""Prompts and histories of many examples, collected batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from onesearch.contracts.user_encoder import RawPrompt, ShopperState, UserEncoderServer
from onesearch.training.examples import Histories, Ragged


class Prompts:
    """Prompts of N requests as they are made; equal histories are kept once."""

    def __init__(
        self,
        user_encoder: UserEncoderServer,
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray],
    ) -> None:
        """Of these queries, their SIDs i32[N, L], and the items i32[n] that stand in for a cold shopper."""
        self._user_encoder = user_encoder
        self._queries, self._sids, self._stand_ins = queries, query_sids, stand_ins
        self._parts: list[Ragged] = []
        self._number: dict[bytes, int] = {}
        self._values: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._rows: list[int] = []

    def add(self, at: np.ndarray, states: Sequence[ShopperState]) -> None:
        """The prompts of requests ``at``, made by shoppers of these states."""
        queries = [self._queries[row] for row in at]
        standing = [self._stand_ins[row] for row in at]
        raw = self._user_encoder.raw(states, queries, self._sids[at], standing)
        self._parts.append(Ragged.of_mask(raw.ids, raw.mask))
        self._keep(raw)

    def _keep(self, raw: RawPrompt) -> None:
        values = np.where(raw.history_mask[..., None], raw.history, 0).astype(np.float16)
        new: list[int] = []
        for row, mask in enumerate(raw.history_mask):
            key = mask.tobytes()
            # Most shoppers of a log are new: nothing is hashed for an empty history.
            if mask.any():
                key += blake2b(values[row].tobytes(), digest_size=16).digest()
            if key not in self._number:
                self._number[key] = len(self._number)
                new.append(row)
            self._rows.append(self._number[key])
        self._values.append(values[new])
        self._masks.append(raw.history_mask[new])

    def finished(self) -> tuple[Ragged, Histories | None]:
        """All prompts in the order in which they came, and histories; None where the encoder makes none.

        A history that says nothing is kept, too: served strangers get the prefix of nothing known.
        """
        prompts, masks = Ragged.joined(self._parts), self._masks
        if not any(mask.shape[1] for mask in masks):
            return prompts, None
        rows = np.array(self._rows, np.int32)
        return prompts, Histories(np.concatenate(self._values), np.concatenate(masks), rows)
