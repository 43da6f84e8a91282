"""The serving half of the pass-through user encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import Prompt, RawPrompt, ShopperState, UserEncoderServer
from onesearch.errors import ArtifactError
from onesearch.vocabulary import Vocabulary, pad
from pydantic import BaseModel, ValidationError

from onesearch_museq.config import PassThroughConfig
from onesearch_museq.prompts import build_prompts

SETTINGS_FILE = "passthrough.json"


def read_text_limit(folder: Path) -> int:
    """The token limit in ``passthrough.json``. Raises ArtifactError naming the file where it does not fit."""
    path = folder / SETTINGS_FILE
    try:
        return PassThroughConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))).text_limit
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(f"{path}: not the settings of a pass-through user encoder ({error})") from error


class PassThroughServer(UserEncoderServer):
    """Prompts of the query's text and SID. The prefix is empty: P = 0, and d = 0, as nothing sizes it."""

    def __init__(self, vocabulary: Vocabulary, text_limit: int) -> None:
        self._vocabulary = vocabulary
        self._text_limit = text_limit

    @classmethod
    def open(cls, folder: Path, context: ServingContext, config: BaseModel) -> Self:
        """Open ``passthrough.json``: the limit that the generator was trained with rules over ``config``."""
        return cls(context.vocabulary, read_text_limit(folder))

    def raw(
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> RawPrompt:
        """Prompts of B requests, as :func:`onesearch_museq.prompts.build_prompts` lays them out, padded."""
        ids, mask = pad(build_prompts(self._vocabulary, queries, query_sids, self._text_limit))
        nothing = np.zeros((len(queries), 0, 0), dtype=np.float32)
        return RawPrompt(ids, mask, nothing, np.zeros((len(queries), 0), dtype=bool))

    def features(
        self, states: Sequence[ShopperState], queries: Sequence[str], query_sids: np.ndarray
    ) -> Prompt:
        """The same: nothing of them is learnt."""
        raw = self.raw(states, queries, query_sids)
        return Prompt(raw.ids, raw.mask, raw.history)
