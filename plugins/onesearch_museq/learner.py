"""The learning half of the pass-through user encoder: it learns nothing and exports its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from onesearch.contracts.user_encoder import UserEncoderLearner
from onesearch.progress import Progress
from pydantic import BaseModel

from onesearch_museq.config import PassThroughConfig
from onesearch_museq.server import SETTINGS_FILE, read_text_limit

if TYPE_CHECKING:
    from onesearch.data.store import Store


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
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / SETTINGS_FILE
        draft = target.with_suffix(".tmp")
        draft.write_text(json.dumps({"text_limit": self.text_limit}), encoding="utf-8")
        draft.replace(target)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read ``passthrough.json``: the limit a generator was trained with rules over the configuration."""
        learner = cls(config)
        learner.text_limit = read_text_limit(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``passthrough.json``."""
        self.save(folder)
