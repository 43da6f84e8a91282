"""The files of a fitted relevance reward: ``relevance.json`` and ``relevance.safetensors``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onesearch.errors import ArtifactError
from safetensors.numpy import load_file, save_file

from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, Fields

ABOUT, ARRAYS = "relevance.json", "relevance.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Fitted:
    """Everything that scoring needs beside the catalogue's vectors and popularity.

    Attributes:
        language: of the stemmer that the fields were made with. weights: f32[F] of the raw features.
    """

    language: str
    weights: np.ndarray
    fields: Fields
    evidence: Evidence

    def save(self, folder: Path) -> None:
        """Write both files, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": FORMAT,
            "language": self.language,
            "weights": {feature.name: float(w) for feature, w in zip(FEATURES, self.weights, strict=True)},
        }
        drafts = [folder / f"{name}.tmp" for name in (ARRAYS, ABOUT)]
        arrays = {
            name: np.ascontiguousarray(a)
            for name, a in (self.fields.arrays() | self.evidence.arrays()).items()
        }
        save_file(arrays, drafts[0])
        drafts[1].write_text(json.dumps(about, indent=1), encoding="utf-8")
        for draft, name in zip(drafts, (ARRAYS, ABOUT), strict=True):
            draft.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        path = folder / ABOUT
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ArtifactError(f"{path}: format {about['format']}; this version reads format {FORMAT}")
            language = str(about["language"])
            weights = np.array([about["weights"][feature.name] for feature in FEATURES], dtype=np.float32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not a fitted relevance reward ({error})") from error
        path = folder / ARRAYS
        try:
            arrays = load_file(path)
            return cls(language, weights, Fields.of_arrays(arrays), Evidence.of_arrays(arrays))
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from error
        except Exception as error:  # safetensors raises its own type, which derives from Exception
            raise ArtifactError(f"{path}: cannot be read ({error})") from error
