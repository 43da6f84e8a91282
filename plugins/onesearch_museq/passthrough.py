"""The pass-through user encoder, both halves: the prompt holds what the request holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import (
    Prompt,
    RawPrompt,
    ShopperState,
    UserEncoderLearner,
    UserEncoderServer,
)
from onesearch.errors import ArtifactError
from onesearch.progress import Progress
from onesearch.vocabulary import Vocabulary, pad
from pydantic import BaseModel, ValidationError

from onesearch_museq.artifact import write_json
from onesearch_museq.config import PassThroughConfig
from onesearch_museq.prompts import build_prompts

if TYPE_CHECKING:
    from onesearch.data.store import Store

SETTINGS_FILE = "passthrough.json"


class PassThroughLearner(UserEncoderLearner):
    """Says how long a prompt's text may be; nothing here is fitted."""

    Config = PassThroughConfig

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.text_limit = PassThroughConfig.model_validate(config.model_dump()).text_limit

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Do nothing: the prompt holds what the request holds."""
        return {}

    def save(self, folder: Path) -> None:
        """Write ``passthrough.json``."""
        write_json(folder / SETTINGS_FILE, {"text_limit": self.text_limit})

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read ``passthrough.json``: the limit a generator was trained with rules over the configuration."""
        learner = cls(config)
        learner.text_limit = read_text_limit(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``passthrough.json``."""
        self.save(folder)


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
        self,
        states: Sequence[ShopperState],
        queries: Sequence[str],
        query_sids: np.ndarray,
        stand_ins: Sequence[np.ndarray] | None = None,
    ) -> Prompt:
        """The same: nothing of them is learnt."""
        raw = self.raw(states, queries, query_sids, stand_ins)
        return Prompt(raw.ids, raw.mask, raw.history)


def read_text_limit(folder: Path) -> int:
    """The token limit in ``passthrough.json``. Raises ArtifactError naming the file where it does not fit."""
    path = folder / SETTINGS_FILE
    try:
        return PassThroughConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))).text_limit
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(f"{path}: not the settings of a pass-through user encoder ({error})") from error
