"""The files of fitted rewards: one of JSON and one of arrays, each whole or not there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.errors import ArtifactError
from onesearch.index import CatalogueIndex
from onesearch.shoppers.tastes import Tastes
from safetensors.numpy import load_file, save_file

from onesearch_pars.counts import Counts
from onesearch_pars.evidence import Evidence
from onesearch_pars.features import FEATURES, RELEVANT, FeatureMaker, Fields, categories_of
from onesearch_pars.score import Relevance
from onesearch_pars.text import Analyser
from onesearch_pars.tuning import PARTS

ABOUT, ARRAYS = "relevance.json", "relevance.safetensors"
PARS_ABOUT, PARS_ARRAYS = "pars.json", "pars.safetensors"
FORMAT, BEFORE = 3, 2
"""Format 2 is served as well where it has the features of today; that it need not have."""


@dataclass(frozen=True)
class Fitted:
    """Everything that the list-wise score needs beside the catalogue's vectors and popularity.

    Attributes:
        language: of the stemmer that the fields were made with. weights: f32[F] of the raw features.
    """

    language: str
    weights: np.ndarray
    fields: Fields
    evidence: Evidence
    tastes: Tastes

    def maker(self, index: CatalogueIndex) -> FeatureMaker:
        """Features over the catalogue that this was fitted on, or was carried over to."""
        return FeatureMaker(
            Analyser(self.language),
            self.fields,
            self.evidence,
            self.tastes,
            index.vectors,
            index.popularity,
            categories_of(index.items),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save."""
        return self.fields.arrays() | self.evidence.arrays() | self.tastes.arrays()

    @classmethod
    def of_arrays(cls, language: str, weights: np.ndarray, arrays: dict[str, np.ndarray]) -> Fitted:
        """From what :meth:`arrays` gave. Raises ArtifactError or KeyError where they do not fit."""
        parts = Fields.of_arrays(arrays), Evidence.of_arrays(arrays), Tastes.of_arrays(arrays)
        return cls(language, weights, *parts)

    def save(self, folder: Path) -> None:
        """Write both files, each whole or not at all."""
        about = {"language": self.language, "weights": _named(FEATURE_NAMES, self.weights)}
        write_files(folder, (ABOUT, ARRAYS), about, self.arrays())

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        about, path = _read_about(folder / ABOUT), folder / ABOUT
        try:
            language, weights = str(about["language"]), _values(FEATURE_NAMES, about["weights"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: not a fitted relevance reward ({error})") from error
        arrays, path = read_arrays(folder / ARRAYS), folder / ARRAYS
        try:
            return cls.of_arrays(language, weights, arrays)
        except (ArtifactError, KeyError, IndexError, ValueError) as error:
            raise ArtifactError(f"{path}: {error}") from error


@dataclass(frozen=True)
class FittedPars:
    """Everything that the reward of PARS needs beside the catalogue and the towers.

    Attributes:
        listwise: the list-wise score. relevance: S_rel. counts: of query and item, and of items.
        lambdas: f32[5], λ of :data:`~onesearch_pars.tuning.PARTS`.
        towers: whether there are towers to be asked.
        similar: whether they are told how similar query and item are.
    """

    listwise: Fitted
    relevance: Relevance
    counts: Counts
    lambdas: np.ndarray
    towers: bool
    similar: bool

    def save(self, folder: Path) -> None:
        """Write both files, each whole or not at all."""
        about = {
            "language": self.listwise.language,
            "weights": _named(FEATURE_NAMES, self.listwise.weights),
            "relevance": _named(RELEVANT, self.relevance.weights),
            "relevance_bias": self.relevance.bias,
            "lambdas": _named(PARTS, self.lambdas),
            "towers": self.towers,
            "similar": self.similar,
        }
        arrays = self.listwise.arrays() | self.counts.arrays()
        write_files(folder, (PARS_ABOUT, PARS_ARRAYS), about, arrays)

    @classmethod
    def load(cls, folder: Path) -> FittedPars:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        about, path = _read_about(folder / PARS_ABOUT), folder / PARS_ABOUT
        try:
            language, weights = str(about["language"]), _values(FEATURE_NAMES, about["weights"])
            relevance = Relevance(_values(RELEVANT, about["relevance"]), float(about["relevance_bias"]))
            lambdas = _values(PARTS, about["lambdas"])
            towers, similar = bool(about["towers"]), bool(about["similar"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: not a fitted reward of PARS ({error})") from error
        arrays, path = read_arrays(folder / PARS_ARRAYS), folder / PARS_ARRAYS
        try:
            fitted = Fitted.of_arrays(language, weights, arrays)
            return cls(fitted, relevance, Counts.of_arrays(arrays), lambdas, towers, similar)
        except (ArtifactError, KeyError, IndexError, ValueError) as error:
            raise ArtifactError(f"{path}: {error}") from error


FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def write_files(
    folder: Path, names: tuple[str, str], about: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write a file of arrays, then one of JSON that says its format."""
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / names[1], arrays)
    draft = folder / f"{names[0]}.tmp"
    draft.write_text(json.dumps({"format": FORMAT, **about}, indent=1), encoding="utf-8")
    draft.replace(folder / names[0])


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays so that a reader finds either the old file or the whole new one."""
    draft = path.with_suffix(".tmp")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft)
    draft.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote. Raises ArtifactError naming the file."""
    try:
        return dict(load_file(path))
    except Exception as error:  # safetensors raises its own type, which derives from Exception
        raise ArtifactError(f"{path}: cannot be read ({error})") from error


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a fitted reward ({error})") from error
    served = found == BEFORE and set(about.get("weights", ())) == set(FEATURE_NAMES)
    if found != FORMAT and not served:
        raise ArtifactError(f"{path}: format {found}; this version reads format {FORMAT}")
    return dict(about)


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _values(names: tuple[str, ...], told: dict[str, Any]) -> np.ndarray:
    return np.array([float(told[name]) for name in names], dtype=np.float32)
