"""The learning half of Mu-Seq: a table of stand-ins from the log, and the Q-Former, trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from onesearch.contracts.user_encoder import UserEncoderLearner
from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch.progress import Progress
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file

from onesearch_museq.artifact import GRAPH, WEIGHTS, About
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.stand_ins import StandIns

if TYPE_CHECKING:
    from onesearch.data.store import Store

    from onesearch_museq.qformer import QFormer


class MuSeqLearner(UserEncoderLearner):
    """Knows what is most clicked for each query, and holds the module that reads long sequences.

    The module counts as trained once its scale, zero at first, has moved; only then is it saved and exported.
    """

    Config = MuSeqConfig

    def __init__(self, config: BaseModel) -> None:
        super().__init__(config)
        self.settings = MuSeqConfig.model_validate(config.model_dump())
        self.stand_ins: StandIns | None = None
        self._module: QFormer | None = None

    def fit(self, store: Store, work: Path, progress: Progress) -> dict[str, Any]:
        """Build the table of stand-ins from the whole log; return its size."""
        settings = self.settings
        if not settings.cold:
            return {}
        with progress.task("items most clicked for each query"):
            # Twice as many as are shown, so that withdrawn ones have successors.
            self.stand_ins = StandIns.fit(store, 2 * settings.stand_ins, settings.half_life_days)
        return {"queries_with_stand_ins": len(self.stand_ins.queries)}

    def module(self, dim: int, width: int) -> QFormer | None:
        """The Q-Former for D = ``dim`` and d = ``width``; None where long sequences are switched off.

        Raises UsageError where an earlier call, or what was loaded, had other sizes.
        """
        if not self.settings.long:
            return None
        if self._module is None:
            self._module = self._make(dim, width)
        if (self._module.dim, self._module.width) != (dim, width):
            raise UsageError(
                f"museq: the module reads {self._module.dim} and writes {self._module.width} dimensions;"
                f" asked for are {dim} and {width}"
            )
        return self._module

    def save(self, folder: Path) -> None:
        """Write ``museq.json``, ``stand_ins.safetensors`` and, once trained, ``qformer.safetensors``."""
        if module := self._write(folder):
            draft = folder / f"{WEIGHTS}.tmp"
            save_file(_arrays(module), draft)
            draft.replace(folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote; its settings rule over ``config``."""
        about = About.load(folder)
        learner = cls(about.settings)
        if learner.settings.cold:
            learner.stand_ins = StandIns.load(folder)
        if about.trained:
            learner._module = learner._make(about.dim, about.width)
            _restore(learner._module, folder / WEIGHTS)
        return learner

    def export(self, folder: Path) -> None:
        """Write ``museq.json``, ``stand_ins.safetensors`` and, once trained, ``museq.onnx``."""
        if module := self._write(folder):
            from onesearch_museq.qformer_graph import write_graph

            write_graph(_arrays(module), self.settings.heads, folder / GRAPH)

    def _write(self, folder: Path) -> QFormer | None:
        """What both halves read; the module if it is trained."""
        if self.settings.cold:
            if self.stand_ins is None:
                raise OneSearchError("Mu-Seq has to be fitted before it can be saved")
            self.stand_ins.save(folder)
        module = self._module if self._module is not None and self._module.trained else None
        sizes = (module.dim, module.width) if module else (0, 0)
        About(self.settings, *sizes).save(folder)
        return module

    def _make(self, dim: int, width: int) -> QFormer:
        from onesearch_museq.qformer import QFormer

        settings = self.settings
        return QFormer(dim, width, settings.queries, settings.layers, settings.heads, settings.seed)


def _arrays(module: QFormer) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(tensor.detach().cpu().float().numpy())
        for name, tensor in module.state_dict().items()
    }


def _restore(module: QFormer, path: Path) -> None:
    import torch

    try:
        arrays = load_file(path)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except Exception as error:  # safetensors raises its own type, which derives from Exception
        raise ArtifactError(f"{path}: not the weights of the Q-Former ({error})") from error
