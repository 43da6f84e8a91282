"""The Triton model repository of a release, made from the templates in ``model_repository/``.

Every release has model names of its own (``<release>--tokenizer`` …), so that two can be loaded side by side
and traffic moves from one to the other by a name.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from onesearch.errors import ServingError
from onesearch.releases.release import Release

STEPS = ("tokenizer", "user_encoder", "generator", "reward", "resolver")
ENSEMBLE = "search"
TOGETHER = "together"
"""The template that stands in for the ensemble and its steps where one process runs them all."""
CONFIG = "config.pbtxt"
_ON_CPU, _ON_GPU = "kind: KIND_CPU", "kind: KIND_GPU, gpus: [ 0 ]"


@dataclass(frozen=True)
class RepositorySettings:
    """How the models of a release run.

    Attributes:
        threads: of the generator's session; every other model has one.
        max_batch: requests that a model takes at once.
        generator_batch: the same for the generator, whose work grows with the batch on a CPU.
        together: one process runs all steps of a search, instead of one each.
        gpu: the model that holds the generator is an instance of the first GPU.
    """

    threads: int = 2
    max_batch: int = 32
    generator_batch: int = 4
    together: bool = False
    gpu: bool = False


def model_name(release: str, model: str) -> str:
    """The name that a model of a release has in Triton."""
    return f"{release}--{model}"


def model_names(release: str, together: bool = False) -> tuple[str, ...]:
    """All models of a release, the one that searches last. The tokenizer is there for queries that are only
    encoded."""
    models = ("tokenizer", ENSEMBLE) if together else (*STEPS, ENSEMBLE)
    return tuple(model_name(release, model) for model in models)


def templates() -> Path:
    """The folder of the templates: beside the sources, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_model_repository", package.parents[1] / "model_repository"):
        if (folder / ENSEMBLE / CONFIG).is_file():
            return folder
    raise ServingError("the templates of the Triton models are missing: install onesearch anew")


def build_repository(
    release: Release,
    folder: Path,
    settings: RepositorySettings | None = None,
    source: Path | None = None,
    catalogue: Path | None = None,
) -> tuple[str, ...]:
    """Write the models of a release into a repository folder; return their names, the one that searches last.

    Models of other releases in the folder stay as they are. The models of this one appear ready-made, and
    follow the generations in ``catalogue`` where one is given.
    """
    settings = settings or RepositorySettings()
    source = source or templates()
    values = {model: model_name(release.name, model) for model in STEPS}
    values["release"] = str(_plain_path(release.path, folder, release.name))
    # The folder itself may come later.
    values["catalogue"] = str(_plain_path(catalogue, folder, f"{release.name}-live")) if catalogue else ""
    narrow = ("generator", ENSEMBLE)
    for model in ("tokenizer", ENSEMBLE) if settings.together else (*STEPS, ENSEMBLE):
        name = model_name(release.name, model)
        template = TOGETHER if settings.together and model == ENSEMBLE else model
        own = values | {
            "name": name,
            "threads": str(settings.threads if model in narrow else 1),
            # An ensemble may not take more at once than any of its steps.
            "max_batch": str(settings.generator_batch if model in narrow else settings.max_batch),
        }
        draft = folder / f".{name}-{os.getpid()}"
        try:
            shutil.copytree(source / template, draft, ignore=shutil.ignore_patterns("__pycache__"))
            (draft / "1").mkdir(exist_ok=True)
            # A file where Python would make a folder for bytecode, which Triton takes for a changed model.
            # (The backend's interpreter is isolated: PYTHONDONTWRITEBYTECODE does not reach it.)
            (draft / "1" / "__pycache__").touch()
            text = (draft / CONFIG).read_text(encoding="utf-8")
            if settings.gpu and model in narrow:
                text = text.replace(_ON_CPU, _ON_GPU)
            (draft / CONFIG).write_text(Template(text).substitute(own), encoding="utf-8")
            shutil.rmtree(folder / name, ignore_errors=True)
            draft.rename(folder / name)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise ServingError(f"model '{name}' cannot be written to {folder}: {error}") from error
    return model_names(release.name, settings.together)


def _plain_path(path: Path, folder: Path, name: str) -> Path:
    """A path that every library in the backend's ASCII-minded interpreter can read."""
    path = path.resolve()
    if re.fullmatch(r"[\w./ -]+", str(path), re.ASCII):
        return path
    link = folder / ".releases" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return link
