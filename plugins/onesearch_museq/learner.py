"""The learning half of Mu-Seq: a table of stand-ins from the log, and a module that is trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from onesearch.contracts.user_encoder import UserEncoderLearner
from onesearch.errors import OneSearchError
from onesearch.progress import Progress
from pydantic import BaseModel

from onesearch_museq.artifact import About
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.stand_ins import StandIns

if TYPE_CHECKING:
    from onesearch.data.store import Store


class MuSeqLearner(UserEncoderLearner):
    """Knows what is most clicked for each query."""

    Config = MuSeqConfig

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.settings = MuSeqConfig.model_validate(config.model_dump())
        self.stand_ins: StandIns | None = None

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Build the table of stand-ins from the whole log; return its size."""
        with progress.task("items most clicked for each query"):
            # Twice as many as are shown, so that withdrawn ones have successors.
            self.stand_ins = StandIns.fit(store, 2 * self.settings.recent, self.settings.half_life_days)
        return {"queries_with_stand_ins": len(self.stand_ins.queries)}

    def save(self, folder: Path) -> None:
        """Write ``museq.json`` and ``stand_ins.safetensors``."""
        self._write(folder)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote; its settings rule over ``config``."""
        about = About.load(folder)
        learner = cls(about.settings)
        learner.stand_ins = StandIns.load(folder)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``museq.json`` and ``stand_ins.safetensors``."""
        self._write(folder)

    def _write(self, folder: Path) -> None:
        if self.stand_ins is None:
            raise OneSearchError("Mu-Seq has to be fitted before it can be saved")
        self.stand_ins.save(folder)
        About(self.settings).save(folder)
