"""What Mu-Seq writes: ``museq.json`` with the settings, and the names of the files beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from onesearch.errors import ArtifactError
from pydantic import ValidationError

from onesearch_museq.config import MuSeqConfig

ABOUT, STAND_INS = "museq.json", "stand_ins.safetensors"
WEIGHTS, GRAPH = "qformer.safetensors", "museq.onnx"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What rules over the configuration: the settings that a generator was trained with.

    Attributes:
        dim: D of the history that the module reads; 0 without a trained module.
        width: d of its prefix vectors; 0 without a trained module.
    """

    settings: MuSeqConfig
    dim: int = 0
    width: int = 0

    @property
    def trained(self) -> bool:
        """Whether there is a trained module."""
        return self.width > 0

    def save(self, folder: Path) -> None:
        """Write ``museq.json``."""
        about = {"format": FORMAT, "settings": self.settings.model_dump(), "dim": self.dim}
        write_json(folder / ABOUT, about | {"width": self.width})

    @classmethod
    def load(cls, folder: Path) -> About:
        """Read ``museq.json``. Raises ArtifactError naming it where it does not fit."""
        path = folder / ABOUT
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ArtifactError(f"{path}: format {about['format']}; this version reads format {FORMAT}")
            settings = MuSeqConfig.model_validate(about["settings"])
            return cls(settings, int(about["dim"]), int(about["width"]))
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise ArtifactError(f"{path}: not the settings of Mu-Seq ({error})") from error


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader finds either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)
